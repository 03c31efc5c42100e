"""Model FLOPs utilization: what part of the matrix rate measured here a run turns into training."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bloodcell_jax.models.flops import forward_flops
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import TrainingStage

# Large enough to reach the unit's full rate, small enough to take well under a second.
_MATRIX_SIZE = {"cpu": 1024, "gpu": 8192, "tpu": 8192}
# Far beyond any cache.
_COPY_BYTES = {"cpu": 2**28, "gpu": 2**30, "tpu": 2**30}
_WINDOWS = 5


@dataclass(frozen=True)
class Utilization:
    """Turns images per second into MFU.

    Attributes:
      flops_per_image: model FLOPs of one training example, or None if the count is not defined.
      matrix_rate: FLOP/s that all devices together reach on a dense product.
    """

    flops_per_image: int | None
    matrix_rate: float

    @classmethod
    def of_stage(cls, run: Run, stage: TrainingStage) -> "Utilization":
        """Measure the matrix rate and count the model FLOPs of a stage.

        A forward pass counts once. If every parameter trains, the backward pass counts twice that. If some are frozen,
        the backward pass is shorter by an amount that the formula does not know, and there is no MFU.
        """
        trains_all = all(jax.tree.leaves(stage.mask))
        forward = forward_flops(run.model, stage.image_size)
        rate = measure_matrix_rate(jnp.dtype(run.config.model.dtype)) * run.parallel.mesh.size
        return cls(3 * forward * run.augmentation.images_seen if trains_all else None, rate)

    def mfu(self, images_per_second: float) -> float | None:
        """Return model FLOPs utilization, 0 to 1."""
        return None if self.flops_per_image is None else self.flops_per_image * images_per_second / self.matrix_rate


def measure_matrix_rate(dtype: jnp.dtype) -> float:
    """Return the FLOP/s of a large dense product on one device: the best of a few windows."""
    size = _MATRIX_SIZE.get(jax.default_backend(), 1024)
    # Random, not zeros: products of zeros run faster than real ones.
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    return 2 * size**3 / _best_seconds(jax.jit(lambda a: a @ a), a)


def measure_copy_rate() -> float:
    """Return the bytes/s, read and written together, at which one device moves a large array: the best of a few."""
    a = jnp.ones(_COPY_BYTES.get(jax.default_backend(), 2**28) // 4, jnp.float32)
    # One operation for each value read and written: the memory is the limit, and the compiler cannot leave it out.
    return 2 * a.nbytes / _best_seconds(jax.jit(lambda a: a + 1), a)


def _best_seconds(function: Callable[[jax.Array], jax.Array], a: jax.Array) -> float:
    jax.block_until_ready(function(a))
    best = float("inf")
    for _ in range(_WINDOWS):
        start = time.perf_counter()
        jax.block_until_ready(function(a))
        best = min(best, time.perf_counter() - start)
    return best
