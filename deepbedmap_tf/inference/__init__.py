"""From a trained generator to a bed: export, loading and prediction."""
