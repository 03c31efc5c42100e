"""Draw the sheet of docs/robustness.md: cells under the corruptions of a suite.

python docs/corruption_sheet.py --output=docs/images/blood96_c.jpg
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.evaluate.robustness.corrupted import changes_of
from bloodcell_jax.evaluate.robustness.suites import SUITES, suite_of

_OUTPUT = flags.DEFINE_string("output", None, "JPEG file to write", required=True)
_SOURCE = flags.DEFINE_string("source", "synthetic:64", "images to draw on")
_SUITE = flags.DEFINE_enum("suite", "blood96-c", list(SUITES), "suite to draw")

CELLS, SIDE, GAP, LEGEND = 2, 96, 4, 110
SHOWN = (1, 3, 5)


def draw_sheet(images: np.ndarray, suite_name: str) -> Image.Image:
    """Return a sheet: a row for two corruptions, each with its name and the shown severities of every image."""
    parallel, places = create_parallel("jit", 1, jax.devices()[:1]), jnp.arange(len(images), dtype=jnp.int32)
    blocks: dict[str, list[np.ndarray]] = {"clean": list(images)}
    for corruption, severity, change in changes_of(suite_of(suite_name), parallel):
        if severity in SHOWN:
            blocks.setdefault(corruption.name, []).extend(np.asarray(change(jnp.asarray(images), places)))
    step, width = SIDE + GAP, LEGEND + len(SHOWN) * len(images) * (SIDE + GAP)
    rows = -(-len(blocks) // 2)
    sheet = Image.new("RGB", (2 * width, rows * step), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, cells) in enumerate(blocks.items()):
        left, top = number // rows * width, number % rows * step
        draw.text((left + 4, top + SIDE // 2 - 6), name.replace("_", " "), fill="black", font_size=13)
        for place, cell in enumerate(cells):
            sheet.paste(Image.fromarray(cell), (left + LEGEND + place * step, top))
    return sheet


def main(_: list[str]) -> None:
    """Write the sheet."""
    dataset = load_data(DataConfig(source=_SOURCE.value, image_size=SIDE))
    chosen = [int(np.flatnonzero(dataset.labels == label)[0]) for label in (1, 6)][:CELLS]
    draw_sheet(np.stack([dataset.images[index] for index in chosen]), _SUITE.value).save(
        Path(_OUTPUT.value), quality=88, optimize=True
    )


if __name__ == "__main__":
    app.run(main)
