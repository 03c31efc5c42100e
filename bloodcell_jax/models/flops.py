"""Model FLOPs: what the architecture needs, whatever implementation runs."""

from bloodcell_jax.models.layers import layers_of
from bloodcell_jax.models.network import Network


def forward_flops(model: Network, image_size: int) -> int:
    """Return the FLOPs of one image's forward pass: matrix and depthwise products, two per multiply-add.

    Raises:
      TypeError: the network has a layer whose products are not known.
    """
    return sum(layer.count * layer.flops for layer in layers_of(model, image_size, batch_size=1))
