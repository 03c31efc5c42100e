"""What a tree of image files means: which folders are splits and which are classes.

A tree that can be read in two ways is refused with both readings and the option that decides. A guess would train on
wrong labels without a word.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.dataset import SPLITS
from bloodcell_jax.data.file_trees import class_name_of, printable
from bloodcell_jax.data.mask_files import check_no_masks
from bloodcell_jax.data.path_patterns import matches_any, patterns_of, select_paths
from bloodcell_jax.errors import DataError, UsageError

logger = logging.getLogger(__name__)

# A folder above the class folders that has one of these names, in any case, is a split.
USUAL_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# An error is one line, so it names only this many folders.
NAMED = 8


class Entry(NamedTuple):
    """An image file: its split, empty if the source names none, its class, and its path in the source."""

    split: str
    class_name: str
    path: PurePosixPath


def read_class_tree(
    paths: Sequence[PurePosixPath], folders: set[PurePosixPath], source: str, config: DataConfig
) -> list[Entry]:
    """Return every image file, ordered by split (train, val, test), then by path in byte order of UTF-8.

    Args:
      paths: the visible image files of the source.
      folders: its visible folders, the empty ones too.
      source: what messages name.
      config: its `include`, `exclude`, `class_level` and `split_folders` decide how the tree is read.

    Raises:
      DataError: the tree can be read in two ways, an image lies in no class folder, or a class folder is empty.
    """
    everything, paths = paths, select_paths(paths, source, config)
    check_no_masks(paths, source, config)
    split_of, level = _levels(paths, source, config)
    entries = []
    for path in paths:
        if len(path.parts) <= level:
            raise DataError(
                f"{source}: {printable(path)} lies in no class folder; move it to CLASS/IMAGE or train/CLASS/IMAGE"
            )
        split = split_of.get(path.parts[level - 2], "") if split_of else ""
        entries.append(Entry(split, class_name_of(path.parts[level - 1]), path))
    if config.class_level is None:
        _check_one_depth(paths, level, source)
    names = {entry.class_name for entry in entries}
    _check_spelling(names, source)
    _check_no_empty_class(folders, everything, names, level, source, config)
    return sorted(entries, key=example_order)


def example_order(entry: Entry) -> tuple[int, bytes]:
    """Return what examples are sorted by: the split (train, val, test), then the path in byte order of UTF-8."""
    return ("", *SPLITS).index(entry.split), str(entry.path).encode("utf-8", "surrogateescape")


def sorted_class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in their order: numbers as numbers, other names by their letters."""
    names = set(names)
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))


def _levels(paths: Sequence[PurePosixPath], source: str, config: DataConfig) -> tuple[dict[str, str], int]:
    """Return which folders above the classes are which splits, and the level of the class folders from 1 on."""
    named = parse_split_folders(config.split_folders)
    if config.class_level is not None:
        above = {path.parts[config.class_level - 2] for path in paths if len(path.parts) > config.class_level > 1}
        _warn_of_other_splits(paths, config.class_level, source)
        return _splits_above(above, named, source, level=config.class_level), config.class_level
    top = _wrapping_folders(paths, named)
    first = {path.parts[top] for path in paths if len(path.parts) > top + 1}
    split_of = splits_of(first, named)
    _check_there(named, first, source)
    if split_of:
        _check_splits(split_of, named, first, source, level=top + 1)
        top += 1
    _check_no_repeated_names(paths, top, source)
    return split_of, top + 1


def _splits_above(above: set[str], named: dict[str, str], source: str, *, level: int) -> dict[str, str]:
    """Return which of the folders above the classes are which splits; none if they are no splits, or not all of them.

    Raises:
      DataError: splits that the user named are not there, or not the only folders.
    """
    split_of = splits_of(above, named)
    if named:
        _check_there(named, above, source)
        _check_splits(split_of, named, above, source, level=level - 1)
    elif split_of and split_of.keys() == above:
        _check_splits(split_of, named, above, source, level=level - 1)
    elif split_of:
        logger.warning("%s: the folders above the classes are taken as no splits: %s", source, _list(sorted(above)))
        return {}
    return split_of


