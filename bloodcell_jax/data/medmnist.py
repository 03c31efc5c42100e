"""MedMNIST: an `.npz` with train, val and test arrays, by its published name or as a local copy.

J. Yang et al., MedMNIST v2, Scientific Data 10 (2023) 41, doi:10.1038/s41597-022-01721-8. BloodMNIST is the PBC
dataset (Acevedo et al., doi:10.17632/snkd93bnjr) in a geometry of its own, CC BY 4.0.
"""

import os
from pathlib import Path

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.class_order import in_given_order
from bloodcell_jax.data.dataset import SPLITS, Dataset, index_ids
from bloodcell_jax.data.image_files import resize_arrays
from bloodcell_jax.data.npz import check_images, check_labels, open_npz, read_array
from bloodcell_jax.download import download, file_hash
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.regular_files import check_regular_file

URL = "https://zenodo.org/records/10519652/files/{name}.npz?download=1"
PUBLISHED_MD5 = {
    "bloodmnist": "7053d0359d879ad8a5505303e11de1dc",
    "bloodmnist_64": "2b94928a2ae4916078ca51e05b6b800b",
    "bloodmnist_128": "adace1e0ed228fccda1f39692059dd4c",
    "bloodmnist_224": "b718ff6835fcbdb22ba9eacccd7b2601",
}
# The publishers write "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)" for ig.
BLOOD_CLASSES = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")


def load_medmnist(place: str, source: str, config: DataConfig) -> Dataset:
    """Read a MedMNIST set with its official splits; see `bloodcell_jax.data.sources.load_source`.

    Args:
      place: a published name, or the path of a local `.npz`. A copy in `config.data_dir` stands for the name; without
        one, the file is downloaded once.
      source: the whole source, for messages.
      config: how it is read.
    """
    path = _find(place, source, config.data_dir)
    stored_names = names_of(str(path))
    with open_npz(path, source) as archive:
        _check_keys(archive.files, path, source)
        parts = [read_array(archive, f"{split}_labels", source) for split in SPLITS]
        bounds = np.cumsum([0, *map(len, parts)])
        images = np.empty((bounds[-1], config.image_size, config.image_size, 3), np.uint8)
        for i, split in enumerate(SPLITS):
            part = check_images(_as_color(read_array(archive, f"{split}_images", source)), source, f"{split}_images")
            parts[i] = check_labels(parts[i], len(part), source, stored_names or config.class_names)
            images[bounds[i] : bounds[i + 1]] = resize_arrays(part, config.image_size)
    labels, class_names = np.concatenate(parts), config.class_names
    if stored_names:
        labels, class_names = in_given_order(labels, stored_names, class_names, source)
    return Dataset(
        images=images,
        labels=labels,
        class_names=class_names or index_ids(int(labels.max()) + 1),
        ids=index_ids(len(labels)),
        source=source,
        splits={name: np.arange(bounds[i], bounds[i + 1], dtype=np.int32) for i, name in enumerate(SPLITS)},
    )


def names_of(place: str) -> tuple[str, ...]:
    """Return the class names of a published name or file, which holds none itself; empty if they are not known."""
    return BLOOD_CLASSES if Path(place).stem.startswith("bloodmnist") else ()


def _find(place: str, source: str, data_dir: str | None) -> Path:
    if place not in PUBLISHED_MD5:
        path = Path(os.path.expanduser(place))
        if not os.path.exists(path):
            raise UsageError(f"{source}: no such file, and no published name; there are {', '.join(PUBLISHED_MD5)}")
        return path
    local = Path(os.path.expanduser(data_dir)) / f"{place}.npz" if data_dir else None
    if local is None or not os.path.exists(local):
        return download(source, URL.format(name=place), f"{place}.npz", f"md5:{PUBLISHED_MD5[place]}", kind="data")
    check_regular_file(local, source)
    if file_hash(local, "md5") != PUBLISHED_MD5[place]:
        raise DataError(
            f"{source}: {local} is not the published file (its md5 differs); download it again or remove it"
        )
    return local


def _check_keys(found: list[str], path: Path, source: str) -> None:
    for key in (f"{split}_{what}" for split in SPLITS for what in ("images", "labels")):
        if key not in found:
            raise DataError(f"{source}: no key {key} in {path}; give a MedMNIST file")


def _as_color(images: np.ndarray) -> np.ndarray:
    """Return gray images [n, h, w] as [n, h, w, 3], and others as they are."""
    return np.repeat(images[..., None], 3, -1) if images.ndim == 3 else images
