"""Optimizers of a stage, from optax's parts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.train.freezing import decay_mask
from bloodcell_jax.train.layer_decay import Distances, scale_by_layer
from bloodcell_jax.train.muon import as_matrix, scale_by_muon
from bloodcell_jax.train.plateaus import scale_by_rate_scale


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(*config.betas, mu_dtype=jnp.dtype(config.moment_dtype))


def _lion(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_lion(*config.betas, mu_dtype=jnp.dtype(config.moment_dtype))


def _sgd(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.trace(config.momentum, accumulator_dtype=jnp.dtype(config.moment_dtype))


def _muon(config: OptimizerConfig) -> optax.GradientTransformation:
    """Muon (K. Jordan 2024) for the matrices between stem and head, Adam for the rest, such as depthwise kernels.

    A convolution's kernel is the matrix that its windows are multiplied by, as in Jordan's own networks. The updates of
    matrices are scaled to the size of Adam's (J. Liu et al. 2025, arXiv:2502.16982, section 2.2), so that one learning
    rate and one weight decay serve both.
    """
    beta = 0.95 if config.b1 is None else config.b1
    orthogonal = scale_by_muon(beta, jnp.dtype(config.moment_dtype))
    matrices = optax.chain(orthogonal, optax.stateless_with_tree_map(_scale_as_adam))
    return optax.partition({"matrix": matrices, "rest": _adam(config)}, _kinds)


def _kinds(leaves: dict[str, Any]) -> dict[str, str]:
    """Return which part of Muon updates each leaf by its path."""
    return {path: "matrix" if is_inner_matrix(path, leaf.shape) else "rest" for path, leaf in leaves.items()}


def is_inner_matrix(path: str, shape: tuple[int, ...]) -> bool:
    """Return whether Muon updates a leaf: a matrix, or a kernel of a convolution, between stem and head."""
    is_depthwise = len(shape) == 4 and shape[2] == 1
    return len(shape) > 1 and not is_depthwise and not path.startswith(("head/", "stem_"))


def _scale_as_adam(update: ArrayLike, _: Any) -> jax.Array:
    update = jnp.asarray(update)
    return 0.2 * max(as_matrix(update).shape) ** 0.5 * update


def updates_made(opt_state: Any) -> jax.Array:
    """Return how many updates the state of `create_optimizer` has made: where its learning rate is in the schedule.

    A skipped step makes none.
    """
    return optax.tree.get(opt_state, "count", filtering=lambda path, _: _is_schedule(path[-1]))


def _is_schedule(key: Any) -> bool:
    return getattr(key, "tuple_name", "") == optax.ScaleByScheduleState.__name__


# The choices of `OptimizerConfig.name`; each returns what turns gradients into updates for a learning rate of 1.
OPTIMIZERS: dict[str, Callable[[OptimizerConfig], optax.GradientTransformation]] = {
    "adamw": _adam,
    "adam": _adam,
    "lion": _lion,
    "muon": _muon,
    "sgd": _sgd,
}


def create_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, distances: Distances | None = None
) -> optax.GradientTransformation:
    """Return the update rule over a flat dict of trainable parameters.

    Frozen parameters never reach it: they have no moments and cannot decay.

    Args:
      config: what was asked for.
      schedule: learning rate by finished updates.
      distances: of the parameters from the head; needed if `config.layer_decay` is set.
    """
    chain = [OPTIMIZERS[config.name](config)]
    if config.clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
    chain.append(optax.scale_by_learning_rate(schedule))
    if config.schedule == "plateau":
        chain.append(scale_by_rate_scale())
    if config.layer_decay is not None:
        chain.append(scale_by_layer(config.layer_decay, distances or {}))
    return optax.chain(*chain)
