"""Images on the devices, from which batches are gathered by index."""

from typing import Any

import flax.struct
import jax
import numpy as np


@flax.struct.dataclass
class ResidentImages:
    """All images of a dataset, each a row of bytes.

    XLA:TPU lays out uint8 [n, h, w, 3] for convolutions, and copied all images in every step to gather a batch from
    them: 6.0 of 6.1 million estimated cycles for 128 of 12,000 images, and 0.09 million with rows (docs/plan.md).

    Attributes:
      rows: uint8 [n, h * w * 3], an array or a shape.
      image_shape: (h, w, 3).
    """

    rows: Any
    image_shape: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, images: np.ndarray) -> "ResidentImages":
        """Return images uint8 [n, h, w, 3] as rows, without a copy if they lie in one piece."""
        return cls(images.reshape(len(images), -1), images.shape[1:])

    def gather(self, indices: jax.Array) -> jax.Array:
        """Return the images at int32 [m] indices, uint8 [m, h, w, 3]."""
        return self.rows[indices].reshape(-1, *self.image_shape)
