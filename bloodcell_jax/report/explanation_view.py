"""What pages show to explain an evaluated split: cells with heat maps and neighbors, and a map of all images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bloodcell_jax.report.heat_layer import heat_layer
from bloodcell_jax.workdir.explanation_records import MISTAKE, check_embedding_map, check_explained_cells
from bloodcell_jax.workdir.json_files import read_json_if_present
from bloodcell_jax.workdir.layout import EvaluationFolder

# Okabe and Ito's palette, which color-blind readers can tell apart, with brown and gray for its yellow and black: they
# show on a light and on a dark page. More classes begin again, and the names on the map tell them apart.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c6d31", "#808080")
# Median rank agreement of both maps from which on the page does not warn of Grad-CAM. Where the part that gives the
# class is known it was 0.91 (tests/evaluate/explain); maps of two different cells of PBC agree by 0.29, because cells
# lie in the middle of their images (docs/explanation.md).
LEAST_AGREEMENT = 0.5
# The drawing's units: with three digits a point has about 10 bytes.
_WIDTH, _HEIGHT, _MARGIN = 720, 480, 14
_CROSS = 3
# Room of a class's name on it.
_NAME_WIDTH, _NAME_HEIGHT = 150, 17


def explanation_view(folder: EvaluationFolder) -> dict[str, Any] | None:
    """Return what `explanation.html` shows of a split; None if nothing of it was explained.

    Raises:
      DataError: a file does not have the format that this library writes.
    """
    cells, embedding = (read_json_if_present(path) for path in (folder.explained_cells, folder.embedding_map))
    if cells is None and embedding is None:
        return None
    return {
        "cells": {} if cells is None else _cells(check_explained_cells(cells, folder.explained_cells)),
        "map": None if embedding is None else _map(check_embedding_map(embedding, folder.embedding_map)),
    }


def _cells(record: Mapping[str, Any]) -> dict[str, Any]:
    cells = [_cell(cell) for cell in record["cells"]]
    mistakes = [cell for cell in cells if cell["why"] == MISTAKE]
    first = record["cells"][0]["grad_cam"] if cells else []
    agreements = [cell["rank_agreement"] for cell in cells if cell["rank_agreement"] is not None]
    return {
        "mistakes": mistakes,
        "uncertain": [cell for cell in cells if cell["why"] != MISTAKE],
        "without_neighbors": record["without_neighbors"],
        "positions": f"{len(first)} × {len(first[0])}" if first else None,
        "agreement": float(np.median(agreements)) if agreements else None,
        "agree": bool(agreements) and np.median(agreements) >= LEAST_AGREEMENT,
    }


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    heat = {name: heat_layer(np.array(cell[name])) for name in ("grad_cam", "occlusion")}
    greatest = max(map(max, cell["occlusion"]))
    return {**cell, "heat": heat, "greatest_drop": greatest}


def _map(record: Mapping[str, Any]) -> dict[str, Any]:
    x, y = (_scaled(record[name], length) for name, length in (("x", _WIDTH), ("y", _HEIGHT)))
    y = _HEIGHT - y  # Upwards, as on other maps.
    labels, predicted = np.array(record["label"], int), np.array(record["predicted"], int)
    right = labels == predicted
    used = [label for label in range(len(record["class_names"])) if (labels == label).any()]
    names = _apart([(float(np.median(x[labels == label])), float(np.median(y[labels == label]))) for label in used])
    return {
        **{name: record[name] for name in ("method", "shares", "of")},
        "width": _WIDTH,
        "height": _HEIGHT,
        "shown": len(labels),
        "wrong": int((~right).sum()),
        "classes": [
            {
                "name": record["class_names"][label],
                "color": _COLORS[label % len(_COLORS)],
                "count": int((labels == label).sum()),
                "x": place[0],
                "y": place[1],
                "dots": _dots(x[right & (labels == label)], y[right & (labels == label)]),
                "crosses": _crosses(x[~right & (labels == label)], y[~right & (labels == label)]),
            }
            for label, place in zip(used, names, strict=True)
        ],
    }


def _scaled(values: Sequence[float], length: int) -> np.ndarray:
    """Return coordinates in the drawing's units; all are inside it."""
    places = np.array(values, float) / 2  # Halves, because the difference of two huge values is infinite.
    extent = np.ptp(places) if len(places) else 0
    share = (places - places.min()) / extent if extent > 0 else np.full(len(places), 0.5)
    return np.rint(_MARGIN + share * (length - 2 * _MARGIN))


def _apart(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the places of names, of which those that would cover one above them are moved down."""
    moved: dict[int, tuple[float, float]] = {}
    for number in sorted(range(len(places)), key=lambda number: places[number][1]):
        x, y = places[number]
        near = [other[1] for other in moved.values() if abs(other[0] - x) < _NAME_WIDTH]
        moved[number] = x, min(max(y, *(above + _NAME_HEIGHT for above in near), _MARGIN), _HEIGHT)
    return [moved[number] for number in range(len(places))]


def _dots(x: np.ndarray, y: np.ndarray) -> str:
    """Return a path of lines of length 0: with round ends each is a dot."""
    return "".join(f"M{a:.0f} {b:.0f}h0" for a, b in zip(x, y, strict=True))


def _crosses(x: np.ndarray, y: np.ndarray) -> str:
    stroke = f"l{2 * _CROSS} {2 * _CROSS}m0-{2 * _CROSS}l-{2 * _CROSS} {2 * _CROSS}"
    return "".join(f"M{a - _CROSS:.0f} {b - _CROSS:.0f}{stroke}" for a, b in zip(x, y, strict=True))
