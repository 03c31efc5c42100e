"""Checkpoints: reads every published ConvNeXt layout; reads and writes this library's safetensors."""

from bloodcell_jax.weights.convert import convert
from bloodcell_jax.weights.info import WeightsInfo
from bloodcell_jax.weights.loading import load_weights, read_weights_info, save_weights

__all__ = ["WeightsInfo", "convert", "load_weights", "read_weights_info", "save_weights"]
