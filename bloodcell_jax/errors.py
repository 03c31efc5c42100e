"""Errors for users: one line that names the thing, says what is wrong with it, and says what to do.

`bloodcell_jax.cli` prints the message alone and exits with `exit_code`. Any other exception is a bug of this library.
It keeps its traceback, and the exit code is 1.
"""

from collections.abc import Sequence

from bloodcell_jax.names import visible

# Longer messages quote something that nobody meant to be read, and their middle is left out.
_LONGEST, _LONGEST_END = 4000, 1000


class UserError(Exception):
    """An error that the user can correct. The user never sees a traceback of it.

    Args:
      message: one line. It may quote names and values of any file: what would not show in one line is escaped.
      details: further lines, such as a list of differences.
      exit_code: another one than that of its class.
    """

    exit_code = 2

    def __init__(self, message: str, details: Sequence[str] = (), *, exit_code: int | None = None):
        super().__init__("\n".join(_shortened(visible(line)) for line in (message, *details)))
        if exit_code is not None:
            self.exit_code = exit_code


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - _LONGEST_END]} [...] {line[-_LONGEST_END:]}"


class UsageError(UserError):
    """A command line, configuration field or policy string that cannot be used."""

    exit_code = 2


class DataError(UserError):
    """A data source, image or checkpoint file that cannot be used."""

    exit_code = 3


class DivergedError(UserError):
    """Training skipped more than `train.max_bad_steps` steps in a row, or its parameters are not finite."""

    exit_code = 4


class MachineError(UserError):
    """A problem of the machine: memory, disk, permissions, a workdir in use, missing devices or hosts."""

    exit_code = 5


class StoppedError(UserError):
    """A signal ended the run. The same command continues it from what is saved."""

    exit_code = 75


# The second text is XLA's if an allocation fails in its library of matrix products for the CPU.
_MEMORY_FULL = ("RESOURCE_EXHAUSTED", "YNNPACK operation failed")


class MemoryFullError(MachineError):
    """A run needs more memory than the host or a device has free; a smaller one may do."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or XLA means that the memory of the host or of a device is full."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_FULL)
    return said or isinstance(error, MemoryError)


def memory_error(error: BaseException) -> MemoryFullError:
    """Return the line for an error of which `is_out_of_memory` holds."""
    where = "" if isinstance(error, MemoryError) else "device "
    return MemoryFullError(f"out of {where}memory; lower the batch size, or set --config.train.accumulate")
