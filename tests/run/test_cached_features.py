"""A stage on cached features: they are the backbone's own, and training on them is training on their images."""

import contextlib
import functools
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
from bloodcell_jax.data.resident_images import ResidentImages
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.data.tfds_sets import prepare
from bloodcell_jax.devices.parallel import AXIS, DataParallel
from bloodcell_jax.errors import StoppedError, UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.flops import forward_flops
from bloodcell_jax.models.input import normalize
from bloodcell_jax.models.registry import MODELS, create_convnext
from bloodcell_jax.models.variants import Variant
from bloodcell_jax.run.cached_features import FeatureCache, check_trainable
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.watch.progress import Progress
from bloodcell_jax.train.step import training_batch
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints

HEAD = ("head/.*", "head_norm/.*", "!.*")
ADAMW = OptimizerConfig(name="adamw", learning_rate=1e-2, schedule="constant")
# Two blocks and small kernels: what is compiled grows with the number of parameters and the side of a kernel.
SHORT = Variant((1, 0, 0, 1), (16, 16, 32, 128), layer_scale=0.5, kernel_sizes=(3, 3, 3, 3))
# Draws for each image, and deals the images of a block out.
POLICY = "d4|cutout:p=0.5"


def config_of(cells, *, views=2, policy=POLICY, drop_path=0.3):
    """Return a configuration whose first stage, 12 steps of 16 in epochs of 84 examples, trains the head."""
    return Config(
        seed=5,
        data=DataConfig(source=f"npz:{cells}", image_size=32),
        model=ModelConfig(variant="short", dtype="float32", drop_path=drop_path),
        augment=AugmentConfig(policy=policy, block=2),
        stages=[
            StageConfig(name="head", steps=12, trainable=HEAD, cached_views=views, optimizer=ADAMW),
            StageConfig(name="last-stage", steps=2, trainable=("stage_3/.*", *HEAD), optimizer=ADAMW),
        ],
        train=TrainConfig(batch_size=16, label_smoothing=0.1, log_every=1, evaluate_every=100, checkpoint_every=4),
        evaluate=EvaluateConfig(batch_size=32, explain=0),
    )


def features_of(run, cache):
    return cache.compute(run, run.parallel.global_view(run.initial_state().params), run.dataset.images)


@pytest.fixture(scope="module", autouse=True)
def short():
    """Have a network of two blocks that a configuration can name."""
    with pytest.MonkeyPatch.context() as patched:
        build = functools.partial(create_convnext, SHORT)
        patched.setitem(MODELS, "short", replace(MODELS["test_convnext2"], create=build))
        yield


@pytest.fixture(scope="module")
def trained_on(run_steps):
    """Return a function that gives the losses of the first steps of a run, and the parameters after them."""

    def trained_on(run, steps=8):
        metrics, state = run_steps(run, steps)
        return [float(values["train/loss"]) for values in metrics], flatten_dict(state.params, sep="/")

    return trained_on


def batches_of(run, stage_number, first_step):
    stage_input = RunInputs(run).of_stage(run.stages[stage_number])
    return stage_input.open_batches(first_step)


@pytest.fixture(scope="module")
def run(cells):
    return create_run(config_of(cells))


@pytest.fixture(scope="module")
def cache(run):
    return FeatureCache.of_stage(run, run.stages[0])


@pytest.fixture(scope="module")
def features(run, cache):
    return features_of(run, cache)


def test_cached_features_are_those_of_the_images_that_training_would_show(run, cache, features):
    np.testing.assert_array_equal(cache.examples, run.splits["train"])
    assert features.shape == (2 * 84, run.model.feature_width)
    slots = jnp.arange(84)
    data = {"images": ResidentImages.of(run.dataset.images), "labels": run.dataset.labels}
    params = jax.device_get(run.initial_state().params)

    @jax.jit
    def maps(view):
        images, _, keys = training_batch(
            data,
            {"indices": cache.examples, "slots": slots},
            jnp.uint32(5),
            view,
            image_size=run.config.data.image_size,
            augmentation=run.augmentation,
            num_classes=3,
            label_smoothing=0.0,
        )
        images = normalize(images, run.config.model.mean, run.config.model.std)
        return run.model.apply({"params": params}, images, train=True, keys=keys)[1]["stage_3"]

    for view in (0, 1):
        expected = np.asarray(maps(view)).mean((1, 2))
        np.testing.assert_allclose(features[view * 84 :][:84], expected, rtol=1e-4, atol=1e-5)
    assert abs(features[:84] - features[84:]).max() > 0.1, "views differ"


