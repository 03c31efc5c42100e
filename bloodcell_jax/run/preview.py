"""What the network sees while it trains: real training images, and what augmentation makes of them."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from bloodcell_jax.augment.policies import VIEWS
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.stages import stage_of_step
from bloodcell_jax.train.step import training_batch
from bloodcell_jax.whole_files import replacing

IMAGES, DRAWS = 8, 7
_GAP = 4


def write_preview(run: Run, path: Path) -> None:
    """Write a PNG with a row for each of some training images: itself, and what some steps would show of it.

    Raises:
      MachineError: it cannot be written.
    """
    rows = augmented_examples(run)
    count, columns, height, width, _ = rows.shape
    sheet = np.full((count * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 4), 0, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (height + _GAP), j * (width + _GAP)
            sheet[top : top + height, left : left + width, :3] = image
            sheet[top : top + height, left : left + width, 3] = 255
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, "png")


def augmented_examples(run: Run) -> np.ndarray:
    """Return training images and what DRAWS steps make of them, uint8 [IMAGES, 1 + DRAWS, h, w, 3].

    They are the first of the run's order, in the first slots, drawn as in steps 0, 1, ... at the size of their stages,
    whose smaller images are enlarged again.
    """
    augmentation, block = run.augmentation, run.augmentation.block
    slots = np.arange(-(-IMAGES // block) * block, dtype=np.int32)
    indices = np.resize(run.sampler.indices(0, min(len(slots), run.sampler.epoch_size)), len(slots))
    originals = run.dataset.images[indices]
    batch = {"images": originals, "labels": np.zeros(len(slots), np.int32), "slots": slots}
    seed = np.uint32(run.config.seed)

    @partial(jax.jit, static_argnums=1)
    def shown(step: jax.Array, size: int) -> jax.Array:
        images, _, _ = training_batch(
            {},
            batch,
            seed,
            step,
            image_size=size,
            augmentation=augmentation,
            num_classes=1,
            label_smoothing=0.0,
        )
        # The last of three views is augmented.
        return images[VIEWS - 1 :: VIEWS] if augmentation.views else images

    def drawn(step: int) -> np.ndarray:
        images = np.asarray(shown(np.int32(step), stage_of_step(run.stages, step).image_size))
        return _enlarged(np.round(images * 255).astype(np.uint8), originals.shape[1])

    draws = [drawn(step) for step in range(DRAWS)]
    return np.stack([originals, *draws], axis=1)[:IMAGES]


def _enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Return images [n, h, h, 3] as [n, size, size, 3]: a pixel becomes a square of equal ones."""
    source = np.arange(size) * images.shape[1] // size
    return images[:, source][:, :, source]
