"""Images in class folders, on disk or in a zip archive: `basophil/a.jpg`, or `train/basophil/a.jpg`."""

import os
from pathlib import Path, PurePosixPath

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data import image_files
from bloodcell_jax.data.class_tree import Entry, read_class_tree, sorted_class_names
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.decoded_files import NAMED_IN_ERROR, decode_dataset, is_image, lost_folders, not_images
from bloodcell_jax.data.file_trees import FileTree, is_hidden, open_zip, printable, read_folder
from bloodcell_jax.data.path_patterns import matches_any, patterns_of
from bloodcell_jax.errors import DataError


def load_folder(place: str, source: str, config: DataConfig) -> Dataset:
    """Read class folders from disk; see `bloodcell_jax.data.sources.load_source`."""
    path = Path(os.path.expanduser(place))
    if not os.path.isdir(path):
        raise DataError(f"{source}: not a folder; give folder:PATH of class folders")
    return _load(read_folder(path), source, config)


def load_zip(place: str, source: str, config: DataConfig) -> Dataset:
    """Read class folders from a zip archive; see `bloodcell_jax.data.sources.load_source`."""
    with open_zip(Path(os.path.expanduser(place)), source) as tree:
        return _load(tree, source, config)


def _load(tree: FileTree, source: str, config: DataConfig) -> Dataset:
    entries = _entries(tree, source, config)
    names = config.class_names or sorted_class_names(entry.class_name for entry in entries)
    _check_class_names({entry.class_name for entry in entries}, names, source)
    refused = {name: reason for name, reason in tree.refused.items() if is_image(PurePosixPath(name))}
    left_out = not_images(tree.files, source)
    if selected_out := sum(map(is_image, tree.files)) - len(entries):
        left_out["by data.include and data.exclude"] = selected_out
    return decode_dataset(tree, entries, names, source, config, unreadable=refused, left_out=left_out)


def _entries(tree: FileTree, source: str, config: DataConfig) -> list[Entry]:
    _check_links(tree, source, config)
    paths = [path for path in tree.files if is_image(path)]
    if not paths:
        refused = "; ".join(f"{name}: {reason}" for name, reason in list(tree.refused.items())[:NAMED_IN_ERROR])
        wanted = f"it needs files ending in {', '.join(sorted(image_files.SUFFIXES))}"
        raise DataError(f"{source}: holds no image that can be read ({refused or wanted})")
    folders = {folder for folder in tree.folders if not is_hidden(folder)}
    return read_class_tree(paths, folders, source, config)


def _check_links(tree: FileTree, source: str, config: DataConfig) -> None:
    """Refuse links that are not followed and may be folders of classes or splits: these would be missing unseen."""
    exclude = patterns_of(config.exclude)
    links = [path for path in lost_folders(tree) if not matches_any(path, exclude)]
    if links:
        others = f", and {len(links) - 1:,} more links" if len(links) > 1 else ""
        raise DataError(
            f"{source}: {printable(links[0])}{others}: a link that leads nowhere, or a link of an archive; if it is a "
            f"folder of images, mount or copy what it leads to, else remove it or set "
            f"data.exclude='{printable(links[0])}'"
        )


def _check_class_names(found: set[str], names: tuple[str, ...], source: str) -> None:
    """Refuse folders that are not among the given names; the error also says which names have no folder."""
    unknown, absent = sorted(found - set(names)), [name for name in names if name not in found]
    if unknown:
        folders = f"class folder{'s' * (len(unknown) > 1)} {', '.join(unknown)}"
        lacking = f", of which {', '.join(absent)} ha{'ve' if len(absent) > 1 else 's'} no folder" if absent else ""
        verb = "are" if len(unknown) > 1 else "is"
        raise DataError(
            f"{source}: {folders} {verb} not among data.class_names ({', '.join(names)}){lacking}; rename one of them"
        )
