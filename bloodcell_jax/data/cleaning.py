"""`clean.json`: the examples of a dataset to leave out, and why; `audit` writes it, and training obeys it."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.launch_cache import cached_sha256
from bloodcell_jax.errors import DataError
from bloodcell_jax.regular_files import check_regular_file

_log = logging.getLogger(__name__)

_ADVICE = "audit this source again, or leave data.clean unset"


@dataclass(frozen=True, order=True)
class Removal:
    """An example to leave out.

    Attributes:
      index: index of the example.
      id: id of the example.
      reason: one word.
      detail: what a person needs to judge it.
    """

    index: int
    id: str
    reason: str
    detail: str


def clean_file(dataset: Dataset, sha256: str, removals: Sequence[Removal]) -> dict:
    """Return the content of `clean.json`; it names the data that it is valid for."""
    return {
        "source": dataset.source,
        "sha256": sha256,
        "n": len(dataset),
        "image_size": dataset.images.shape[1],
        "remove": [dataclasses.asdict(removal) for removal in removals],
    }


def remove_rows(dataset: Dataset, path: str | Path) -> Dataset:
    """Return the dataset without the examples that a `clean.json` names; ids, order and classes stay.

    If an entry is deleted from the file, its example stays.

    Raises:
      DataError: the file cannot be read, is no `clean.json`, or was made for other data.
    """
    path = Path(path)
    content = _read(path)
    _check_made_for(content, dataset, path)
    kept = np.ones(len(dataset), bool)
    for number, entry in enumerate(content["remove"]):
        kept[_checked_index(entry, dataset, f"{path}, remove[{number}]")] = False
    _log.info("%s: %s of %s images left out", path, f"{(~kept).sum():,}", f"{len(dataset):,}")
    return dataset.select(kept)


def _read(path: Path) -> dict:
    check_regular_file(path, f"data.clean={path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"not JSON: {error}"
        raise DataError(f"data.clean={path}: cannot be read ({reason}); {_ADVICE}") from error
    if not isinstance(content, dict) or not isinstance(content.get("remove"), list):
        raise DataError(f"data.clean={path}: has no list remove, so it is no clean.json; {_ADVICE}")
    return content


def _check_made_for(content: dict, dataset: Dataset, path: Path) -> None:
    sha256, size = cached_sha256(dataset), dataset.images.shape[1]
    if (content.get("n"), content.get("sha256")) == (len(dataset), sha256):
        return
    advice = _ADVICE
    if content.get("image_size") not in (None, size):
        advice = f"it was made at image_size={_shown(content['image_size'])}, so audit with --image_size={size}"
    count, said = _shown(content.get("n")), _shown(content.get("sha256"))
    raise DataError(
        f"data.clean={path}: made for other data: n {count}, sha256 {said}; "
        f"{dataset.source} has n {len(dataset)}, sha256 {sha256}; {advice}"
    )


def _shown(value: Any) -> str:
    """Return a value of the file for a message of one line; any value may be there."""
    return (
        str(value)[:100] if isinstance(value, str | int) and str(value).isprintable() else f"a {type(value).__name__}"
    )


def _checked_index(entry: Any, dataset: Dataset, place: str) -> int:
    index = entry.get("index") if isinstance(entry, dict) else None
    if type(index) is not int or not 0 <= index < len(dataset):
        raise DataError(f"data.clean={place}: has no index from 0 to {len(dataset) - 1}; delete the entry or {_ADVICE}")
    if entry.get("id", dataset.ids[index]) != dataset.ids[index]:
        raise DataError(
            f"data.clean={place}: index {index} is {dataset.ids[index]}, not {_shown(entry['id'])}; "
            f"delete the entry or {_ADVICE}"
        )
    return index
