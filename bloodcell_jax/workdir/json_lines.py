"""A file with one JSON object a line, each of a step, to which a run appends."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from bloodcell_jax.whole_files import replacing, writing
from bloodcell_jax.workdir.records import read_lines


class JsonLines:
    """Appends to a file of JSON lines.

    `sync` makes every line up to step s durable before a checkpoint of step s is saved; opening the file at the step of
    a checkpoint cuts off the lines past it. So each step stands once, however often the run was killed. Every method
    raises MachineError if the machine refuses.
    """

    def __init__(self, path: Path, check: Callable[[Any, Path, int], Any], *, first_step: int, optional: bool = False):
        """Cut off the lines past `first_step`.

        Args:
          path: the file.
          check: checks a line, see `read_lines`.
          first_step: of the checkpoint from which the run goes on.
          optional: there is no file as long as there is no line.
        """
        self._path, self._file = path, None
        kept = [line for line in read_lines(path, check) if line["step"] <= first_step]
        if kept or not optional:
            with replacing(path) as temporary:
                temporary.write_text("".join(map(_as_line, kept)), encoding="utf-8")
        else:
            with writing(path):
                path.unlink(missing_ok=True)

    def write(self, values: dict[str, Any]) -> dict[str, Any]:
        """Append one line, and return it; `step` is among its values. Numbers that are not finite become null."""
        line = {name: _finite(value) for name, value in values.items()}
        with writing(self._path):
            self._open().write(_as_line(line))
            self._open().flush()
        return line

    def sync(self) -> None:
        """Make everything that was written survive a crash of the machine."""
        if self._file is not None:
            with writing(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with writing(self._path):
                self._file.close()

    def _open(self) -> IO[str]:
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        return self._file


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_line(values: dict[str, Any]) -> str:
    return json.dumps(values, allow_nan=False) + "\n"
