"""Threads that work ahead: in order, not too far, and gone when nobody reads on."""

import contextlib
import threading
import time

import pytest

from bloodcell_jax.data.decoding_pool import map_ahead


def test_results_have_the_order_of_their_items_whoever_is_first():
    def slow(number):
        time.sleep(0.02 if number % 5 == 0 else 0)
        return number

    assert list(map_ahead(slow, range(40), ahead=7)) == list(range(40))
    assert list(map_ahead(slow, [], ahead=7)) == []


def test_an_error_is_raised_at_the_place_of_its_item():
    results = map_ahead(lambda number: 1 // (3 - number), range(10), ahead=8)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_more_than_the_next_items_are_begun_and_nothing_is_left_running():
    before, begun = set(threading.enumerate()), []
    with contextlib.closing(map_ahead(begun.append, range(1000), ahead=20)) as results:
        for _ in range(5):
            next(results)
        assert len(begun) <= 25
    assert len(begun) <= 25
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_of_the_reader_ends_the_threads(error):
    before, begun = set(threading.enumerate()), []

    def slow(number):
        begun.append(number)
        time.sleep(0.01)

    def read_one():
        with contextlib.closing(map_ahead(slow, range(1000), ahead=500)) as results:
            next(results)
            raise error

    with pytest.raises(error):
        read_one()
    assert set(threading.enumerate()) == before
    assert len(begun) < 500
