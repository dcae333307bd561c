"""Antarctic bed elevation by conditional super-resolution: DeepBedMap in TensorFlow/Keras."""

__version__ = "0.1.0"
