"""What the files that explain an evaluated split hold; see `bloodcell_jax.workdir.records`."""

import math
import re
from itertools import chain
from pathlib import Path
from typing import Any

from bloodcell_jax.workdir.value_shapes import COUNT, NUMBER, SHARE, TEXT, TEXT_OR_NONE, Kind, OrNone, check, refuse

# Why a cell is explained.
MISTAKE, UNCERTAIN = "mistake", "uncertain"
# Values of a map a side: Grad-CAM's of an image of 2,000 pixels, with room.
_MOST_VALUES = 256


def _is_finite(value: Any) -> bool:
    return NUMBER.holds(value) and math.isfinite(value)


def _is_map(value: Any) -> bool:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_VALUES:
        return False
    rows = [row for row in value if isinstance(row, list) and 0 < len(row) <= _MOST_VALUES]
    return len(rows) == len(value) and len(set(map(len, rows))) == 1 and all(map(_is_finite, chain(*rows)))


def _is_base64(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9+/=\s]*", value) is not None


FINITE = Kind("a finite number", _is_finite)
CORRELATION_OR_NONE = Kind(
    "a number from -1 to 1, or null", lambda value: value is None or (NUMBER.holds(value) and -1 <= value <= 1)
)
MAP = Kind("rows of finite numbers, all of one length", _is_map)
BASE64 = Kind("base64", _is_base64)

_IMAGE = {"id": TEXT, "label": TEXT, "jpeg": BASE64}
_EXPLAINED_CELLS = {
    "cells": [
        {
            **_IMAGE,
            "why": TEXT,
            "answers": [{"name": TEXT, "probability": SHARE}],
            "margin": SHARE,
            "explained_class": TEXT,
            "occlusion": MAP,
            "grad_cam": MAP,
            "rank_agreement": CORRELATION_OR_NONE,
            "neighbors": [{**_IMAGE, "distance": FINITE}],
        }
    ],
    "without_neighbors": TEXT_OR_NONE,
}
_EMBEDDING_MAP = {
    "method": TEXT,
    "shares": OrNone(value=[SHARE]),
    "x": [FINITE],
    "y": [FINITE],
    "label": [COUNT],
    "predicted": [COUNT],
    "of": COUNT,
    "class_names": [TEXT],
}


def check_explained_cells(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `explained_cells.json`.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check(value, _EXPLAINED_CELLS, path)
    for number, cell in enumerate(value["cells"]):
        if not cell["answers"]:
            refuse(path, f"cells[{number}].answers is empty")
    return value


def check_embedding_map(value: Any, path: Path) -> dict[str, Any]:
    """Check the content of `embedding_map.json`.

    Raises:
      DataError: it is none; names the file and the key.
    """
    check(value, _EMBEDDING_MAP, path)
    lengths = {len(value[name]) for name in ("x", "y", "label", "predicted")}
    if len(lengths) > 1:
        refuse(path, f"x, y, label and predicted have {' and '.join(map(str, sorted(lengths)))} values, not one number")
    classes = len(value["class_names"])
    if max(value["label"] + value["predicted"], default=0) >= classes:
        refuse(path, f"label or predicted names a class beyond the {classes} of class_names")
    if value["shares"] is not None and len(value["shares"]) != 2:
        refuse(path, f"shares has {len(value['shares'])} numbers, and a map has two axes")
    return value
