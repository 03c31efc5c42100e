"""The end of a process whose threads nobody waits for: one line, and the exit code."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from bloodcell_jax.errors import UserError


def say_end(error: UserError | None = None) -> None:
    """Print the line of an error, if there is one, and show the cursor.

    A progress bar hides the cursor, and nothing else will bring it back.
    """
    cursor, line = "\x1b[?25h" * sys.stderr.isatty(), f"bloodcell: {error}\n" if error else ""
    print(cursor + line, end="", file=sys.stderr, flush=True)


def end_process(code: int) -> NoReturn:
    """End this process at once."""
    sys.stdout.flush()
    os._exit(code)


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """End the process on SIGTERM by an exception, so that what is half written is deleted; exit code 143."""

    def end(number: int, frame: object) -> NoReturn:
        del frame
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # Python takes no signals there.
        yield
        return
    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
