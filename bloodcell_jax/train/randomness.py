"""Where every random draw of training comes from: (seed, purpose, step, global slot) and nothing else."""

import jax
from jax.typing import ArrayLike

# What a key is for, folded into the seed first. The numbers are part of every run's identity.
INIT, AUGMENT, DROP_PATH, MIX = 0, 1, 2, 3


def step_key(seed: ArrayLike, purpose: int, step: ArrayLike) -> jax.Array:
    """Return the key of one purpose in one step; an example folds in its slot, its place in the global batch.

    Threefry by name: the same draws on every platform, whatever JAX's default becomes.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(key, purpose), step)
