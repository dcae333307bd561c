"""What training, tuning and evaluation measure with: errors, roughness, spectra and baselines."""
