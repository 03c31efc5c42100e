"""The same global batch gives the same augmented pictures on 1, 2 and 8 devices, to the bit."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from bloodcell_jax.augment import parse_mix, parse_policy
from bloodcell_jax.augment.policies import Augmentation, apply_mix
from bloodcell_jax.train.parallel import AXIS, DataParallel
from bloodcell_jax.train.step import MIX_STREAM, augmented_batch, step_key

BATCH, BLOCK = 32, 4
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
TARGETS = np.eye(40, dtype=np.float32)
AUGMENTATIONS = {
    "randaugment and mixing": ("d4|randaugment:n=2|affine:p=0.5", "cutmix:p=0.5|fmix:p=0.5", False),
    "augmix's views": ("augmix:width=2", "none", True),
}


def drawn_on(backend, devices, augmentation):
    parallel = DataParallel(backend, Mesh(np.array(jax.devices()[:devices]), (AXIS,)))

    def draw(data, batch, seed):
        step = np.int32(3)
        images = augmented_batch(data, batch, augmentation, seed, step)
        if augmentation.views:
            return images, images[:, 0, 0, 0]
        targets = data["targets"][batch["indices"]]
        key = step_key(seed, MIX_STREAM, step)
        return apply_mix(augmentation.mix, key, batch["slots"], images, targets, block=BLOCK)

    data = parallel.place_state({"images": IMAGES, "targets": TARGETS})
    seed = parallel.place_state(np.uint32(1))
    indices = np.random.default_rng(1).permutation(40)[:BATCH].astype(np.int32)
    batch = parallel.shard_batch({"indices": indices, "slots": np.arange(BATCH, dtype=np.int32)})
    mapped = jax.pmap(draw, axis_name=AXIS, in_axes=(None, 0, None)) if backend == "pmap" else jax.jit(draw)
    compiled = mapped.lower(data, batch, seed).compile()
    return [np.asarray(x).reshape(BATCH, -1) for x in compiled(data, batch, seed)], compiled.as_text()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_pictures_do_not_depend_on_the_devices(name):
    policy, mix, views = AUGMENTATIONS[name]
    augmentation = Augmentation(parse_policy(policy), parse_mix(mix), BLOCK, views)
    expected, _ = drawn_on("pmap", 1, augmentation)
    for backend, devices in (("pmap", 2), ("pmap", 8), ("jit", 8)):
        found, program = drawn_on(backend, devices, augmentation)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
            assert f" {collective}(" not in program, "no device needs another's pictures"
