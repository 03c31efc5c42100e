"""HDF5 files as Keras and TensorFlow write them."""

from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bloodcell_jax.errors import DataError

# Keras' `save` keeps the weights in this group, and the optimizer's beside it.
_SAVED_MODEL_GROUP = "model_weights"


def read_h5(path: Path, content: BytesIO | None = None) -> dict[str, h5py.Dataset]:
    """Return the HDF5 datasets of a file by name, unread.

    Some files list their layers and the weights of each in order. Their names are `layer[i]/weight`, and i is the place
    of the weight in its layer: the weights' own names differ between versions for some layers. In other files a name is
    the path inside the file.

    Args:
      path: the file.
      content: the HDF5 file inside `path`; None: `path` itself is one.

    Raises:
      DataError: the file is damaged, or a dataset lies in another file.
    """
    try:
        root = h5py.File(path if content is None else content, "r")
        group = _group(root, _SAVED_MODEL_GROUP) if _SAVED_MODEL_GROUP in root else root
        weights = _layer_weights(group) if {"layer_names", "layer_names0"} & group.attrs.keys() else _datasets(group)
        for name, dataset in weights.items():
            _check_inside(root, name, dataset)
        return weights
    # h5py reports damage by whatever exception the C library's error maps to; in memory, an address may be too large.
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({error}); download or write it again") from error


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    group = parent[name]
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{name} is no group")
    return group


def _layer_weights(group: h5py.Group) -> dict[str, h5py.Dataset]:
    weights = {}
    for layer in _names(group, "layer_names"):
        members = _group(group, layer)
        for i, name in enumerate(_names(members, "weight_names")):
            weights[f"{layer}[{i}]/{name}"] = members[name]
    return weights


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names; Keras spreads it over several attributes if it is too long for one."""
    if attribute in group.attrs:
        parts = [group.attrs[attribute]]
    else:
        count = sum(name.startswith(attribute) for name in group.attrs)
        parts = [group.attrs[f"{attribute}{i}"] for i in range(count)]
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in np.asarray(part)]


def _datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    found = {}

    def visit(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            found[name] = entry

    group.visititems(visit)
    return found


def _check_inside(root: h5py.File, name: str, dataset: Any) -> None:
    """Check that an entry is a dataset whose bytes lie in this file, because HDF5 can point to any other file."""
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    if dataset.external or dataset.is_virtual or dataset.file.filename != root.filename:
        raise ValueError(f"{name} lies in another file")
