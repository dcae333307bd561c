"""The networks: generator, discriminator, deformable convolution and the published weights' format."""

from deepbedmap_tf.models.chainer import load_chainer_weights
from deepbedmap_tf.models.deformable import DeformableConv2D
from deepbedmap_tf.models.discriminator import build_discriminator
from deepbedmap_tf.models.generator import build_generator

__all__ = ["DeformableConv2D", "build_discriminator", "build_generator", "load_chainer_weights"]
