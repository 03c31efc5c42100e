"""The layers of a network with the shapes they work on, found by running it on shapes alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from bloodcell_jax.models.convnext import Block, DepthwiseConv
from bloodcell_jax.models.convolution import Conv
from bloodcell_jax.models.dense import Dense, PatchConv
from bloodcell_jax.models.network import Network, leaves_by_path
from bloodcell_jax.models.norms import GlobalResponseNorm, GroupNorm, LayerNorm

MATRIX, DEPTHWISE, NORM, BLOCK = "matrix products", "depthwise", "norms", "block"
_KINDS: dict[type[nn.Module], str] = {
    nn.Dense: MATRIX,
    nn.Conv: MATRIX,
    Conv: MATRIX,
    Dense: MATRIX,
    PatchConv: MATRIX,
    DepthwiseConv: DEPTHWISE,
    LayerNorm: NORM,
    GlobalResponseNorm: NORM,
    GroupNorm: NORM,
    Block: BLOCK,
}


@dataclass(frozen=True)
class Layer:
    """One kind of layer on one shape.

    Attributes:
      kind: a value of the table above.
      module: unbound.
      params, images, output: shapes; images is its input.
      count: how often the network has it.
    """

    kind: str
    module: nn.Module
    params: Any
    images: jax.ShapeDtypeStruct
    output: jax.ShapeDtypeStruct
    count: int = 1

    def forward(self, params: Any, images: jax.Array) -> Any:
        """Apply it; a block without drop path."""
        return self.module.apply({"params": params}, images)

    @property
    def flops(self) -> int:
        """FLOPs of its products in one forward pass, two per multiply-add; 0 for norms and blocks.

        A product of a kernel [..., inputs, outputs] is made once for each place of the output. The products of a block
        are those of the layers in it.
        """
        if self.kind not in (MATRIX, DEPTHWISE):
            return 0
        places = self.output.size // self.output.shape[-1]
        return 2 * places * self.params["kernel"].size


def layers_of(model: Network, image_size: int, batch_size: int) -> list[Layer]:
    """Return the layers of a network in the order of their first use; equal ones on equal shapes are counted.

    Raises:
      TypeError: a matrix of parameters belongs to no layer of the table above.
    """
    if hasattr(model, "remat"):
        model = model.clone(remat=False, scan_blocks=False)
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x)["params"], images)
    found: dict[tuple, Layer] = {}
    kernels: set[str] = set()

    def record(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        result = call(*args, **kwargs)
        kind = _KINDS.get(type(context.module))
        if kind and context.method_name == "__call__":
            layer = _layer(kind, context.module, args[0], result)
            kernels.add("/".join((*context.module.path, "kernel")))
            key = kind, type(layer.module), str(layer.params), layer.images.shape, layer.images.dtype
            found[key] = replace(layer, count=found[key].count + 1 if key in found else 1)
        return result

    def run(params: Any, images: jax.Array) -> jax.Array:
        with nn.intercept_methods(record):
            return model.apply({"params": params}, images)[0]

    jax.eval_shape(run, params, images)
    for path, leaf in leaves_by_path(params).items():
        if leaf.ndim > 1 and path not in kernels:
            raise TypeError(f"{path}: a matrix of no known layer; add its module to the table of layers")
    return list(found.values())


def _layer(kind: str, module: nn.Module, images: jax.Array, output: jax.Array) -> Layer:
    shapes = jax.tree.map(_shape, (module.variables["params"], images, output))
    return Layer(kind, module.clone(parent=None), *shapes)


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
