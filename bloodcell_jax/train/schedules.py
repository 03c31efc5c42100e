"""Learning-rate schedules of a stage, from optax's parts."""

from collections.abc import Callable

import optax

from bloodcell_jax.config import OptimizerConfig

# The choices of `OptimizerConfig.schedule`: (peak rate, last rate as a fraction of it, steps) -> schedule.
SCHEDULES: dict[str, Callable[[float, float, int], optax.Schedule]] = {
    "cosine": lambda peak, final_scale, steps: optax.cosine_decay_schedule(peak, steps, alpha=final_scale),
    "linear": lambda peak, final_scale, steps: optax.linear_schedule(peak, peak * final_scale, steps),
    "constant": lambda peak, final_scale, steps: optax.constant_schedule(peak),
    "exponential": lambda peak, final_scale, steps: optax.exponential_decay(peak, steps, final_scale),
    # L. Smith and N. Topin 2017 (arXiv:1708.07120), with PyTorch's defaults: from a 25th of the peak to a 250,000th.
    "one_cycle": lambda peak, final_scale, steps: optax.cosine_onecycle_schedule(steps, peak),
    # What lowers it is a factor beside it: see train/plateaus.py.
    "plateau": lambda peak, final_scale, steps: optax.constant_schedule(peak),
}


def create_schedule(config: OptimizerConfig, *, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Return the learning rate as a function of the stage's finished updates: warm-up from 0, then `schedule`."""
    warmup = config.warmup_steps
    if warmup is None:
        warmup = round(config.warmup_epochs * steps_per_epoch)
    warmup, peak = min(warmup, steps), config.learning_rate
    after = SCHEDULES[config.schedule](peak, config.final_scale, max(1, steps - warmup))
    if warmup == 0:
        return after
    # Starts one step up: a first update with rate 0 would be wasted.
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), after], [warmup])
