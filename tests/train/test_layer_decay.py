"""Learning rates that fall from the head to the stem, in ConvNeXt's groups, however the parameters are packed."""

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import unflatten_dict

from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import create_model, param_shapes
from bloodcell_jax.train.freezing import decay_mask, trainable_mask
from bloodcell_jax.train.guard import Guard
from bloodcell_jax.train.layer_decay import distances_from_head
from bloodcell_jax.train.optimizers import create_optimizer
from bloodcell_jax.train.packing import Joining, PackedParams
from bloodcell_jax.train.state import TrainState, apply_gradients, begin_stage, create_state

RATE, DECAY, LAYER_DECAY = 1e-3, 0.05, 0.7


def shapes_of(variant):
    return param_shapes(create_model(variant, 8), 32)


def published(path):
    """The group of a parameter in `get_num_layer_for_convnext`, written out by hand for ConvNeXt-Base."""
    parts = path.split("/")
    if parts[0] in ("stem_conv", "stem_norm"):
        return 0
    if parts[0] in ("head", "head_norm"):
        return 13
    stage = int(parts[0].removeprefix("stage_"))
    if stage in (0, 1):
        return stage + 1
    if stage == 3:
        return 12
    return 3 + int(parts[1].removeprefix("block_")) // 3 if parts[1].startswith("block_") else 3


def test_the_groups_of_base_are_the_published_ones():
    distances = distances_from_head(shapes_of("convnext_base"))
    assert {path: 13 - distance for path, distance in distances.items()} == {
        path: published(path) for path in distances
    }
    assert set(distances.values()) == set(range(14))


@pytest.mark.parametrize(("variant", "groups"), [("convnext_tiny", 6), ("convnext_atto", 5), ("custom_cnn", 4)])
def test_other_depths_have_as_many_groups_as_the_rule_says(variant, groups):
    distances = distances_from_head(shapes_of(variant))
    assert distances["head/kernel"] == 0
    assert {distances[path] for path in distances if path.startswith("stage_3")} == {1}
    assert {distances[path] for path in distances if path.startswith("stem_")} == {groups + 1}
    assert set(distances.values()) == set(range(groups + 2))


# Two parameters of each kind of layer; an update costs an operation for each of them, to compile.
LAYERS = ("stem_conv", "stage_0/block_0/expand", "stage_1/downsample_conv", "stage_1/block_1/expand")
LAYERS += (
    "stage_2/block_0/expand",
    "stage_2/block_2/project",
    "stage_2/block_3/expand",
    "stage_3/block_0/expand",
    "head",
)
RANDOM = np.random.default_rng(0)
PARAMS = unflatten_dict(
    {
        f"{layer}/{name}": RANDOM.standard_normal(shape).astype(np.float32)
        for layer in LAYERS
        for name, shape in (("kernel", (8, 16)), ("bias", (16,)))
    },
    sep="/",
)
DISTANCES = distances_from_head(PARAMS)
ALL, LAST = trainable_mask(PARAMS, (".*",)), trainable_mask(PARAMS, ("head.*", "stage_[23]/.*", "!.*"))
GUARD = Guard(3)


def optimizer_of(name):
    config = OptimizerConfig(name=name, weight_decay=DECAY, clip_norm=1.0, layer_decay=LAYER_DECAY)
    return create_optimizer(config, optax.constant_schedule(RATE), DISTANCES)


def reference(name, mask):
    """The same by optax's own parts on the whole tree: an optimizer of its own for each rate, and none for the rest."""
    rule = {"adamw": lambda rate: optax.adamw(rate, weight_decay=DECAY, mask=decay_mask)}
    rule["lion"] = lambda rate: optax.lion(rate, b2=0.99, weight_decay=DECAY, mask=decay_mask)
    optimizers = {str(d): rule[name](RATE * LAYER_DECAY**d) for d in set(DISTANCES.values())}
    trains, labels = leaves_by_path(mask), {}
    for path, distance in DISTANCES.items():
        labels[path] = str(distance) if trains[path] else "frozen"
    return optax.chain(
        # The norm that is clipped is that of what learns.
        optax.masked(optax.clip_by_global_norm(1.0), trains),
        optax.multi_transform(optimizers | {"frozen": optax.set_to_zero()}, labels),
    )


def gradients_of(step):
    rng = np.random.default_rng(step)
    return {path: rng.standard_normal(leaf.shape, np.float32) for path, leaf in leaves_by_path(PARAMS).items()}


@pytest.mark.parametrize(
    ("name", "mask", "platform"),
    [("adamw", "all", "cpu"), ("lion", "last", "gpu"), ("adamw", "last", "gpu"), ("lion", "all", "tpu")],
)
def test_updates_are_those_of_an_optimizer_for_each_rate(name, mask, platform):
    mask = {"all": ALL, "last": LAST}[mask]
    optimizer, full = optimizer_of(name), leaves_by_path(PARAMS)
    state = create_state(jax.tree.map(np.copy, PARAMS), GUARD, with_ema=False)
    state = begin_stage(state, optimizer, mask, Joining(platform, DISTANCES))
    apply = jax.jit(lambda state, gradients: apply_gradients(state, 1.0, gradients, optimizer, GUARD, None)[0])
    whole = reference(name, mask)
    whole_state, update = whole.init(full), jax.jit(whole.update)
    for step in range(3):
        gradients = gradients_of(step)
        state = apply(state, state.packed.packing.pack({path: gradients[path] for path in learning(mask)}))
        updates, whole_state = update(gradients, whole_state, full)
        full = optax.apply_updates(full, updates)
    for path, value in leaves_by_path(state.params).items():
        # Lion moves by the rate alone, and a sum of another order may turn a sign.
        np.testing.assert_allclose(value, full[path], rtol=1e-5, atol=1e-6, err_msg=path)
        moved = leaves_by_path(PARAMS)[path] != np.asarray(value)
        assert moved.mean() > 0.9 if path in learning(mask) else not moved.any(), path


def learning(mask):
    return [path for path, trains in leaves_by_path(mask).items() if trains]


@pytest.mark.parametrize("platform", ["cpu", "tpu", "gpu"])
def test_only_parameters_of_one_rate_are_joined_and_without_a_decay_all_are(platform):
    packing = PackedParams.of(PARAMS, ALL, Joining(platform, DISTANCES)).packing
    for name, members in packing.groups:
        assert len({DISTANCES[path] for path, _ in members}) == 1, name
    before = [name for name, _ in PackedParams.of(PARAMS, ALL, Joining("gpu")).packing.groups]
    assert before == ["float32/rest", "float32/kernel"]


def test_a_checkpoint_knows_nothing_of_the_groups():
    optimizer = optimizer_of("adamw")
    state = create_state(jax.tree.map(np.copy, PARAMS), GUARD, with_ema=True)
    state = begin_stage(state, optimizer, LAST, Joining("gpu", DISTANCES))
    trees = jax.device_get(state.to_trees())
    assert set(trees["optimizer"][1].mu) == set(learning(LAST))
    after = TrainState.from_trees(trees, state.guard.skipped_steps, LAST, Joining("gpu", DISTANCES))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), jax.device_get(state))
