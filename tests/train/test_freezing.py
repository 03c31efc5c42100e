"""Exactly which parameters learn and which decay."""

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from bloodcell_jax.errors import UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.train.freezing import decay_mask, merge, partition, trainable_mask

PARAMS = {
    "stem": {"kernel": 1, "bias": 2},
    "stage_0": {"block_0": {"expand": {"kernel": 3}, "layer_scale": 4}, "norm": {"scale": 5}},
    "head": {"kernel": 6, "bias": 7},
}


def test_the_first_pattern_that_matches_a_whole_path_decides():
    assert trainable_mask(PARAMS, ("head/.*", "!stem/.*", ".*kernel", "!.*")) == {
        "stem": {"kernel": False, "bias": False},
        "stage_0": {"block_0": {"expand": {"kernel": True}, "layer_scale": False}, "norm": {"scale": False}},
        "head": {"kernel": True, "bias": True},
    }


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("head/.*",), "no pattern matches stem/kernel"),
        (("head", ".*"), "'head' decides no parameter"),
        ((".*", "!stem/.*"), "'!stem/.*' decides no parameter"),
        (("!.*",), "freezes every parameter"),
        (("head/(", ".*"), "not a regular expression"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(patterns, message):
    with pytest.raises(UsageError) as error:
        trainable_mask(PARAMS, patterns)
    assert message in str(error.value)


def test_kernels_decay_and_nothing_else():
    for variant in ("convnext_atto", "convnextv2_atto"):
        model = create_model(variant, 8)
        shapes = jax.eval_shape(lambda model=model: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))["params"]
        mask = flatten_dict(decay_mask(shapes), sep="/")
        shapes = flatten_dict(shapes, sep="/")
        assert mask.keys() == shapes.keys()
        for path, decays in mask.items():
            # All kernels have at least two axes and nothing else has.
            assert decays == (shapes[path].ndim > 1), path
    flat = {"a/kernel": 1, "a/bias": 2}
    assert decay_mask(flat) == {"a/kernel": True, "a/bias": False}


def test_what_is_taken_apart_comes_together():
    mask = trainable_mask(PARAMS, ("head/.*", "!.*"))
    trainable, frozen = partition(PARAMS, mask)
    assert trainable == {"head/kernel": 6, "head/bias": 7}
    assert set(frozen.values()) == {1, 2, 3, 4, 5}
    assert merge(trainable, frozen) == PARAMS
