"""A stage on cached features: they are the backbone's own, and training on them is training on their pictures."""

import os
import re
import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from bloodcell_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.errors import StoppedError, UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.flops import forward_flops
from bloodcell_jax.train.checkpoints import Checkpoints
from bloodcell_jax.train.feature_cache import FeatureCache, check_trainable
from bloodcell_jax.train.feed import open_batches, place_data
from bloodcell_jax.train.job import train_and_evaluate
from bloodcell_jax.train.parallel import AXIS, DataParallel
from bloodcell_jax.train.prepare import prepare_run
from bloodcell_jax.train.progress import Progress
from bloodcell_jax.train.step import normalise, training_batch
from bloodcell_jax.workdir import read_metrics

HEAD = ("head/.*", "head_norm/.*", "!.*")
ADAMW = OptimizerConfig(name="adamw", learning_rate=1e-2, schedule="constant")
# Draws for each picture, and deals the pictures of a block out.
POLICY = "d4|cutout:p=0.5"


def config_of(cells, *, views=2, policy=POLICY, drop_path=0.3):
    """Return a configuration whose first stage, 12 steps of 16 in epochs of 84 examples, trains the head."""
    return Config(
        seed=5,
        data=DataConfig(source=f"npz:{cells}", image_size=32),
        model=ModelConfig(variant="test_convnext2", dtype="float32", drop_path=drop_path, layer_scale=0.5),
        augment=AugmentConfig(policy=policy, block=2),
        stages=[
            StageConfig(name="head", steps=12, trainable=HEAD, cached_views=views, optimizer=ADAMW),
            StageConfig(name="last-stage", steps=2, trainable=("stage_3/.*", *HEAD), optimizer=ADAMW),
        ],
        train=TrainConfig(batch_size=16, label_smoothing=0.1, log_every=1, evaluate_every=100, checkpoint_every=4),
        evaluate=EvaluateConfig(batch_size=32),
    )


def features_of(run, cache):
    return cache.compute(run, run.parallel.global_view(run.initial_state().params), run.dataset.images)


def trained_on(run, steps=8):
    """Return the losses of the first steps, and the parameters after them."""
    stage, state, seed, losses = run.stages[0], run.initial_state(), run.place_seed(), []
    data = place_data(run)
    if stage.config.cached_views is not None:
        data = run.parallel.place_state({"features": features_of(run, FeatureCache.of_stage(run, stage))})
    with open_batches(run, 0) as batches:
        batch = next(batches)
        step = run.parallel.compile_step(run.train_step(stage), state, data, batch, seed)
        for _ in range(steps):
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, data, batch, seed)
            losses.append(float(jax.block_until_ready(metrics)["train/loss"]))
            batch = next(batches)
    return losses, flatten_dict(jax.device_get(state.params), sep="/")


@pytest.fixture(scope="module")
def run(cells):
    return prepare_run(config_of(cells))


@pytest.fixture(scope="module")
def cache(run):
    return FeatureCache.of_stage(run, run.stages[0])


@pytest.fixture(scope="module")
def features(run, cache):
    return features_of(run, cache)


def test_cached_features_are_those_of_the_pictures_that_training_would_show(run, cache, features):
    np.testing.assert_array_equal(cache.examples, run.splits["train"])
    assert features.shape == (2 * 84, run.model.feature_width)
    slots = jnp.arange(84)
    data = {"images": run.dataset.images, "labels": run.dataset.labels}
    params = jax.device_get(run.initial_state().params)

    @jax.jit
    def maps(view):
        pictures, _, keys = training_batch(
            data,
            {"indices": cache.examples, "slots": slots},
            jnp.uint32(5),
            view,
            augmentation=run.augmentation,
            num_classes=3,
            label_smoothing=0.0,
        )
        pictures = normalise(pictures, run.config.model.mean, run.config.model.std)
        return run.model.apply({"params": params}, pictures, train=True, keys=keys)[1]["stage_3"]

    for view in (0, 1):
        expected = np.asarray(maps(view)).mean((1, 2))
        np.testing.assert_allclose(features[view * 84 :][:84], expected, rtol=1e-4, atol=1e-5)
    assert abs(features[:84] - features[84:]).max() > 0.1, "views differ"