def _warn_of_other_splits(paths: Sequence[PurePosixPath], class_level: int, source: str) -> None:
    """Warn of folders that `data.class_level` makes no splits, although they have the usual names of splits."""
    for level in range(1, max(len(path.parts) for path in paths)):
        folders = {path.parts[level - 1] for path in paths if len(path.parts) > level}
        split_of = splits_of(folders, {})
        if level != class_level - 1 and split_of.keys() == folders and "train" in split_of.values():
            logger.warning("%s: level %d is taken as no splits: %s", source, level, _list(sorted(folders)))


def _check_there(named: dict[str, str], folders: set[str], source: str) -> None:
    if absent := sorted(set(named) - folders):
        there = _list(sorted(folders)) if folders else "all classes"
        raise DataError(f"{source}: data.split_folders names {_list(absent)}; the folders are {there}")


def parse_split_folders(text: str | None) -> dict[str, str]:
    """Return folder -> split of `data.split_folders`, such as `train=Train,test=TestA`.

    Raises:
      UsageError: it is written otherwise.
    """
    named = {}
    for pair in patterns_of(text):
        split, equals, folder = (part.strip() for part in pair.partition("="))
        if split not in SPLITS or not equals or not folder or folder in named:
            raise UsageError(
                f"config.data.split_folders={text}: write SPLIT=FOLDER pairs such as train=Train,test=TestA; the "
                f"splits are {', '.join(SPLITS)}"
            )
        named[folder] = split
    return named


def splits_of(folders: Iterable[str], named: dict[str, str]) -> dict[str, str]:
    """Return folder -> split: those that the user names, and those with a usual name of a split that nobody named."""
    usual = {word: split for split, words in USUAL_NAMES.items() for word in words if split not in named.values()}
    found = {folder: usual[folder.strip().lower()] for folder in folders if folder.strip().lower() in usual}
    return found | {folder: split for folder, split in named.items() if folder in folders}


def _wrapping_folders(paths: Sequence[PurePosixPath], named: dict[str, str]) -> int:
    """Return how many folders wrap all others; archives often have one: `PBC_dataset/basophil/...` -> 1."""
    depth = 0
    while all(len(path.parts) > depth + 2 for path in paths):
        folders = {path.parts[depth] for path in paths}
        if len(folders) > 1 or splits_of(folders, named):
            break
        depth += 1
    return depth


def _check_splits(split_of: dict[str, str], named: dict[str, str], first: set[str], source: str, *, level: int) -> None:
    """Refuse a folder beside the splits, two folders for one split if not named so, and splits without train."""
    names = ", ".join(f"{_shown(folder)} is {split}" for folder, split in sorted(split_of.items()))
    if others := sorted(first - split_of.keys()):
        raise DataError(
            f"{source}: {names}, and {_list(others)} stand{'s' * (len(others) == 1)} beside. If that is no split, "
            f"leave it out: data.exclude='{others[0]}/**'. If it is one, name all splits, such as "
            f"data.split_folders=train=FOLDER,test={others[0]}. If all folders are classes: data.class_level={level}"
        )
    guessed = {folder: split for folder, split in split_of.items() if folder not in named}
    twice = [split for split, count in Counter(guessed.values()).items() if count > 1]
    if twice:
        same = sorted(folder for folder, split in split_of.items() if split == twice[0])
        raise DataError(
            f"{source}: {_list(same)} are both {twice[0]}; leave one out (data.exclude='{same[1]}/**') or name the "
            f"splits by data.split_folders"
        )
    if "train" not in split_of.values():
        raise DataError(
            f"{source}: {names}, without train/; name the training folder by data.split_folders=train=FOLDER, or say "
            f"data.class_level={level} if these are classes"
        )


def _check_no_repeated_names(paths: Sequence[PurePosixPath], top: int, source: str) -> None:
    """Refuse first folders whose second folders are mostly the same: the classes may be at either level."""
    second = defaultdict(set)
    for path in paths:
        if len(path.parts) > top + 2:
            second[path.parts[top + 1]].add(path.parts[top])
    repeated = sorted(name for name, above in second.items() if len(above) > 1)
    if not repeated:
        return
    first = sorted(set().union(*second.values()))
    if 2 * len(repeated) < len(second):  # Types of several classes may share a name, such as `other`.
        said = "%s: several of the classes %s have a folder %s; if such folders are the classes: data.class_level=%d"
        return logger.warning(said, source, _list(first), _list(repeated), top + 2)
    raise DataError(
        f"{source}: the folders {_list(first)} hold the same folders ({_list(repeated)}). If the classes are "
        f"{_list(repeated)}: data.class_level={top + 2}, which merges {_list(first)}, or data.split_folders, such as "
        f"train={first[0]},test={first[-1]}, if these are splits. If the classes are {_list(first)}: "
        f"data.class_level={top + 1}"
    )


