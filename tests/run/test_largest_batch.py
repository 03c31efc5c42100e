"""The largest batch that fits, found in few tries."""

import pytest

from bloodcell_jax.run.largest_batch import largest_batch


@pytest.mark.parametrize("unit", [1, 8, 24])
@pytest.mark.parametrize("start", [1, 4, 50])
@pytest.mark.parametrize("limit", [1_000, 60_000, 10_000_000])
@pytest.mark.parametrize("curve", [0, 1e-4, -0.2])
def test_it_fits_and_five_percent_more_does_not(unit, start, limit, curve):
    tries = []

    def needed(size):
        tries.append(size)
        # Fixed bytes, bytes an image, and what a compiler adds or saves as programs grow.
        return int(500 + 37 * size ** (1 + curve / 10) + (size % 7) * 3)

    found = largest_batch(needed, limit, start=start * unit, unit=unit)
    assert found % unit == 0
    assert all(size % unit == 0 and size > 0 for size in tries)
    assert len(tries) == len(set(tries)) <= 12
    assert found == 0 or needed(found) <= limit
    smallest_too_large = min(size for size in tries if int(500 + 37 * size ** (1 + curve / 10)) > limit - 30)
    assert smallest_too_large <= max(found + unit, 1.06 * found)


def test_nothing_fits():
    assert largest_batch(lambda size: 100 + size, 50, start=64, unit=8) == 0
