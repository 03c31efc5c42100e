"""A ConvNeXt under timm's names and in PyTorch's order of axes: the inverse of `weights.naming.rename_timm`."""

import re
from typing import Any

import numpy as np

from bloodcell_jax.errors import UsageError
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.models.convnext import ConvNeXt
from bloodcell_jax.models.variants import VARIANTS

# Modules by our names; what is not here depends on the variant, or is a stage or a block.
_MODULES = {
    "stem_conv": "stem.0",
    "stem_conv_0": "stem.0",
    "stem_conv_1": "stem.1",
    "downsample_norm": "downsample.0",
    "downsample_conv": "downsample.1",
    "depthwise": "conv_dw",
    "norm": "norm",
    "expand": "mlp.fc1",
    "grn": "mlp.grn",
    "project": "mlp.fc2",
    "head": "head.fc",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "layer_scale": "gamma"}
# timm computes the dense layers of these blocks as 1x1 convolutions.
_CONVOLUTIONAL = re.compile(r"convnext(v2)?_(atto|femto|pico|nano)(_ols)?|convnext_tiny_hnf")


def timm_name(path: str, *, overlapping_stem: bool, norm_before_pool: bool) -> str:
    """Return timm's name of one of our parameters, such as `stages.0.blocks.1.conv_dw.weight`."""
    modules = _MODULES | {
        "stem_norm": "stem.2" if overlapping_stem else "stem.1",
        "head_norm": "norm_pre" if norm_before_pool else "head.norm",
    }
    *parents, leaf = path.split("/")
    names = [
        parent.replace("stage_", "stages.").replace("block_", "blocks.")
        if parent.startswith(("stage_", "block_"))
        else modules[parent]
        for parent in parents
    ]
    return ".".join([*names, _LEAVES[leaf]])


def timm_axes(path: str, weight: np.ndarray, variant: str) -> np.ndarray:
    """Return one of our parameters in the order and number of axes that timm has for a variant."""
    if weight.ndim == 4:
        return weight.transpose(3, 2, 0, 1)
    if weight.ndim == 2 and "/block_" in path and _CONVOLUTIONAL.fullmatch(variant):
        return weight.T[:, :, None, None]
    return weight.T


def timm_weights(model: TrainedModel) -> dict[str, np.ndarray]:
    """Return the weights as timm stores them, the head's divided by the temperature: softmax then needs none.

    Raises:
      UsageError: timm has no such network.
    """
    name, variant = model.config.model.variant, _network(model).variant
    form = {"overlapping_stem": variant.stem != "patch", "norm_before_pool": variant.norm_before_pool}
    weights = {}
    for path, weight in model.weights.items():
        if path.startswith("head/"):
            weight = (weight.astype(np.float64) / model.temperature).astype(np.float32)
        weights[timm_name(path, **form)] = np.ascontiguousarray(timm_axes(path, weight, name))
    return weights


def timm_config(model: TrainedModel) -> dict[str, Any]:
    """Return what timm reads beside the weights, `config.json`.

    Raises:
      UsageError: timm has no such network.
    """
    config, size = model.config.model, model.config.data.image_size
    return {
        "architecture": config.variant,
        "num_classes": len(model.class_names),
        "num_features": _network(model).feature_width,
        "model_args": _model_args(model),
        "label_names": list(model.class_names),
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": list(config.mean),
            "std": list(config.std),
            "num_classes": len(model.class_names),
            "first_conv": "stem.0",
            "classifier": "head.fc",
            "label_names": list(model.class_names),
            "license": model.info.licence,
        },
    }


def _model_args(model: TrainedModel) -> dict[str, Any]:
    """Return the arguments of timm's constructor in which the network differs from its variant."""
    ours, published = _network(model).variant, VARIANTS[model.config.model.variant]
    args: dict[str, Any] = {}
    if ours.norm_eps != published.norm_eps:
        args["norm_eps"] = ours.norm_eps
    if ours.activation != published.activation:
        args["act_layer"] = ours.activation
    if ours.layer_scale != published.layer_scale:
        args["ls_init_value"] = ours.layer_scale
    return args


def _network(model: TrainedModel) -> ConvNeXt:
    network, variant = model.network, model.config.model.variant
    if not isinstance(network, ConvNeXt):
        raise UsageError(f"--format=timm: timm has no {variant}; choose --format=onnx")
    if network.stem_stride != 4:
        raise UsageError(
            f"--format=timm: timm has no {variant} with config.model.stem_stride={network.stem_stride}; choose "
            "--format=onnx"
        )
    return network
