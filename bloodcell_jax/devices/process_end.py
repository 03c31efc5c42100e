"""The end of a process whose threads nobody waits for: one line, and the exit code."""

import os
import sys
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
