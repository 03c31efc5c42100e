"""The largest batch whose compiled step fits into the memory of a device."""

from collections.abc import Callable

# The largest that is known to fit is so close to the smallest that is known not to.
_CLOSE = 1.05


def largest_batch(needed: Callable[[int], int], limit: int, *, start: int, unit: int) -> int:
    """Return the largest multiple of `unit` that fits, within 5 %; 0 if not even one unit does.

    What a step needs is all but a line over its batch, so few batches are compiled.

    Args:
      needed: bytes that a step of so many images needs; each call compiles one.
      limit: bytes that there are.
      start: the first batch that is tried, a multiple of `unit`.
    """
    known = {start: needed(start)}
    size = start * 2 if known[start] <= limit else max(unit, start // 2 // unit * unit)
    while True:
        if size not in known:
            known[size] = needed(size)
        fits = max((size for size, count in known.items() if count <= limit), default=0)
        too_large = min((size for size, count in known.items() if count > limit), default=None)
        if too_large is not None and (too_large <= fits + unit or too_large <= fits * _CLOSE or too_large == unit):
            return fits
        size = _next_size(known, limit, fits, too_large, unit)


def _next_size(known: dict[int, int], limit: int, fits: int, too_large: int | None, unit: int) -> int:
    """Return the batch to try: where the line through the two nearest known ones meets the limit."""
    (size_0, bytes_0), (size_1, bytes_1) = sorted(known.items(), key=lambda item: abs(item[1] - limit))[:2]
    slope = (bytes_1 - bytes_0) / (size_1 - size_0)
    guess = size_0 + (limit - bytes_0) / slope if slope > 0 else 2 * max(known)
    if too_large is None:
        # Past the guess, so that the next try is one that does not fit.
        return max(fits + unit, _round(guess * 1.02, unit))
    # Alternate between the sides, so that the gap closes from both.
    low, high = max(fits, unit if fits == 0 else 0), too_large
    guess = guess * 0.98 if fits * _CLOSE * _CLOSE < guess < too_large else (low + high) / 2
    return min(max(_round(guess, unit), fits + unit), too_large - unit)


def _round(size: float, unit: int) -> int:
    return max(unit, int(size) // unit * unit)