def test_epochs_show_the_views_in_turn(run, cache):
    # 84 examples in batches of 16: step 5 shows the last 4 of epoch 0 and the first 12 of epoch 1.
    for step, views in ((0, [0] * 16), (5, [0] * 4 + [1] * 12), (6, [1] * 16), (11, [0] * 16)):
        rows = np.asarray(cache.batch(run, step)["rows"]).reshape(-1)
        np.testing.assert_array_equal(rows // 84, views)
        np.testing.assert_array_equal(cache.examples[rows % 84], run.plan_batch(step)["indices"])
    short = prepare_run(config_of(run.config.data.source.removeprefix("npz:"), views=9))
    assert FeatureCache.of_stage(short, short.stages[0]).views == 3, "no more than epochs that show them"


def test_features_and_training_are_the_same_on_any_devices_and_backend(run, cache, features):
    assert run.parallel.mesh.size == 8
    alone = replace(run, parallel=DataParallel("jit", Mesh(np.array(jax.devices()[:1]), (AXIS,))))
    np.testing.assert_allclose(features_of(alone, cache), features, rtol=1e-4, atol=1e-5)
    (losses, params), (expected_losses, expected) = trained_on(alone), trained_on(run)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for path, value in expected.items():
        np.testing.assert_allclose(params[path], value, rtol=0, atol=1e-5, err_msg=path)


def test_it_trains_as_on_the_pictures_themselves(run, cells):
    cached, fresh = (
        trained_on(prepare_run(config_of(cells, views=views, policy="none", drop_path=0.0))) for views in (1, None)
    )
    np.testing.assert_allclose(cached[0], fresh[0], rtol=1e-5)
    for path, value in fresh[1].items():
        np.testing.assert_allclose(cached[1][path], value, rtol=0, atol=1e-5, err_msg=path)
    initial = flatten_dict(jax.device_get(run.initial_state().params), sep="/")
    moved = {path for path, value in initial.items() if not np.array_equal(value, cached[1][path])}
    assert moved == {"head/kernel", "head/bias", "head_norm/scale", "head_norm/bias"}


def test_its_step_holds_nothing_of_the_backbone(run, cache):
    parallel, stage = run.parallel, run.stages[0]
    data = {"features": jax.ShapeDtypeStruct(cache.shape, jnp.float32)}
    batch, seed = cache.batch(run, 0), run.place_seed()
    step = parallel.compile_step(run.train_step(stage), run.state_shapes(stage), data, batch, seed)
    assert re.findall(r" (all-[a-z]+|reduce-scatter|collective-[a-z]+|convolution)(?:-start)?\(", step.as_text()) == [
        "all-reduce"
    ]
    # Three products of the head, and what the update does to each parameter: not half a percent of a forward pass.
    assert step.cost_analysis()["flops"] < 0.005 * 2 * forward_flops(run.model, 32)


def test_streamed_pictures_give_the_same_features_and_the_same_batches(run, cache, features, cells, tmp_path):
    names = ("red", "green", "blue")
    prepare(load_source(f"npz:{cells}", image_size=32, class_names=names), tmp_path, "cells")
    config = config_of(cells)
    config.data = replace(
        config.data, source="tfds:blood_cells/cells", data_dir=str(tmp_path), feed="streaming", workers=0
    )
    streamed = prepare_run(config)
    assert streamed.streams
    np.testing.assert_array_equal(features_of(streamed, cache), features)
    with open_batches(run, 10) as ours, open_batches(streamed, 10) as theirs:
        for step, one, other in zip(range(10, 14), ours, theirs, strict=True):
            assert set(one) == ({"rows", "labels"} if step < 12 else {"indices", "slots"})
            if step < 12:
                jax.tree.map(np.testing.assert_array_equal, one, other)
            else:
                np.testing.assert_array_equal(run.dataset.images[np.asarray(one["indices"])], other["images"])
    with open_batches(streamed, 13) as batches:
        assert len(list(batches)) == 1


def all_of(workdir, run):
    """Return what a run leaves to the bit: its log but for timings, its predictions and its last state."""
    log = [{name: value for name, value in line.items() if "perf/" not in name} for line in read_metrics(workdir)]
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    trees = checkpoints.restore(14, run.state_shapes(run.stages[-1]).to_trees(), run.parallel.replicated)
    checkpoints.close()
    return log, (workdir / "eval/val/predictions.csv").read_bytes(), jax.device_get(trees)


def test_it_goes_on_to_the_bit_and_hands_over_to_the_next_stage(run, cells, tmp_path, monkeypatch, capfd):
    config, whole, broken = config_of(cells), tmp_path / "whole", tmp_path / "broken"
    train_and_evaluate(config, whole)
    assert "stage head: features of 84 examples in 2 views, 0.1 MB\n168 of 168  " in capfd.readouterr().err

    def die(self, step):
        if step == 7:
            raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "advance", die)
        with pytest.raises(InterruptedError):
            train_and_evaluate(config, broken)
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "open_pass", lambda *_: lambda done: os.kill(os.getpid(), signal.SIGTERM))
        words = "stopped by SIGTERM while computing the features of stage head, at step 4; run the same command"
        with pytest.raises(StoppedError, match=words) as told:
            train_and_evaluate(config, broken)
    assert told.value.exit_code == 75
    train_and_evaluate(config, broken)
    (log, *rest), (log_of_broken, *rest_of_broken) = all_of(whole, run), all_of(broken, run)
    assert [line["stage"] for line in log] == ["head"] * 12 + ["last-stage"] * 2
    assert log == log_of_broken
    jax.tree.map(np.testing.assert_array_equal, rest, rest_of_broken)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda config: setattr(config.model, "variant", "custom_cnn"),
            "config.stages[0].cached_views=2: custom_cnn has no features to keep",
        ),
        (
            lambda config: setattr(config.augment, "mix", "mixup:alpha=2"),
            "config.stages[0].cached_views=2: config.augment.mix='mixup:alpha=2' mixes pictures",
        ),
        (
            lambda config: (setattr(config.augment, "policy", "augmix"), setattr(config.train, "jsd", 12.0)),
            "config.stages[0].cached_views=2: config.train.jsd=12 compares fresh views",
        ),
        (
            lambda config: setattr(config.stages[0], "cached_views", 0),
            "config.stages[0].cached_views=0: must be at least 1",
        ),
    ],
)
def test_what_cannot_be_cached_is_refused_before_the_data_are_read(change, words):
    config = config_of("nowhere/cells.npz")
    change(config)
    with pytest.raises(UsageError, match=re.escape(words)):
        prepare_run(config)


def test_a_parameter_before_the_features_is_named(cells):
    config = config_of(cells)
    config.stages[0].trainable = ("stage_3/.*", *HEAD)
    words = "config.stages[0].cached_views=2: the stage trains stage_3/block_0/depthwise/bias, without which"
    with pytest.raises(UsageError, match=re.escape(words) + ".* head/.*, head_norm/.* alone"):
        prepare_run(config)


def test_a_norm_before_the_pooling_is_not_behind_the_features(run):
    model = create_model("test_convnext2", 3, norm_before_pool=True)
    with pytest.raises(UsageError, match=r"trains head_norm/bias, .* name head/\.\* alone"):
        check_trainable(model, run.stages)
