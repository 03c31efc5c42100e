"""Make the generated parts of docs/augmentation.md: the contact sheet and the tables of operations.

    python docs/augmentation_sheet.py --output=docs/images/augmentation.jpg
    python docs/augmentation_sheet.py --page=docs/augmentation.md

The sheet has a row for each operation at its defaults and a column for each image. Mixes show an image with a neighbor.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw

from bloodcell_jax import augment, load_source
from bloodcell_jax.augment.operations import MIXES, OPERATIONS, markdown_tables

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "file to write the sheet to")
flags.DEFINE_string("page", None, "page whose tables are written anew")
flags.DEFINE_string("source", "synthetic:64", "source of the images of the sheet")
flags.DEFINE_integer("columns", 8, "number of images in a row of the sheet")
flags.DEFINE_integer("seed", 0, "seed of what the sheet draws")

NAME_WIDTH, SIZE, GAP = 150, 96, 3
PRESETS = {
    "randaugment:preset=kerascv": "randaugment kerascv",
    "randaugment:timm=rand-m9-mstd0.5-inc1": "randaugment timm",
    "augmix:compat=kerascv": "augmix compat",
}


def rows(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Return the images of each row, uint8 [columns, h, w, 3], by its name."""
    images = jnp.asarray(cells / np.float32(255))
    slots, key = jnp.arange(len(images), dtype=jnp.int32), jax.random.key(FLAGS.seed)
    changed = {"unchanged": images}
    for text, name in ({name: name for name in OPERATIONS} | PRESETS).items():
        changed[name] = augment.apply_policy(augment.parse_policy(text), key, slots, images, block=len(images))
    targets = jnp.eye(len(images))
    for name in MIXES:
        mix = augment.parse_mix(f"{name}:alpha=2")
        changed[name], _ = augment.apply_mix(mix, key, slots, images, targets, block=len(images))
    return {name: np.round(np.asarray(images) * 255).astype(np.uint8) for name, images in changed.items()}


def draw_sheet() -> None:
    """Write the contact sheet to `--output`."""
    dataset = load_source(FLAGS.source, image_size=SIZE)
    # The classes take turns.
    order = np.argsort(np.concatenate([np.arange(n) for n in dataset.class_counts()]), kind="stable")
    by_class = np.argsort(dataset.labels, kind="stable")[order]
    shown = rows(dataset.images[by_class[: FLAGS.columns]])
    cell = SIZE + GAP
    sheet = Image.new("RGB", (NAME_WIDTH + FLAGS.columns * cell, len(shown) * cell), "white")
    write = ImageDraw.Draw(sheet)
    for i, (name, images) in enumerate(shown.items()):
        write.text((6, i * cell + SIZE // 2 - 6), name, fill="black", font_size=14)
        for j, image in enumerate(images):
            sheet.paste(Image.fromarray(image), (NAME_WIDTH + j * cell, i * cell))
    sheet.save(FLAGS.output, quality=85)
    print(f"{FLAGS.output}: {len(shown)} rows")


def write_tables() -> None:
    """Write the tables of operations between the two comments that mark them in `--page`."""
    page = Path(FLAGS.page)
    between = re.compile("(?<=<!-- operations -->\n\n).*(?=\n\n<!-- end of operations -->)", re.DOTALL)
    page.write_text(between.sub(lambda _: markdown_tables(), page.read_text("utf-8")), "utf-8")


def main(_) -> None:
    if not (FLAGS.output or FLAGS.page):
        raise app.UsageError("neither --output nor --page is set; set one")
    if FLAGS.output:
        draw_sheet()
    if FLAGS.page:
        write_tables()


if __name__ == "__main__":
    app.run(main)
