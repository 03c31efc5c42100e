"""Optimizers of a stage, from optax's parts."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.train.freezing import decay_mask
from bloodcell_jax.train.layer_decay import Distances, scale_by_layer
from bloodcell_jax.train.plateaus import scale_by_rate_scale


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(*config.betas, mu_dtype=jnp.dtype(config.moment_dtype))


def _lion(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_lion(*config.betas, mu_dtype=jnp.dtype(config.moment_dtype))


def _sgd(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.trace(config.momentum, accumulator_dtype=jnp.dtype(config.moment_dtype))


# The choices of `OptimizerConfig.name`; each returns what turns gradients into updates for a learning rate of 1.
OPTIMIZERS: dict[str, Callable[[OptimizerConfig], optax.GradientTransformation]] = {
    "adamw": _adam,
    "adam": _adam,
    "lion": _lion,
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
