"""The same global batch gives the same augmented images on 1, 2 and 8 devices, to the bit."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from bloodcell_jax.augment import parse_mix, parse_policy
from bloodcell_jax.augment.policies import Augmentation
from bloodcell_jax.data.resident_images import ResidentImages
from bloodcell_jax.devices.parallel import AXIS, ROWS, WHOLE, DataParallel
from bloodcell_jax.train.step import training_batch

BATCH, BLOCK = 32, 4
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
DATA = {"images": ResidentImages.of(IMAGES), "labels": np.arange(40, dtype=np.int32)}
# What the first setup draws, the second must: one device and many, and both backends.
CASES = {
    "randaugment and mixing": (
        ("d4|randaugment:n=1|hue:p=0.5", "mixup:p=0.5|cutmix:p=0.5", False),
        [("jit", 1), ("pmap", 8)],
    ),
    "augmix's views": (("augmix:width=2", "none", True), [("pmap", 1), ("jit", 8)]),
}


def drawn_on(backend, devices, augmentation):
    """Return the images, targets and keys of step 3 by slot, and the compiled program."""
    parallel = DataParallel(backend, Mesh(np.array(jax.devices()[:devices]), (AXIS,)))

    def make_batch(data, batch, seed, step):
        images, targets, keys = training_batch(
            data,
            batch,
            seed,
            step,
            image_size=IMAGES.shape[1],
            augmentation=augmentation,
            num_classes=40,
            label_smoothing=0.1,
        )
        return images, targets, jax.random.key_data(keys)

    data, seed, step = (parallel.place_state(value) for value in (DATA, np.uint32(1), np.int32(3)))
    indices = np.random.default_rng(1).permutation(40)[:BATCH].astype(np.int32)
    batch = parallel.shard_batch({"indices": indices, "slots": np.arange(BATCH, dtype=np.int32)})
    if backend == "pmap":
        mapped = jax.pmap(make_batch, axis_name=AXIS, in_axes=(None, 0, None, None))
    else:
        mapped = jax.jit(parallel.on_each_device(make_batch, (WHOLE, ROWS, WHOLE, WHOLE), ROWS))
    compiled = mapped.lower(data, batch, seed, step).compile()
    return [np.asarray(x).reshape(BATCH, -1) for x in compiled(data, batch, seed, step)], compiled.as_text()


# Without optimization the chains of AugMix differ in their last bits: make test-exhaustive compiles them as users do.
@pytest.mark.parametrize(
    "name", ["randaugment and mixing", pytest.param("augmix's views", marks=pytest.mark.exhaustive)]
)
def test_images_do_not_depend_on_the_devices(name):
    (policy, mix, views), (one, other) = CASES[name]
    augmentation = Augmentation(parse_policy(policy), parse_mix(mix), BLOCK, views)
    (expected, _), (found, program) = drawn_on(*one, augmentation), drawn_on(*other, augmentation)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert f" {collective}(" not in program, "no device needs another's images"
