"""What a step draws is the same to the bit on any number of devices and under either backend."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bloodcell_jax.augment import parse_policy
from bloodcell_jax.augment.policies import Augmentation
from bloodcell_jax.config import AugmentConfig
from bloodcell_jax.data.resident_images import ResidentImages
from bloodcell_jax.devices.parallel import AXIS, ROWS, WHOLE, DataParallel
from bloodcell_jax.models.convnext import drop_path
from bloodcell_jax.train.step import training_batch

BATCH, SIZE, SEED = 16, 32, 7
POLICY = AugmentConfig().policy
# Each is compared with one device under jit.
SETUPS = [("pmap", 8), ("jit", 8)]
IMAGES = np.random.default_rng(0).integers(0, 256, (64, SIZE, SIZE, 3), dtype=np.uint8)


def drawn_on(backend, devices):
    """Return what step 3 draws per slot: labels, augmented images, and which branches drop path keeps."""
    parallel = DataParallel(backend, Mesh(np.array(jax.devices()[:devices]), (AXIS,)))

    def draw(data, batch, seed, step):
        images, targets, keys = training_batch(
            data,
            batch,
            seed,
            step,
            image_size=SIZE,
            augmentation=Augmentation(parse_policy(POLICY)),
            num_classes=len(IMAGES),
            label_smoothing=0.0,
        )
        kept = [drop_path(jnp.ones((len(images), 1, 1, 1)), keys, block, 0.5) for block in range(4)]
        return targets, images, jnp.stack(kept, 1).reshape(len(images), 4)

    # Each image is a class of its own, so its label says which one a slot got.
    data = parallel.place_state({"images": ResidentImages.of(IMAGES), "labels": np.arange(len(IMAGES), dtype=np.int32)})
    seed, step = parallel.place_state(np.uint32(SEED)), parallel.place_state(np.int32(3))
    if backend == "pmap":
        mapped = jax.pmap(draw, axis_name=AXIS, in_axes=(None, 0, None, None))
    else:
        mapped = jax.jit(parallel.on_each_device(draw, (WHOLE, ROWS, WHOLE, WHOLE), ROWS))
    indices = np.random.default_rng(3).permutation(len(IMAGES))[:BATCH].astype(np.int32)
    batch = parallel.shard_batch({"indices": indices, "slots": np.arange(BATCH, dtype=np.int32)})
    targets, augmented, kept = jax.device_get(mapped(data, batch, seed, step))
    chosen = targets.reshape(BATCH, -1).argmax(1)
    return chosen, augmented.reshape(BATCH, SIZE, SIZE, 3), kept.reshape(BATCH, 4)


def test_examples_augmentation_and_drop_path_follow_the_slot_exactly():
    chosen, augmented, kept = drawn_on("jit", 1)
    for backend, devices in SETUPS:
        for ours, theirs in zip(drawn_on(backend, devices), (chosen, augmented, kept), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert 0.2 < (kept > 0).mean() < 0.8
    assert len(set(chosen)) == BATCH
    assert not np.array_equal(augmented, IMAGES[chosen] / np.float32(255)), "something is drawn"
