"""Classes of another laboratory under the names of the model."""

import difflib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.regular_files import fault_of_file

logger = logging.getLogger(__name__)

# What `--class_map` says of a class whose images are left out.
DROP = "drop"
# Class of the source -> class of the model; None: its images are left out.
ClassMap = Mapping[str, str | None]


def parse_class_map(text: str) -> ClassMap:
    """Return what `--class_map` says: class of the source -> class of the model, `drop` or None.

    Args:
      text: `Basophil=basophil,PMN=neutrophil,Artifact=drop`, or the path of a JSON file with one such object, in which
        null drops a class too.

    Raises:
      UsageError: the text or the file is no such map.
    """
    if text.strip().lower().endswith(".json"):
        return _read_map(Path(os.path.expanduser(text.strip())))
    pairs = [part.rpartition("=") for part in text.split(",") if part.strip()]
    if not pairs or not all(source.strip() and equals and target.strip() for source, equals, target in pairs):
        raise UsageError(
            f"--class_map={text}: give SOURCE_CLASS=MODEL_CLASS pairs, such as 'PMN=neutrophil,Artifact=drop', or a "
            ".json file"
        )
    return _distinct([(source.strip(), target.strip()) for source, _, target in pairs], f"--class_map={text}")


def _read_map(path: Path) -> ClassMap:
    if fault := fault_of_file(path):
        raise UsageError(f"--class_map={path}: {fault}; give a .json file")
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except OSError as error:
        raise UsageError(f"--class_map={path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--class_map={path}: not JSON ({error})") from error
    if not isinstance(pairs, list) or not all(
        isinstance(pair, tuple) and (pair[1] is None or isinstance(pair[1], str)) for pair in pairs
    ):
        raise UsageError(f'--class_map={path}: give one object of names, such as {{"PMN": "neutrophil"}}')
    return _distinct(pairs, f"--class_map={path}")


def _distinct(pairs: Sequence[tuple[str, str | None]], where: str) -> ClassMap:
    if twice := sorted(source for source, count in Counter(source for source, _ in pairs).items() if count > 1):
        raise UsageError(f"{where}: {', '.join(twice)} stands there twice; name each class of the source once")
    return dict(pairs)


def match_classes(found: Sequence[str], class_names: Sequence[str], named: ClassMap, source: str) -> ClassMap:
    """Return the model's class for each class of a source; None: it is dropped.

    Names that the map does not hold match by themselves: exactly, or without regard to case, `_`, `-` and blanks. The
    log names what did not match exactly.

    Args:
      found: the classes of the source that have images.
      class_names: the model's classes.
      named: what `--class_map` says.
      source: what messages name.

    Raises:
      UsageError: the map names a class that the source or the model does not have.
      DataError: a class of the source is neither one of the model's nor in the map.
    """
    told = _told(found, class_names, named, source)
    mapping = {name: told[name] if name in told else _same_name(name, class_names) for name in found}
    unknown = [name for name, target in mapping.items() if target is None and name not in told]
    if unknown:
        are = "are no classes" if len(unknown) > 1 else "is no class"
        raise DataError(
            f"{source}: {', '.join(unknown)} {are} of the model, which has {', '.join(class_names)}; say what each is "
            f"({DROP} leaves its images out): {_suggestion(unknown, class_names, named)}"
        )
    if renamed := [f"{name} is {target}" for name, target in mapping.items() if target not in (name, None)]:
        logger.info("%s: classes under the model's names: %s", source, ", ".join(renamed))
    return mapping


def _told(found: Sequence[str], class_names: Sequence[str], named: ClassMap, source: str) -> ClassMap:
    """Return the map with the names as the source and the model spell them, and None for what is dropped."""
    told: dict[str, str | None] = {}
    for name, target in named.items():
        at_home, abroad = target and _same_name(target, class_names), _same_name(name, found)
        if abroad is None:
            raise UsageError(f"--class_map: {name} is no class of {source}, which has {', '.join(found)}")
        if at_home is None and target not in (DROP, None):
            raise UsageError(f"--class_map: {target} is no class of the model, which has {', '.join(class_names)}")
        if abroad in told:
            raise UsageError(f"--class_map: {abroad} of {source} stands there twice, with other letters or blanks")
        if at_home is not None and target == DROP:
            raise UsageError(
                f"--class_map: {DROP} is a class of this model too; a .json file with null leaves {name} out"
            )
        told[abroad] = at_home
    return told


def _same_name(name: str, names: Sequence[str]) -> str | None:
    """Return the one among `names` that is the same, or that differs by case, `_`, `-` and blanks alone; else None."""
    if name in names:
        return name
    alike = [other for other in names if _plain(other) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").split()).casefold()


def _suggestion(unknown: Sequence[str], class_names: Sequence[str], named: ClassMap) -> str:
    """Return a `--class_map` for every class: the model's nearest name, the class that a number counts, or `drop`."""
    plain = {_plain(name): name for name in class_names}
    nearest = {name: difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.8) for name in unknown}
    whole = dict(named) | {name: plain[near[0]] if near else DROP for name, near in nearest.items()}
    if all(name.isdecimal() and int(name) < len(class_names) for name in unknown):
        whole |= {name: class_names[int(name)] for name in unknown}
    if any(target is None or "," in name + target or "=" in target for name, target in whole.items()):
        return f"--class_map=map.json with {json.dumps(whole, ensure_ascii=False)}"
    return f'--class_map="{",".join(f"{name}={target}" for name, target in whole.items())}"'


def relabel(
    dataset: Dataset, indices: np.ndarray, mapping: ClassMap, class_names: tuple[str, ...]
) -> tuple[Dataset, np.ndarray]:
    """Return a dataset under the model's classes, without the images that are dropped, and its part of `indices`.

    Args:
      dataset: of the source's own classes.
      indices: int32 examples of it.
      mapping: what `match_classes` returns.
      class_names: the model's classes.

    Raises:
      DataError: no example of `indices` is left.
    """
    index_of = {None: -1} | {name: i for i, name in enumerate(class_names)}
    targets = np.array([index_of[mapping.get(name)] for name in dataset.class_names], np.int32)
    labels = targets[dataset.labels]
    kept = labels >= 0
    place = np.cumsum(kept) - 1
    left = place[indices[kept[indices]]].astype(np.int32)
    if not len(left):
        raise DataError(f"{dataset.source}: --class_map drops every class; no image is left to evaluate on")
    dataset = dataset if kept.all() else dataset.select(kept)
    return replace(dataset, labels=labels[kept], class_names=class_names, known_sha256=None), left
