"""Image files with known classes, decoded into a dataset by a pool of threads."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data import image_files
from bloodcell_jax.data.class_tree import Entry
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.decoding_pool import map_ahead
from bloodcell_jax.data.file_trees import FileTree, UnreadableFile, example_id, is_hidden, printable
from bloodcell_jax.data.geometry import FileGeometry, Geometry, view_of
from bloodcell_jax.devices.host import check_fits
from bloodcell_jax.errors import DataError

logger = logging.getLogger(__name__)

# An error is one line, so it names only this many images.
NAMED_IN_ERROR = 5
# Files that wait for a thread.
_AHEAD = 256


def decode_dataset(
    tree: FileTree,
    entries: Sequence[Entry],
    names: tuple[str, ...],
    source: str,
    config: DataConfig,
    *,
    unreadable: Mapping[str, str],
    left_out: dict[str, int],
    groups: tuple[str, ...] | None = None,
    columns: Mapping[str, tuple[str, ...]] | None = None,
) -> Dataset:
    """Decode image files into a dataset whose examples have the order of the entries.

    Args:
      tree: holds the files.
      entries: the files with their classes and splits.
      names: all classes, in their order.
      source: what messages name.
      config: its geometry; with `skip_bad`, files that cannot be read are left out.
      unreadable: files beside the entries that cannot be read either, name -> reason.
      left_out, groups, columns: as in `Dataset`.

    Raises:
      DataError: a file cannot be read, and `skip_bad` is not set.
    """
    geometries = _geometries(len(entries), columns or {}, source, config)
    images, sizes, bad = _decode_all(tree, entries, source, geometries)
    skipped = {**unreadable, **{example_id(entries[i].path): reason for i, reason in bad.items()}}
    if skipped:
        _report_unreadable(skipped, len(entries) + len(unreadable), source, config.skip_bad)
    dataset = Dataset(
        images=images,
        labels=np.array([names.index(entry.class_name) for entry in entries], np.int32),
        class_names=names,
        ids=tuple(example_id(entry.path) for entry in entries),
        source=source,
        splits={
            split: np.flatnonzero([entry.split == split for entry in entries]).astype(np.int32)
            for split in dict.fromkeys(entry.split for entry in entries)
            if split
        },
        skipped=skipped,
        original_sizes=sizes[:, :2],
        sides=sizes[:, 2],
        file_geometry=FileGeometry(config.crop, config.microns_per_pixel, view_of(sizes[:, :2], sizes[:, 2])),
        left_out=left_out,
        groups=groups,
        columns=dict(columns or {}),
    )
    return dataset.select(np.array([i not in bad for i in range(len(entries))])) if bad else dataset


def _geometries(
    count: int, columns: Mapping[str, tuple[str, ...]], source: str, config: DataConfig
) -> Sequence[Geometry]:
    """Return the geometry of each file; a column may hold their scales.

    Raises:
      DataError: there is no such column, or a cell of it is no number above 0.
    """
    geometry, name = Geometry.of(config), config.microns_per_pixel
    if not isinstance(name, str):
        return [geometry] * count
    if name not in columns:
        raise DataError(
            f"{source}: no column {name!r} for data.microns_per_pixel; there are {', '.join(columns) or 'none'}"
        )
    scales = [_scale(cell) for cell in columns[name]]
    wrong = [cell for cell, scale in zip(columns[name], scales, strict=True) if scale is None]
    if wrong:
        raise DataError(
            f"{source}: column {name!r} of data.microns_per_pixel holds {len(wrong):,} cells that are no numbers above "
            f"0, such as {wrong[0]!r}; correct them"
        )
    return [geometry._replace(microns_per_pixel=scale) for scale in scales]


def _scale(cell: str) -> float | None:
    """Return a cell as micrometers per pixel; None: it is none."""
    try:
        scale = float(cell)
    except ValueError:
        return None
    return scale if math.isfinite(scale) and scale > 0 else None


def lost_folders(tree: FileTree) -> list[PurePosixPath]:
    """Return the links that nobody follows and that are no images by their suffix: they may stand for folders."""
    return [path for path in tree.links if not is_image(path) and not is_hidden(path)]


def is_image(path: PurePosixPath) -> bool:
    """Return whether a path has the suffix of an image file and is not hidden."""
    return path.suffix.lower() in image_files.SUFFIXES and not is_hidden(path)


def _decode_all(
    tree: FileTree, entries: Sequence[Entry], source: str, geometries: Sequence[Geometry]
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Return the images, uint8 [n, h, w, 3], their sizes and sides, int32 [n, 3], and why others cannot be read."""
    size = geometries[0].image_size
    shape = (len(entries), size, size, 3)
    check_fits(math.prod(shape), source)
    images = np.empty(shape, np.uint8)

    def decode(i: int) -> tuple[int, int, int] | str:
        """Decode one file; returns its size and the side that is looked at, or the reason why it cannot be read."""
        path = entries[i].path
        try:
            decoded = image_files.decode_sized(tree.read(path), example_id(path), geometries[i])
        except UnreadableFile as error:
            return error.reason
        images[i] = decoded.pixels
        return decoded.width, decoded.height, decoded.side

    found = list(map_ahead(decode, range(len(entries)), ahead=_AHEAD))
    bad = {i: reason for i, reason in enumerate(found) if isinstance(reason, str)}
    return images, np.array([(0, 0, 0) if i in bad else each for i, each in enumerate(found)], np.int32), bad


def _report_unreadable(unreadable: dict[str, str], total: int, source: str, skip_bad: bool) -> None:
    """Log every image that is left out; raise if leaving out is not allowed, or if no image is left.

    Raises:
      DataError: as above; names the first images and the reasons.
    """
    count = f"{len(unreadable):,} of {total:,} images cannot be read"
    if skip_bad and len(unreadable) < total:
        for name, reason in unreadable.items():
            logger.warning("%s: %s skipped (%s)", source, name, reason)
        logger.warning("%s: %s and are left out", source, count)
        return
    shown = [f"{name} ({reason})" for name, reason in list(unreadable.items())[:NAMED_IN_ERROR]]
    more = [f"{len(unreadable) - len(shown):,} more"] if len(unreadable) > len(shown) else []
    remedy = (
        "repair or remove them, or leave them out with --skip_bad"
        if len(unreadable) < total
        else "repair or replace them"
    )
    raise DataError(f"{source}: {count}: {', '.join([*shown, *more])}; {remedy}")


def not_images(paths: Iterable[PurePosixPath], source: str) -> dict[str, int]:
    """Return how many visible files are no images by their suffix, and log it: an image may be among them."""
    others = [path for path in paths if not is_image(path) and not is_hidden(path)]
    suffixes = Counter(path.suffix.lower() or "none" for path in others)
    if others:
        kinds = ", ".join(f"{printable(PurePosixPath(suffix))}: {n:,}" for suffix, n in suffixes.most_common(5))
        logger.info("%s: files that are no images by their suffix are ignored (%s)", source, kinds)
    return {f"no images by their suffix {printable(PurePosixPath(suffix))}": n for suffix, n in suffixes.most_common()}
