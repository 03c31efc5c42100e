"""Which updates are skipped, counted on the device: what is not finite, spikes, and everything after a divergence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bloodcell_jax.train.guard import FEWEST, WINDOW, Guard, is_spike
from bloodcell_jax.train.packing import Joining
from bloodcell_jax.train.state import TrainState, apply_gradients, begin_stage, create_ema_decay, create_state

EMA_DECAY = create_ema_decay(0.5, warmup=False)

PARAMS = {"head": {"kernel": np.zeros(2, np.float32)}}
MASK = {"head": {"kernel": True}}
OPTIMIZER = optax.sgd(1.0)
NAN, INF = float("nan"), float("inf")


@functools.cache
def apply_of(guard):
    def apply(state, loss, gradient):
        gradients = {"head/kernel": jnp.full(2, gradient)}
        return apply_gradients(state, loss, gradients, OPTIMIZER, guard, EMA_DECAY)

    return jax.jit(apply)


def start(guard):
    return begin_stage(create_state(PARAMS, guard, with_ema=True), OPTIMIZER, MASK, Joining("cpu"))


def run(guard, steps, state=None):
    """Return the state after steps of (loss, gradient), and which of them were made."""
    state, made = start(guard) if state is None else state, []
    for loss, gradient in steps:
        before = state.params["head"]["kernel"]
        state, _ = apply_of(guard)(state, np.float32(loss), np.float32(gradient))
        made.append(bool((state.params["head"]["kernel"] != before).any()))
    return state, made


def counts(state):
    return int(state.guard.bad_steps), int(state.guard.skipped_steps)


@pytest.mark.parametrize("bad", [(NAN, 1), (INF, 1), (1, NAN), (1, INF), (1, 1e30)])
def test_what_is_not_finite_is_skipped_and_counted(bad):
    state, made = run(Guard(2), [(1, 1), bad, (1, 1), bad, bad, (1, 1)])
    assert made == [True, False, True, False, False, True]
    assert counts(state) == (0, 3)
    assert state.step == 6
    ema = run(Guard(2), [(1, 1), (1, 1), (1, 1)])[0].ema
    jax.tree.map(np.testing.assert_array_equal, state.ema, ema)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_after_one_more_than_the_limit_no_update_is_made_ever(most):
    steps = [(1, 1)] + [(NAN, 1)] * most + [(1, 1)] + [(NAN, 1)] * (most + 1) + [(1, 1)] * 3
    state, made = run(Guard(most), steps)
    assert made == [True] + [False] * most + [True] + [False] * (most + 4)
    # The count tells how long ago it began, whenever the host looks.
    assert counts(state) == (most + 4, 2 * most + 4)


def noisy(count, seed=0):
    return [(loss, 1) for loss in np.random.default_rng(seed).normal(1.0, 0.05, count)]


def test_a_spike_is_skipped_and_does_not_change_what_is_usual():
    guard, usual = Guard(3, spike_sigma=6.0), noisy(150)
    steps = [*usual[:120], (1.6, 1), (1e6, 1), *usual[120:]]
    state, made = run(guard, steps)
    assert [number for number, is_made in enumerate(made) if not is_made] == [120, 121]
    assert counts(state) == (0, 2)
    losses = np.float32([loss for loss, _ in usual[-WINDOW:]])
    np.testing.assert_array_equal(state.guard.losses, losses)
    assert all(run(Guard(3), steps)[1]), "without the guard they are steps like others"


def test_spikes_in_a_row_end_the_run_as_other_bad_steps_do():
    state, made = run(Guard(2, spike_sigma=6.0), [*noisy(40), (9, 1), (NAN, 1), (9, 1), (1, 1)])
    assert made == [True] * 40 + [False] * 4
    assert counts(state) == (4, 4)


def test_too_few_losses_tell_nothing_and_a_stage_begins_with_none():
    guard = Guard(3, spike_sigma=3.0)
    _, made = run(guard, [*noisy(FEWEST - 1), (1e6, 1)])
    assert all(made)
    state, _ = run(guard, noisy(60))
    state, made = run(guard, [(50, 1)], begin_stage(state, OPTIMIZER, MASK, Joining("cpu")))
    assert made == [True]


def test_the_last_digits_of_equal_losses_are_no_spikes():
    losses = jnp.full(WINDOW, 0.7)
    assert not is_spike(jnp.float32(0.7001), losses, 6.0)
    assert is_spike(jnp.float32(0.71), losses, 6.0)
    assert is_spike(jnp.float32(INF), losses, 6.0)


def test_a_state_that_was_stored_goes_on_to_the_bit():
    guard, steps = Guard(3, spike_sigma=4.0), [*noisy(70), (5, 1), (NAN, 1), *noisy(60, seed=1), (5, 1)]
    whole, _ = run(guard, steps)
    half, _ = run(guard, steps[:72])
    stored = jax.device_get(half.to_trees())
    rest, _ = run(guard, steps[72:], TrainState.from_trees(stored, half.guard.skipped_steps, MASK, Joining("cpu")))
    jax.tree.map(np.testing.assert_array_equal, rest, whole)
    assert counts(whole) == (1, 3)


def test_without_spikes_a_checkpoint_holds_what_it_always_held():
    assert start(Guard(3)).to_trees()["progress"].keys() == {"step", "bad_steps"}
