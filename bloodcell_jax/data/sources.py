"""Data sources: npz, folder, zip, medmnist, tfds and synthetic, each read into one Dataset."""

from pathlib import Path, PurePosixPath

from bloodcell_jax.data import image_files, synthetic
from bloodcell_jax.data.class_folders import load_folder, load_zip
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.file_trees import printable
from bloodcell_jax.data.medmnist import load_medmnist
from bloodcell_jax.data.npz import check_images, check_labels, open_npz
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
    in_memory: bool = True,
) -> Dataset:
    """Read a data source.

    Args:
      source: `npz:PATH` (keys images uint8 [n, h, w, 3] and labels [n] or [n, 1]), `folder:PATH` or `zip:PATH`
        (class folders, optionally under train/ val/ test/), `medmnist:NAME` (downloaded once) or `medmnist:PATH`,
        `tfds:NAME` (any prepared image-classification data set), `synthetic:N` (N procedurally drawn cells), or a
        bare path, recognized by what it is.
      image_size: pixels; arrays are resized to it, image files cropped as `crop` says and resized.
      crop: pixels; image files larger than this on both sides are center-cropped to it.
      class_names: names in label order; folders must match them. Empty: sorted folder names, or the label numbers.
      skip_bad: leave out image files that cannot be read, each logged by name with the reason, and keep them in
        `Dataset.skipped`; otherwise they are an error.
      data_dir: folder of prepared data sets and of local copies of MedMNIST.
      in_memory: false leaves images on the disk, to be read by index, where a source allows it: `tfds:`.

    Raises:
      UsageError: the source is not of a known kind.
      DataError: it is missing or malformed; names the file and the remedy.
    """
    kind, _, place = source.partition(":")
    if kind not in KINDS:
        kind, place = _recognize(source), source
    if kind == "synthetic":
        return _load_synthetic(place, source, image_size, class_names)
    if kind in ("medmnist", "tfds"):
        load = load_medmnist if kind == "medmnist" else load_tfds
        dataset = load(place, source, image_size=image_size, class_names=class_names, data_dir=data_dir)
        return dataset.in_memory() if in_memory else dataset
    path = Path(place).expanduser()
    if not path.exists():
        raise DataError(f"{source}: no such file or folder; check data.source")
    if kind == "npz":
        return _load_npz(path, source, image_size, class_names)
    load = load_zip if kind == "zip" else load_folder
    return load(path, source, image_size=image_size, crop=crop, class_names=class_names, skip_bad=skip_bad)


def _recognize(source: str) -> str:
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
    with open_npz(path, source) as archive:
        missing = {"images", "labels"} - set(archive.files)
        if missing:
            found = ", ".join(printable(PurePosixPath(key)) for key in archive.files)
            raise DataError(
                f"{source}: no key {' nor '.join(sorted(missing))} (it has {found or 'none'}); "
                "save it with np.savez(path, images=..., labels=...)"
            )
        images, labels = archive["images"], archive["labels"]
    images = check_images(images, source)
    labels = check_labels(labels, len(images), source, class_names)
    names = class_names or tuple(map(str, range(labels.max() + 1)))
    return Dataset(image_files.resize_arrays(images, image_size), labels, names, _index_ids(len(labels)), source)
