"""Models that come with the library, by name; `README.md` beside them is their card."""

import os
from pathlib import Path

from bloodcell_jax.errors import UsageError

SHIPPED = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.safetensors"))}


def shipped_model(name: str | Path) -> Path | None:
    """Return the file of a shipped model; None if no shipped model has this name.

    Raises:
      UsageError: something in the current folder has this name as well.
    """
    shipped = SHIPPED.get(str(name))
    if shipped is not None and os.path.lexists(name):
        raise UsageError(
            f"{name}: the model that comes with the library, or {os.path.abspath(name)}? Name the second by its whole "
            "path, or the first from another folder"
        )
    return shipped


def check_new_folder(folder: Path, weights: str | None) -> None:
    """Check that a folder, once it is made, does not turn the name of a run's weights into two things.

    Raises:
      UsageError: it, or one that it lies in, would have the name of the shipped model that the run starts from.
    """
    if weights in SHIPPED and Path(weights).absolute() in (folder.absolute(), *folder.absolute().parents):
        raise UsageError(
            f"workdir={folder}: would give a folder the name of {weights}, which the run starts from; choose another "
            "name, or the same command could not resume the run"
        )
