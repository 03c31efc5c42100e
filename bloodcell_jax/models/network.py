"""What every network of this library offers, so that training, evaluation and benchmarks need not know which it is."""

from typing import Any, Protocol

import jax
from flax.traverse_util import flatten_dict

from bloodcell_jax.errors import UsageError

# Nested dicts of arrays, or of shapes.
Params = dict[str, Any]
# Maps of a forward pass by name; see `Network.__call__`.
Features = dict[str, jax.Array]


class Network(Protocol):
    """A Linen module that classifies images in two halves: `extract`, whose last step is `pool`, then `classify`.

    The parameters that `classify` uses are those that a stage on cached features may train.

    Attributes:
      num_classes: size of the head.
      feature_width: channels of what `extract` returns.
    """

    num_classes: int

    @property
    def feature_width(self) -> int: ...

    def __call__(
        self, images: jax.Array, *, train: bool = False, keys: jax.Array | None = None
    ) -> tuple[jax.Array, Features]:
        """Return (logits float32 [n, num_classes], features).

        Args:
          images: [n, h, w, 3], normalized.
          train: turns on what is random in training.
          keys: [n], one per example, from which that is drawn.

        Returns:
          The logits, and `stem`, `stage_0` to `stage_3` ([n, h, w, c]) and `pooled` ([n, c], what the head takes).
        """
        ...

    def extract(
        self, images: jax.Array, *, train: bool = False, keys: jax.Array | None = None
    ) -> tuple[jax.Array, Features]:
        """Return what `classify` takes, float32 [n, feature_width], and the features before it."""
        ...

    def pool(self, x: jax.Array) -> jax.Array:
        """Return what `classify` takes, float32 [n, feature_width], of the last map, `stage_3` [n, h, w, c]."""
        ...

    def classify(
        self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return logits float32 [n, num_classes] of what `extract` returned, and what the head took, [n, c]."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return freshly drawn variables; Linen's."""
        ...

    def clone(self, **updates: Any) -> "Network":
        """Return the same with other fields; Linen's."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a method on given variables; Linen's."""
        ...


def check_not_empty(features: jax.Array, images: jax.Array, least: int) -> None:
    """Check that something is left of images [n, h, w, 3] in the last map of a network.

    Raises:
      UsageError: the images are too small; `least` is the side that is large enough.
    """
    if 0 in features.shape:
        height, width = images.shape[1:3]
        raise UsageError(f"images of {height}x{width} pixels: too small; resize them to {least}x{least} or more")


def leaves_by_path(params: Params) -> dict[str, Any]:
    """Return the leaves of nested dicts by their paths, such as `stage_3/block_0/expand/kernel`."""
    return flatten_dict(params, sep="/")  # pyright: ignore[reportReturnType] - its stub forgets what the leaves are
