"""MedMNIST: an `.npz` with train, val and test arrays, by name from its publishers or from a local copy.

J. Yang et al., MedMNIST v2, Scientific Data 10 (2023) 41, doi:10.1038/s41597-022-01721-8. BloodMNIST is the PBC data
set (Acevedo et al., doi:10.17632/snkd93bnjr) in a geometry of its own, CC BY 4.0.
"""

from pathlib import Path

import numpy as np

from bloodcell_jax.data import image_files
from bloodcell_jax.data.dataset import SPLITS, Dataset
from bloodcell_jax.data.npz import check_images, check_labels, open_npz
from bloodcell_jax.download import download, file_hash
from bloodcell_jax.errors import DataError, UsageError

URL = "https://zenodo.org/records/10519652/files/{name}.npz?download=1"
MD5 = {
    "bloodmnist": "7053d0359d879ad8a5505303e11de1dc",
    "bloodmnist_64": "2b94928a2ae4916078ca51e05b6b800b",
    "bloodmnist_128": "adace1e0ed228fccda1f39692059dd4c",
    "bloodmnist_224": "b718ff6835fcbdb22ba9eacccd7b2601",
}
# Its publishers write "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)" for ig.
BLOOD_CLASSES = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")


def load_medmnist(
    place: str, source: str, *, image_size: int, class_names: tuple[str, ...], data_dir: str | None
) -> Dataset:
    """Read a MedMNIST set with its official splits; see `bloodcell_jax.data.sources.load_source`.

    Args:
      place: a published name, or the path of a local `.npz`. A name is looked for in `data_dir`, then downloaded once.
    """
    path = _find(place, source, data_dir)
    if not class_names and path.stem.startswith("bloodmnist"):
        class_names = BLOOD_CLASSES
    with open_npz(path, source) as archive:
        _check_keys(archive.files, path, source)
        labels = [archive[f"{split}_labels"] for split in SPLITS]
        bounds = np.cumsum([0, *map(len, labels)])
        images = np.empty((bounds[-1], image_size, image_size, 3), np.uint8)
        for i, split in enumerate(SPLITS):
            part = check_images(_as_color(archive[f"{split}_images"]), source)
            labels[i] = check_labels(labels[i], len(part), source, class_names)
            images[bounds[i] : bounds[i + 1]] = image_files.resize_arrays(part, image_size)
    labels = np.concatenate(labels)
    names = class_names or tuple(map(str, range(labels.max() + 1)))
    return Dataset(
        images=images,
        labels=labels,
        class_names=names,
        ids=tuple(map(str, range(len(labels)))),
        source=source,
        splits={s: np.arange(bounds[i], bounds[i + 1], dtype=np.int32) for i, s in enumerate(SPLITS)},
    )


def _find(place: str, source: str, data_dir: str | None) -> Path:
    if place not in MD5:
        path = Path(place).expanduser()
        if not path.is_file():
            raise UsageError(f"{source}: no such file, and no published name; there are {', '.join(MD5)}")
        return path
    local = Path(data_dir).expanduser() / f"{place}.npz" if data_dir else None
    if local is None or not local.is_file():
        return download(source, URL.format(name=place), f"{place}.npz", f"md5:{MD5[place]}", kind="data")
    if file_hash(local, "md5") != MD5[place]:
        raise DataError(f"{source}: {local} is not the published file (its md5 differs); get it anew or remove it")
    return local


def _check_keys(found: list[str], path: Path, source: str) -> None:
    for key in (f"{split}_{what}" for split in SPLITS for what in ("images", "labels")):
        if key not in found:
            raise DataError(f"{source}: no key {key}; is {path} a MedMNIST file?")


def _as_color(images: np.ndarray) -> np.ndarray:
    """Return gray images [n, h, w] as [n, h, w, 3]; others as they are."""
    return np.repeat(images[..., None], 3, -1) if images.ndim == 3 else images
