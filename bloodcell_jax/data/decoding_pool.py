"""A pool of threads that decodes ahead of its use, in order and with flat memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Threads that decode at the same time: Pillow releases the interpreter lock while it decodes.
DECODING_THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Generator[Result, None, None]:
    """Yield `function(item)` of each item, in order; threads work on the next `ahead` items meanwhile.

    Close it (`contextlib.closing`) where the loop over it may end early: what waits then is never begun, and no thread
    is left. An error of the function is raised at the place of its item.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(DECODING_THREADS)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
