"""Plateaus: evaluations in a row in which a metric of val did not become better.

A run may end at one (early stopping; Prechelt 1998, "Early Stopping - but when?"), and `schedule=plateau` lowers the
learning rate there, by a factor that the optimizer's state holds, so that no step is compiled anew for it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bloodcell_jax.config import OptimizerConfig


def evaluations_since_best(values: Sequence[float | None], *, higher_is_better: bool) -> list[int]:
    """Return for each evaluation how many came after the best one so far; 0 if it is better than all before.

    Args:
      values: of one metric, in the order of the evaluations. What is no finite number is not better than anything.
      higher_is_better: which way is better.
    """
    best, count, counts = -math.inf, 0, []
    for value in values:
        score = -math.inf if value is None or not math.isfinite(value) else value if higher_is_better else -value
        best, count = (score, 0) if score > best else (best, count + 1)
        counts.append(count)
    return counts


def plateau_scale(config: OptimizerConfig, since_best: Sequence[int]) -> float:
    """Return the factor on the learning rate after some evaluations of a stage with `schedule=plateau`.

    Each `plateau_patience` evaluations in a row without a better one multiply it by `plateau_factor`, down to
    `final_scale`; Keras' ReduceLROnPlateau with `min_delta=0`.

    Args:
      config: the stage's.
      since_best: as `evaluations_since_best` returns it.
    """
    times = sum(count > 0 and count % config.plateau_patience == 0 for count in since_best)
    return max(config.final_scale, config.plateau_factor**times)


class RateScale(NamedTuple):
    """A factor on the learning rate that is changed between two steps, float32 []."""

    rate_scale: jax.Array


def scale_by_rate_scale() -> optax.GradientTransformation:
    """Return what multiplies updates by a factor that its state holds; it begins with 1."""

    def init(params: Any) -> RateScale:
        return RateScale(jnp.ones((), jnp.float32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, RateScale]:
        return jax.tree.map(lambda update: state.rate_scale.astype(update.dtype) * update, updates), state

    return optax.GradientTransformation(init, update)


def rate_scale(opt_state: Any) -> jax.Array | None:
    """Return the factor that an optimizer's state holds; None if it has none."""
    return optax.tree.get(opt_state, "rate_scale")


def with_rate_scale(opt_state: Any, scale: jax.Array) -> Any:
    """Return an optimizer's state with another factor."""
    return optax.tree.set(opt_state, rate_scale=scale)
