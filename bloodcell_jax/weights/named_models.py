"""Trained models by name, in place of the path of their file."""

import os
from pathlib import Path

from bloodcell_jax.errors import DataError
from bloodcell_jax.pretrained import SHIPPED, shipped_model
from bloodcell_jax.weights.hub import PREFIX, hub_file


def find_model(name: Path | str) -> Path:
    """Return the file of a model by its name or its path.

    Raises:
      UsageError, DataError: as `find_named_model`.
      DataError: a bare name is neither a model nor a file. Whether another path leads to a file is not looked at.
    """
    if named := find_named_model(name):
        return named
    path = Path(os.path.expanduser(name))
    if path.name == str(path) and not path.suffix and not os.path.lexists(path):
        raise DataError(
            f"{name}: no such file, and no model of this name comes with the library; there are {', '.join(SHIPPED)}"
        )
    return path


def find_named_model(name: Path | str) -> Path | None:
    """Return the file of a model by its name; None: it is no name of a model.

    Raises:
      UsageError: a file has the name of a shipped model.
      UsageError, DataError: as `hub_file`, for a name on the hub.
    """
    return hub_file(str(name)) if str(name).startswith(PREFIX) else shipped_model(name)
