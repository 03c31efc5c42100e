"""Optimizers and learning-rate schedules of a stage, from optax's parts."""

import jax.numpy as jnp
import optax

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.train.freezing import decay_mask


def create_schedule(config: OptimizerConfig, *, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Return the learning rate as a function of the stage's finished updates: warm-up from 0, then `schedule`."""
    warmup = config.warmup_steps
    if warmup is None:
        warmup = round(config.warmup_epochs * steps_per_epoch)
    warmup = min(warmup, steps)
    peak, last = config.learning_rate, config.learning_rate * config.final_scale
    decay_steps = max(1, steps - warmup)
    after = {
        "cosine": optax.cosine_decay_schedule(peak, decay_steps, alpha=config.final_scale),
        "linear": optax.linear_schedule(peak, last, decay_steps),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    if warmup == 0:
        return after
    # Starts one step up: a first update with rate 0 would be wasted.
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), after], [warmup])


def create_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return the update rule over a flat dict of trainable parameters.

    Frozen parameters never reach it: they have no moments and cannot decay.
    """
    moment_dtype = jnp.dtype(config.moment_dtype)
    b1 = 0.9 if config.b1 is None else config.b1
    b2 = (0.99 if config.name == "lion" else 0.999) if config.b2 is None else config.b2
    parts = {
        "adamw": lambda: optax.scale_by_adam(b1, b2, mu_dtype=moment_dtype),
        "adam": lambda: optax.scale_by_adam(b1, b2, mu_dtype=moment_dtype),
        "lion": lambda: optax.scale_by_lion(b1, b2, mu_dtype=moment_dtype),
        "sgd": lambda: optax.trace(config.momentum, accumulator_dtype=moment_dtype),
    }
    chain = [parts[config.name]()]
    if config.clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
    return optax.chain(*chain, optax.scale_by_learning_rate(schedule))
