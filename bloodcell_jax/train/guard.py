"""Which updates are skipped, and when a run has diverged. The devices decide it, so that no step waits for the host."""

import dataclasses
from dataclasses import dataclass

import flax.struct
import jax
import jax.numpy as jnp

# Losses that tell what is usual, and the fewest of them that can.
WINDOW, FEWEST = 100, 20


@flax.struct.dataclass
class GuardState:
    """What the guard carries from one step to the next.

    Attributes:
      bad_steps: int32 [], updates that were skipped in a row. Past the limit it only grows: the run has diverged.
      skipped_steps: int32 [], updates that were skipped in all.
      losses: float32 [WINDOW], those of the stage's last good steps, the latest last; NaN where there is none yet. None
        if no spikes are looked for.
    """

    bad_steps: jax.Array
    skipped_steps: jax.Array
    losses: jax.Array | None


@dataclass(frozen=True)
class Guard:
    """The rules by which an update is skipped.

    Attributes:
      max_bad_steps: after one more in a row every update is skipped.
      spike_sigma: a loss that is so many standard deviations above the mean of the last good ones is a spike; None:
        none is.
    """

    max_bad_steps: int
    spike_sigma: float | None = None

    def create_state(self) -> GuardState:
        """Return the state before the first step; each leaf has a buffer of its own."""
        losses = None if self.spike_sigma is None else _no_losses()
        return GuardState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), losses)

    def is_good(self, state: GuardState, loss: jax.Array, *norms: jax.Array) -> jax.Array:
        """Return whether the update of a step is made, bool []: all its numbers are finite and its loss is no spike."""
        good = state.bad_steps <= self.max_bad_steps
        for number in (loss, *norms):
            good &= jnp.isfinite(number)
        return good if self.spike_sigma is None else good & ~is_spike(loss, state.losses, self.spike_sigma)

    def after(self, state: GuardState, good: jax.Array, loss: jax.Array) -> GuardState:
        """Return the state after a step with this verdict and loss."""
        losses = state.losses
        if losses is not None:
            losses = jnp.where(good, jnp.append(losses[1:], loss), losses)
        return GuardState(
            bad_steps=jnp.where(good, 0, state.bad_steps + 1),
            skipped_steps=state.skipped_steps + ~good,
            losses=losses,
        )


def is_spike(loss: jax.Array, losses: jax.Array | None, sigma: float) -> jax.Array:
    """Return whether a loss lies more than `sigma` standard deviations above the mean of `losses`, bool [].

    Of fewer than `FEWEST` losses none is a spike. Losses that are all but equal have a standard deviation of at least a
    thousandth of their mean, because the last digits of a loss are noise.
    """
    if losses is None:
        return jnp.zeros((), bool)
    mean = jnp.nanmean(losses)
    deviation = jnp.maximum(jnp.nanstd(losses), 1e-3 * jnp.abs(mean))
    return (jnp.isfinite(losses).sum() >= FEWEST) & (loss > mean + sigma * deviation)


def begin_window(state: GuardState) -> GuardState:
    """Return the state with no losses: another stage has another loss."""
    return state if state.losses is None else dataclasses.replace(state, losses=_no_losses())


def _no_losses() -> jax.Array:
    return jnp.full(WINDOW, jnp.nan, jnp.float32)
