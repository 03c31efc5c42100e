"""HDF5 files as Keras and TensorFlow write them."""

from pathlib import Path

import h5py

from bloodcell_jax.errors import DataError

# Keras' `save` keeps the weights in this group, beside the optimizer's.
_SAVED_MODEL_GROUP = "model_weights"


def read_h5(path: Path) -> dict[str, h5py.Dataset]:
    """Return the datasets by name, unread.

    Where the file lists its layers and their weights in order, the name is `layer[i]/weight`, i being the place of
    the weight in its layer: for some layers the weights' own names differ between versions. Elsewhere it is the path.

    Raises:
      DataError: the file is damaged.
    """
    try:
        root = h5py.File(path, "r")
        group = root.get(_SAVED_MODEL_GROUP, root)
        weights = _layer_weights(group) if {"layer_names", "layer_names0"} & group.attrs.keys() else _datasets(group)
        for name, dataset in weights.items():
            _check_inside(root, name, dataset)
        return weights
    # h5py reports damage as whatever the C library's error maps to.
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({error}); download or write it again") from error


def _layer_weights(group: h5py.Group) -> dict[str, h5py.Dataset]:
    weights = {}
    for layer in _names(group, "layer_names"):
        for i, name in enumerate(_names(group[layer], "weight_names")):
            weights[f"{layer}[{i}]/{name}"] = group[layer][name]
    return weights


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names, which Keras cuts over several attributes where it is longer than HDF5 allows one."""
    if attribute in group.attrs:
        parts = [group.attrs[attribute]]
    else:
        count = sum(name.startswith(attribute) for name in group.attrs)
        parts = [group.attrs[f"{attribute}{i}"] for i in range(count)]
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]


def _datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    found = {}

    def visit(name: str, entry) -> None:
        if isinstance(entry, h5py.Dataset):
            found[name] = entry

    group.visititems(visit)
    return found


def _check_inside(root: h5py.File, name: str, dataset) -> None:
    """Check that an entry is a dataset whose bytes lie in this file: HDF5 can point at any other."""
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    if dataset.external or dataset.is_virtual or dataset.file.filename != root.filename:
        raise ValueError(f"{name} lies in another file")