def test_epochs_show_the_views_in_turn(run, cache):
    # 84 examples in batches of 16: step 5 shows the last 4 of epoch 0 and the first 12 of epoch 1.
    for step, views in ((0, [0] * 16), (5, [0] * 4 + [1] * 12), (6, [1] * 16), (11, [0] * 16)):
        with batches_of(run, 0, step) as batches:
            rows = np.asarray(next(batches)["rows"]).reshape(-1)
        np.testing.assert_array_equal(rows // 84, views)
        np.testing.assert_array_equal(cache.examples[rows % 84], run.plan_batch(step)["indices"])
    short = create_run(config_of(run.config.data.source.removeprefix("npz:"), views=9))
    assert FeatureCache.of_stage(short, short.stages[0]).views == 3, "no more than epochs that show them"


def test_features_and_training_are_the_same_on_any_devices_and_backend(run, cache, features, trained_on):
    assert run.parallel.mesh.size == 8
    alone = replace(run, parallel=DataParallel("jit", Mesh(np.array(jax.devices()[:1]), (AXIS,))))
    np.testing.assert_allclose(features_of(alone, cache), features, rtol=1e-4, atol=1e-5)
    (losses, params), (expected_losses, expected) = trained_on(alone), trained_on(run)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for path, value in expected.items():
        np.testing.assert_allclose(params[path], value, rtol=0, atol=1e-5, err_msg=path)


def test_it_trains_as_on_the_images_themselves(run, cells, trained_on):
    cached, fresh = (
        trained_on(create_run(config_of(cells, views=views, policy="none", drop_path=0.0))) for views in (1, None)
    )
    np.testing.assert_allclose(cached[0], fresh[0], rtol=1e-5)
    for path, value in fresh[1].items():
        np.testing.assert_allclose(cached[1][path], value, rtol=0, atol=1e-5, err_msg=path)
    initial = flatten_dict(jax.device_get(run.initial_state().params), sep="/")
    moved = {path for path, value in initial.items() if not np.array_equal(value, cached[1][path])}
    assert moved == {"head/kernel", "head/bias", "head_norm/scale", "head_norm/bias"}


def test_its_step_holds_nothing_of_the_backbone(run):
    stage = run.stages[0]
    step = compile_stage(run, stage, RunInputs(run).of_stage(stage))
    assert re.findall(r" (all-[a-z]+|reduce-scatter|collective-[a-z]+|convolution)(?:-start)?\(", step.as_text()) == [
        "all-reduce"
    ]
    # Three products of the head, and what the update does to each parameter: little against a forward pass of a network
    # that is as small as this one.
    assert step.cost_analysis()["flops"] < 0.03 * 2 * forward_flops(run.model, 32)


def test_streamed_images_give_the_same_features_and_the_same_batches(run, cache, features, cells, tmp_path):
    names = ("red", "green", "blue")
    prepare(load_source(f"npz:{cells}", image_size=32, class_names=names), tmp_path, "cells")
    config = config_of(cells)
    config.data = replace(
        config.data, source="tfds:blood_cells/cells", data_dir=str(tmp_path), feed="streaming", workers=0
    )
    streamed = create_run(config)
    assert streamed.streams
    np.testing.assert_array_equal(features_of(streamed, cache), features)
    with batches_of(run, 0, 10) as ours, batches_of(streamed, 0, 10) as theirs:
        for one, other in zip(ours, theirs, strict=True):
            assert set(one) == {"rows", "labels", "slots"}
            jax.tree.map(np.testing.assert_array_equal, one, other)
    with batches_of(run, 1, 12) as ours, batches_of(streamed, 1, 12) as theirs:
        for one, other in zip(ours, theirs, strict=True):
            assert set(one) == {"indices", "slots"}
            np.testing.assert_array_equal(run.dataset.images[np.asarray(one["indices"])], other["images"])
    with batches_of(streamed, 1, 13) as batches:
        assert len(list(batches)) == 1


def all_of(workdir, run):
    """Return what training leaves to the bit: its log but for timings, and its last state."""
    log = [
        {name: value for name, value in line.items() if "perf/" not in name} for line in Workdir(workdir).read_metrics()
    ]
    with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        trees = checkpoints.restore(14, run.tree_shapes(run.stages[-1]))
    return log, jax.device_get(trees)


def test_it_goes_on_to_the_bit_and_hands_over_to_the_next_stage(run, train_loop, tmp_path, monkeypatch, capfd):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_loop(run, whole)
    assert "stage head: features of 84 examples in 2 views, 0.1 MB\n168 of 168  " in capfd.readouterr().err

    def die(self, step):
        if step == 7:
            raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "advance", die)
        with pytest.raises(InterruptedError):
            train_loop(run, broken)
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "open_pass", lambda *_: lambda done, total: os.kill(os.getpid(), signal.SIGTERM))
        words = "stopped by SIGTERM at step 4, in the features of stage head; run the same command"
        with pytest.raises(StoppedError, match=words) as told:
            train_loop(run, broken)
    assert told.value.exit_code == 75
    train_loop(run, broken)
    (log, state), (log_of_broken, state_of_broken) = all_of(whole, run), all_of(broken, run)
    assert [line["stage"] for line in log] == ["head"] * 12 + ["last-stage"] * 2
    assert log == log_of_broken
    jax.tree.map(np.testing.assert_array_equal, state, state_of_broken)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda config: setattr(config.augment, "mix", "mixup:alpha=2"),
            "config.stages[0].cached_views=2: config.augment.mix='mixup:alpha=2' mixes images",
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
        create_run(config)


def test_a_parameter_before_the_features_is_named(cells):
    config = config_of(cells)
    config.stages[0].trainable = ("stage_3/.*", *HEAD)
    words = "config.stages[0].cached_views=2: the stage trains stage_3/block_0/depthwise/bias, without which"
    with pytest.raises(UsageError, match=re.escape(words) + ".* head/.*, head_norm/.* alone"):
        create_run(config)


def test_a_norm_before_the_pooling_is_not_behind_the_features(run):
    model = create_model("short", 3, norm_before_pool=True)
    with pytest.raises(UsageError, match=r"trains head_norm/bias, .* name head/\.\* alone"):
        check_trainable(model, run.stages)
