"""Draw the contact sheet of every operation: `python docs/augmentation_sheet.py --output=docs/images/augmentation.jpg`.

A row for each operation at its defaults, a column for each image; mixes show an image with its neighbor.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw

from bloodcell_jax import augment, load_source
from bloodcell_jax.augment.operations import MIXES, OPERATIONS

FLAGS = flags.FLAGS
flags.DEFINE_string("source", "synthetic:64", "where the images come from")
flags.DEFINE_string("output", None, "the image to write", required=True)
flags.DEFINE_integer("columns", 8, "images a row")
flags.DEFINE_integer("seed", 0, "of the draws")

NAME_WIDTH, SIZE, GAP = 150, 96, 3
PRESETS = {
    "randaugment:preset=kerascv": "randaugment kerascv",
    "randaugment:timm=rand-m9-mstd0.5-inc1": "randaugment timm",
    "augmix:compat=kerascv": "augmix compat",
}


def rows(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Return cells by the name of their row, uint8 [columns, h, w, 3]."""
    images = jnp.asarray(cells / np.float32(255))
    slots, key = jnp.arange(len(images), dtype=jnp.int32), jax.random.key(FLAGS.seed)
    changed = {"as they are": images}
    for text, name in ({name: name for name in OPERATIONS} | PRESETS).items():
        changed[name] = augment.apply_policy(augment.parse_policy(text), key, slots, images, block=len(images))
    targets = jnp.eye(len(images))
    for name in MIXES:
        mix = augment.parse_mix(f"{name}:alpha=2")
        changed[name], _ = augment.apply_mix(mix, key, slots, images, targets, block=len(images))
    return {name: np.round(np.asarray(images) * 255).astype(np.uint8) for name, images in changed.items()}


def main(_) -> None:
    dataset = load_source(FLAGS.source, image_size=SIZE)
    # One of each class in turn.
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


if __name__ == "__main__":
    app.run(main)
