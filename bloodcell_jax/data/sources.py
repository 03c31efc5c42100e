"""Data sources: npz, folder, zip, medmnist, tfds and synthetic, each read into one Dataset."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from bloodcell_jax.data import pictures, synthetic
from bloodcell_jax.data.class_folders import load_folder, load_zip
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.medmnist import load_medmnist
from bloodcell_jax.data.tfds_sets import load_tfds
from bloodcell_jax.errors import DataError, UsageError

KINDS = ("npz", "folder", "zip", "medmnist", "tfds", "synthetic")


def load_source(
    source: str,
    *,
    image_size: int = 96,
    crop: int | None = 200,
    class_names: tuple[str, ...] = (),
    skip_bad: bool = False,
    data_dir: str | None = None,
) -> Dataset:
    """Read a data source.

    Args:
      source: `npz:PATH` (keys images uint8 [n, h, w, 3] and labels [n] or [n, 1]), `folder:PATH` or `zip:PATH`
        (class folders, optionally under train/ val/ test/), `medmnist:NAME` (downloaded once) or `medmnist:PATH`,
        `tfds:NAME` (any prepared image-classification data set), `synthetic:N` (N procedurally drawn cells), or a
        bare path, recognised by what it is.
      image_size: pixels; arrays are resized to it, picture files cropped as `crop` says and resized.
      crop: pixels; picture files larger than this on both sides are centre-cropped to it.
      class_names: names in label order; folders must match them. Empty: sorted folder names, or the label numbers.

      skip_bad: leave out picture files that cannot be read, each logged by name with the reason, and keep them in
        `Dataset.skipped`; otherwise they are an error.
      data_dir: folder of prepared data sets and of local copies of MedMNIST.

    Raises:
      UsageError: the source is not of a known kind.
      DataError: it is missing or malformed; names the file and the remedy.
    """
    kind, _, place = source.partition(":")
    if kind not in KINDS:
        kind, place = _recognise(source), source
    if kind == "synthetic":
        return _load_synthetic(place, source, image_size, class_names)
    if kind in ("medmnist", "tfds"):
        load = load_medmnist if kind == "medmnist" else load_tfds
        return load(place, source, image_size=image_size, class_names=class_names, data_dir=data_dir)
    path = Path(place).expanduser()
    if not path.exists():
        raise DataError(f"{source}: no such file or folder; check data.source")
    if kind == "npz":
        return _load_npz(path, source, image_size, class_names)
    load = load_zip if kind == "zip" else load_folder
    return load(path, source, image_size=image_size, crop=crop, class_names=class_names, skip_bad=skip_bad)


def _recognise(source: str) -> str:
    path = Path(source).expanduser()
    if path.is_dir():
        return "folder"
    if path.suffix.lower() in (".npz", ".zip"):
        return path.suffix.lower()[1:]
    raise UsageError(
        f"{source}: not a data source; give npz:PATH, folder:PATH, zip:PATH, medmnist:NAME, tfds:NAME or synthetic:N"
    )


def _load_synthetic(place: str, source: str, image_size: int, class_names: tuple[str, ...]) -> Dataset:
    # 24 cells hold at least 3 of each class, the fewest a split accepts.
    if not place.isdecimal() or int(place) < 24:
        raise UsageError(f"{source}: give the number of cells, 24 or more, as in synthetic:2000")
    if class_names not in ((), synthetic.CLASS_NAMES):
        raise UsageError(f"data.class_names: synthetic cells are {', '.join(synthetic.CLASS_NAMES)}")
    images, labels = synthetic.draw_cells(int(place), size=image_size)
    return Dataset(images, labels, synthetic.CLASS_NAMES, _index_ids(len(labels)), source)


def _index_ids(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _load_npz(path: Path, source: str, image_size: int, class_names: tuple[str, ...]) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = {"images", "labels"} - set(archive.files)
            if missing:
                raise DataError(
                    f"{source}: no key {' nor '.join(sorted(missing))} (it has {', '.join(archive.files) or 'none'}); "
                    "save it with np.savez(path, images=..., labels=...)"
                )
            images, labels = archive["images"], archive["labels"]
    except (OSError, ValueError, EOFError, AttributeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{source}: cannot be read as .npz ({error})") from error
    images = _check_images(images, source)
    labels = _check_labels(labels, len(images), source, class_names)
    names = class_names or tuple(map(str, range(labels.max() + 1)))
    return Dataset(pictures.resize_arrays(images, image_size), labels, names, _index_ids(len(labels)), source)


def _check_images(images: np.ndarray, source: str) -> np.ndarray:
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise DataError(f"{source}: images have shape {list(images.shape)}; expected [n, height, width, 3]")
    if np.issubdtype(images.dtype, np.floating):
        if not np.isfinite(images).all():
            raise DataError(f"{source}: images hold NaN or infinity; repair them or save uint8")
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            raise DataError(
                f"{source}: float images span {low:g} to {high:g}; floats must lie in 0 to 1 (or save uint8, 0 to 255)"
            )
        return np.round(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise DataError(f"{source}: images are {images.dtype}; save uint8, 0 to 255")
    return images


def _check_labels(labels: np.ndarray, count: int, source: str, class_names: tuple[str, ...]) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{source}: labels have shape {list(labels.shape)}; expected [n] or [n, 1]")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{source}: labels are {labels.dtype}; expected whole numbers, 0 for the first class")
    if len(labels) != count:
        raise DataError(f"{source}: {count} images but {len(labels)} labels; they must pair up")
    highest = len(class_names) - 1 if class_names else int(labels.max())
    # 100,000 classes would be a column of something else read as labels.
    if labels.min() < 0 or labels.max() > min(highest, 100_000):
        raise DataError(
            f"{source}: labels span {labels.min()} to {labels.max()}, out of range for "
            f"{f'the {len(class_names)} data.class_names' if class_names else 'classes counted from 0'}"
        )
    return labels.astype(np.int32)
