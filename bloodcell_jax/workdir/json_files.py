"""The JSON files of a workdir."""

import json
import os
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import DataError
from bloodcell_jax.regular_files import check_regular_file
from bloodcell_jax.whole_files import replacing
from bloodcell_jax.workdir.records import parse_json


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is whole or absent.

    Raises:
      MachineError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def update_json(path: Path, values: dict[str, Any]) -> None:
    """Set top-level values of a JSON file."""
    write_json(path, read_json(path) | values)


def read_json(path: Path) -> Any:
    """Read a JSON file of a workdir.

    Raises:
      DataError: it is missing or not JSON.
    """
    if not os.path.lexists(path):
        raise DataError(f"{path}: no such file; is {path.parent} the workdir of a run?")
    check_regular_file(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error}); delete it and run the command that wrote it") from error
    return parse_json(text, str(path))


def read_json_if_present(path: Path) -> Any:
    """Read a JSON file of a workdir; None if there is none."""
    return read_json(path) if path.exists() else None
