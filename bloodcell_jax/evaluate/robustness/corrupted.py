"""Images as a suite corrupts them, on the devices: the draws depend on the suite and on each image's place alone."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.augment.pixels import to_levels
from bloodcell_jax.devices.parallel import ROWS, WHOLE, DataParallel
from bloodcell_jax.evaluate.evaluator import Change
from bloodcell_jax.evaluate.robustness.suites import Corruption, Suite
from bloodcell_jax.models.input import to_unit


def changes_of(suite: Suite, parallel: DataParallel) -> Iterator[tuple[Corruption, int, Change]]:
    """Yield (corruption, severity, change) of a suite, in its order; one program is compiled for each corruption."""
    whole, rows = parallel.replicated, parallel.split_rows
    for corruption in suite.corruptions:
        change = parallel.on_each_device(partial(corrupt, corruption), (WHOLE, WHOLE, ROWS, ROWS), ROWS)
        program = jax.jit(change, in_shardings=(whole, whole, rows, rows), out_shardings=rows)
        for severity, numbers in enumerate(corruption.severities, 1):
            key = jax.random.key_data(corruption_key(suite, corruption, severity))
            yield corruption, severity, partial(program, np.asarray(key), np.asarray(numbers, np.float32))


def corruption_key(suite: Suite, corruption: Corruption, severity: int) -> jax.Array:
    """Return the key of a corruption at a severity; each image folds its place in."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(suite.seed), corruption.number), severity)


def corrupt(
    corruption: Corruption, key: jax.Array, severity: jax.Array, images: jax.Array, places: jax.Array
) -> jax.Array:
    """Return corrupted images, rounded to levels as in a file.

    Args:
      corruption: what happens to them.
      key: data of the key of `corruption_key`, uint32 [2].
      severity: the numbers of the severity, float32 [k].
      images: uint8 [n, h, w, 3].
      places: int32 [n], the place of each image among the examples.
    """

    def corrupt_one(image: jax.Array, place: jax.Array) -> jax.Array:
        own_key = jax.random.fold_in(jax.random.wrap_key_data(key), place)
        return corruption.function(own_key, image, *severity)

    return to_levels(jax.vmap(corrupt_one)(to_unit(images), places)).astype(jnp.uint8)
