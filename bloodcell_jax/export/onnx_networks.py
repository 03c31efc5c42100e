"""The networks as layers of an ONNX graph: normalized images [n, h, w, 3] -> logits [n, classes]."""

from collections.abc import Callable
from typing import Any

from bloodcell_jax.errors import UsageError
from bloodcell_jax.export.onnx_graph import Graph, Layers
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.models.convnext import ConvNeXt
from bloodcell_jax.models.custom_cnn import WIDTHS, CustomCNN

# Flax's GroupNorm, as the custom CNN uses it.
_GROUPS, _GROUP_NORM_EPSILON = 8, 1e-6


def add_network(graph: Graph, model: TrainedModel, images: str) -> str:
    """Add the network of a model and return the name of its logits.

    Raises:
      UsageError: there is no ONNX form of this network.
    """
    network, layers = model.network, Layers(graph, model.weights)
    for kind, add in _NETWORKS.items():
        if isinstance(network, kind):
            return add(graph, layers, network, images)
    raise UsageError(f"--format=onnx: has no form of {model.config.model.variant}; choose --format=stablehlo")


def _convnext(graph: Graph, layers: Layers, network: ConvNeXt, x: str) -> str:
    variant = network.variant
    x = layers.layer_norm(_stem(layers, network, x), "stem_norm", variant.norm_eps)
    for stage, depth in enumerate(variant.depths):
        if stage > 0:
            x = layers.layer_norm(x, f"stage_{stage}/downsample_norm", variant.norm_eps)
            x = layers.convolution(x, f"stage_{stage}/downsample_conv", stride=2)
        for number in range(depth):
            x = _block(graph, layers, network, x, f"stage_{stage}/block_{number}")
    if variant.norm_before_pool:
        x = layers.mean(layers.layer_norm(x, "head_norm", variant.norm_eps))
    else:
        x = layers.layer_norm(layers.mean(x), "head_norm", variant.norm_eps)
    return layers.dense(x, "head")


def _stem(layers: Layers, network: ConvNeXt, x: str) -> str:
    stride = network.stem_stride
    if network.variant.stem == "patch":
        return layers.convolution(x, "stem_conv", stride=stride, padding=0 if stride == 4 else 1)
    x = layers.convolution(x, "stem_conv_0", stride=2, padding=1)
    return layers.convolution(x, "stem_conv_1", stride=stride // 2, padding=1)


def _block(graph: Graph, layers: Layers, network: ConvNeXt, x: str, name: str) -> str:
    variant = network.variant
    y = layers.layer_norm(layers.depthwise(x, f"{name}/depthwise"), f"{name}/norm", variant.norm_eps)
    y = layers.activation(layers.dense(y, f"{name}/expand"), variant.activation)
    if variant.grn:
        y = layers.response_norm(y, f"{name}/grn")
    y = layers.dense(y, f"{name}/project")
    if layers.has(f"{name}/layer_scale"):
        y = layers.add_weight("Mul", y, f"{name}/layer_scale")
    return graph.add("Add", x, y)


def _custom_cnn(graph: Graph, layers: Layers, network: CustomCNN, x: str) -> str:
    x = layers.activation(layers.convolution(x, "stem_conv", padding=1), "gelu_tanh")
    for stage in range(len(WIDTHS)):
        for number in range(2):
            x = layers.convolution(x, f"stage_{stage}_conv_{number}", padding=1)
            norm = f"stage_{stage}_norm_{number}"
            x = layers.group_norm(x, norm, groups=_GROUPS, epsilon=_GROUP_NORM_EPSILON)
            x = layers.activation(x, "gelu_tanh")
        x = layers.halve(x)
    return layers.dense(layers.mean(x), "head")


_NETWORKS: dict[type, Callable[[Graph, Layers, Any, str], str]] = {ConvNeXt: _convnext, CustomCNN: _custom_cnn}
