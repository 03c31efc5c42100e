"""Processes, here threads, agree on the place where they stop, whenever one of them or several are told to."""

import functools
import itertools
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bloodcell_jax.devices.stop_agreement import StopAgreement


def run_together(told, *, ahead, seed):
    """Run processes until they stop; return the place and the signal of each.

    Args:
      told: by process, the place at which it is sent a signal, and the signal; 0 for one that is not.
      ahead: after so many places all wait for each other, as in a collective operation.
    """
    rng, store, done = random.Random(seed), {}, threading.Event()
    agreements = [
        StopAgreement(len(told), functools.partial(store.__setitem__, index), store.copy) for index in range(len(told))
    ]
    collective = threading.Barrier(len(told), timeout=30)

    def run(index):
        at, number = told[index]
        for place in itertools.count(1):
            if got := agreements[index].pass_place(number if place >= at else 0):
                return place, got
            time.sleep(rng.uniform(0, 1e-3))
            if place % ahead == 0:
                collective.wait()

    def watch(index):
        while not done.wait(rng.uniform(0, 5e-3)):
            agreements[index].advance()

    with ThreadPoolExecutor(2 * len(told)) as threads:
        for index in range(len(told)):
            threads.submit(watch, index)
        runs = [threads.submit(run, index) for index in range(len(told))]
        try:
            return [each.result(timeout=30) for each in runs]
        finally:
            done.set()


@pytest.mark.parametrize("ahead", [1, 7])
@pytest.mark.parametrize("seed", range(10))
def test_all_stop_at_the_same_place_by_the_same_signal(ahead, seed):
    rng = random.Random(seed)
    numbers = [signal.SIGTERM, *rng.choices((0, signal.SIGINT), k=2)]
    told = [(rng.randint(1, 40), number) for number in rng.sample(numbers, 3)]
    (stop,) = set(run_together(told, ahead=ahead, seed=seed))
    first = min(place for place, number in told if number)
    assert first < stop[0] < first + 200
    assert stop[1] in {number for _, number in told if number}


def test_the_stop_holds_from_there_on():
    store = {}
    agreement = StopAgreement(1, functools.partial(store.__setitem__, 0), store.copy)
    assert agreement.pass_place(signal.SIGTERM) == 0
    agreement.advance()
    agreement.advance()
    assert [agreement.pass_place(0) for _ in range(3)] == [signal.SIGTERM] * 3
