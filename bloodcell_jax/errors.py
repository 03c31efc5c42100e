"""Errors meant for users: one line that names the thing, what is wrong with it and what to do.

`bloodcell_jax.cli` prints the message alone and leaves with `exit_code`; any other exception is a bug of
this library and keeps its traceback (exit code 1).
"""


class UserError(Exception):
    """Something the user can mend; never shown with a traceback."""

    exit_code = 2


class UsageError(UserError):
    """A command line, configuration field or policy string that cannot be used."""

    exit_code = 2


class DataError(UserError):
    """A data source, image or checkpoint file that cannot be used."""

    exit_code = 3


class DivergedError(UserError):
    """Training produced non-finite numbers for longer than `train.max_bad_steps`."""

    exit_code = 4


class MachineError(UserError):
    """The machine: memory, disk, permissions, a workdir in use, devices or hosts missing."""

    exit_code = 5


class StoppedError(UserError):
    """A signal ended the run after its state was saved; running the same command goes on."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


# The second is what XLA makes of an allocation that fails in its library of matrix products for the CPU.
_MEMORY_FULL = ("RESOURCE_EXHAUSTED", "YNNPACK operation failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python or XLA says by this error that memory is full, the host's or a device's."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_FULL)
    return said or isinstance(error, MemoryError)
