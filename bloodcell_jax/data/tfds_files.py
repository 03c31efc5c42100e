"""What is checked of a prepared dataset before TFDS opens it: it may come from anywhere, and TFDS trusts it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import DataError
from bloodcell_jax.regular_files import check_regular_file

# TFDS imports the module of any class that a features.json names. Its own are enough for images with labels.
_TRUSTED = "tensorflow_datasets."
# The keys that name a class, in both forms of the file.
_CLASS_KEYS = ("type", "pythonClassName", "python_class_name")


def check_prepared_files(folder: Path, source: str) -> None:
    """Check that all files below a folder are regular ones, and that the features are classes of TFDS itself.

    Raises:
      DataError: a file is a pipe or a device, which would be waited for, or names another class, which would be run.
    """
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            check_regular_file(path, f"{source}: {path}")
    for path in folder.rglob("features.json"):
        try:
            others = [name for name in _classes(json.loads(path.read_bytes())) if not name.startswith(_TRUSTED)]
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{source}: {path} cannot be read ({error}); prepare it again") from error
        if others:
            raise DataError(
                f"{source}: {path} names the class {others[0]}, which TFDS would import; only features of TFDS itself "
                "are read, so prepare it again with them"
            )


def _classes(value: Any) -> Iterator[str]:
    """Yield all texts that may name a class, at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (value[key] for key in _CLASS_KEYS if isinstance(value.get(key), str))
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