def _check_one_depth(paths: Sequence[PurePosixPath], level: int, source: str) -> None:
    """Refuse classes at several depths: some folders hold images, others only folders that may be classes."""
    below: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        below[path.parts[level - 1]].add(path.parts[level] if len(path.parts) > level + 1 else "")
    flat = sorted(name for name, inner in below.items() if inner == {""})
    grouped = sorted(name for name, inner in below.items() if "" not in inner and len(inner) > 1)
    if flat and grouped:
        inner = sorted(below[grouped[0]])
        raise DataError(
            f"{source}: {_list(flat)} hold{'s' * (len(flat) == 1)} images, {_shown(grouped[0])} holds the folders "
            f"{_list(inner)}. If {_shown(grouped[0])} is one class: data.class_level={level}. If {_list(inner)} are "
            f"classes, move them beside {_shown(flat[0])}"
        )


def _check_no_empty_class(
    folders: set[PurePosixPath],
    everything: Sequence[PurePosixPath],
    found: set[str],
    level: int,
    source: str,
    config: DataConfig,
) -> None:
    """Refuse a class folder without images, because the model would silently lack that class.

    If `data.include` names folders, others are left out on purpose. If it names files alone, such as `*.bmp`, a class
    may have lost its images to their spelling: `.BMP`. `everything` are the images that no pattern has left out yet.
    """
    include, exclude = patterns_of(config.include), patterns_of(config.exclude)
    include += [folder for folder in (pattern.rpartition("/")[0] for pattern in include) if folder.strip("*/")]
    classes = [folder for folder in sorted(folders) if len(folder.parts) == level and not matches_any(folder, exclude)]
    for folder in [folder for folder in classes if matches_any(folder, include)] or classes:
        if class_name_of(folder.name) in found:
            continue
        if not any(folder in path.parents for path in everything):
            raise DataError(f"{source}: class folder {printable(folder)} holds no image; add some or remove the folder")
        raise DataError(
            f"{source}: data.include and data.exclude leave no image of class folder {printable(folder)}; if this is "
            f"meant: data.exclude='{printable(folder)}/**'"
        )


def _check_spelling(names: set[str], source: str) -> None:
    """Refuse class folders whose names differ by case, blanks or leading zeros only."""
    if alike := alike_names(names):
        raise DataError(
            f"{source}: class folders differ only by case, blanks or leading zeros: {shown_alike(alike)}. Merge or "
            f"rename them, or leave one out, such as data.exclude='{alike[0][-1]}/**'"
        )


def check_spelling(names: Iterable[str], what: str, source: str) -> None:
    """Refuse names that differ by case, blanks or leading zeros only."""
    if alike := alike_names(set(names)):
        listed = shown_alike(alike)
        raise DataError(
            f"{source}: {what} differ only by case, blanks or leading zeros: {listed}; write each in one way"
        )


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Return the names that differ by case, blanks or leading zeros only, those of each kind together."""
    alike = defaultdict(list)
    for name in sorted(names):
        plain = " ".join(name.casefold().split())
        alike[plain.lstrip("0") if plain.isdecimal() else plain].append(name)
    return [same for same in alike.values() if len(same) > 1]


def shown_alike(alike: list[list[str]]) -> str:
    """Return what `alike_names` found, for a message."""
    return "; ".join(" and ".join(map(_shown, same)) for same in alike[:NAMED])


def _list(names: Sequence[str]) -> str:
    shown = [_shown(name) for name in names[:NAMED]]
    return ", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _shown(name: str) -> str:
    """Return a folder's name as one can read it: in quotes if blanks or signs would hide its ends."""
    text = printable(PurePosixPath(name))
    return text if text and text == text.strip() and "," not in text else repr(text)
