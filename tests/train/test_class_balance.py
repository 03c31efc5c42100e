"""Class weights and logit adjustment: the published formulas, and predictions under the prior that was asked for."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
    validate,
)
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.input import normalize
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.train.class_balance import class_weights, logit_offset
from bloodcell_jax.train.losses import weighted_cross_entropy
from bloodcell_jax.train.step import training_batch

COUNTS = np.array([5000, 100, 20])
NATURAL = COUNTS / COUNTS.sum()
EVEN = np.full(3, 1 / 3)


@pytest.mark.parametrize("mix", [NATURAL, EVEN])
def test_weights_are_those_of_the_papers_with_mean_one_over_the_mix(mix):
    inverse = class_weights("inverse", COUNTS, mix)
    effective = class_weights("effective", COUNTS, mix, beta=0.999)
    for weights in (inverse, effective):
        assert weights @ mix == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(inverse / inverse[0], [1, 50, 250], rtol=1e-5)
    # Effective numbers by their definition as a geometric series, Cui et al., proposition 1.
    numbers = [sum(0.999**k for k in range(n)) for n in COUNTS]
    np.testing.assert_allclose(effective / effective[0], numbers[0] / np.array(numbers), rtol=1e-4)
    np.testing.assert_allclose(class_weights("effective", COUNTS, mix, beta=0.0), 1, rtol=1e-6)
    assert class_weights("none", COUNTS, mix) is None


def test_the_weighted_loss_is_pytorch_s():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 3, 40)
    weights = np.float32([0.5, 1.0, 3.0])
    smoothed = np.eye(3, dtype=np.float32)[labels] * 0.9 + 0.1 / 3
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(weights), label_smoothing=0.1, reduction="none"
    )
    np.testing.assert_allclose(weighted_cross_entropy(logits, smoothed, weights), expected.numpy(), rtol=1e-5)


# P(feature | class): five values of one feature.
LIKELIHOOD = np.array([[0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.5, 0.2, 0.1, 0.1], [0.1, 0.1, 0.1, 0.3, 0.4]])


@pytest.mark.parametrize("kind", ["none", "inverse"])
@pytest.mark.parametrize(("target", "prior"), [("natural", NATURAL), ("balanced", EVEN)])
@pytest.mark.parametrize("mix", [NATURAL, EVEN, np.array([0.6, 0.3, 0.1])])
def test_what_is_learned_from_any_mix_follows_the_prior_that_was_asked_for(kind, target, prior, mix):
    weights = class_weights(kind, COUNTS, mix)
    offset = logit_offset(target, COUNTS, mix, weights)

    def loss(table):
        losses = [
            weighted_cross_entropy(table + offset, jnp.tile(jax.nn.one_hot(c, 3), (5, 1)), weights) for c in range(3)
        ]
        return sum((mix[c] * LIKELIHOOD[c] * losses[c]).sum() for c in range(3))

    # The loss is convex in the table of logits: where its gradient is 0 is the optimum.
    posterior = prior[:, None] * LIKELIHOOD
    optimum, slope = jnp.log(posterior / posterior.sum(0)).T, jax.jit(jax.grad(loss))
    np.testing.assert_allclose(slope(optimum), 0, atol=1e-6)
    shown = mix if weights is None else mix * weights
    if np.allclose(prior, shown / shown.sum()):
        np.testing.assert_allclose(offset, 0, atol=1e-6)
    else:
        assert abs(slope(optimum - offset)).max() > 1e-3


@pytest.mark.parametrize("sampler", ["natural", "balanced", "under"])
def test_a_few_labels_of_each_class_are_adjusted_to_the_frequencies_of_the_split(tmp_path, sampler):
    images = np.random.default_rng(0).integers(0, 256, (90, 16, 16, 3), dtype=np.uint8)
    labels = np.repeat(np.arange(3), (60, 20, 10))
    np.savez(tmp_path / "cells.npz", images=images, labels=labels)
    data = DataConfig(source=f"npz:{tmp_path / 'cells.npz'}", image_size=16, sampler=sampler, samples_per_class=3)
    run = create_run(
        Config(
            data=replace(data, group_duplicates=False),
            model=ModelConfig(variant="custom_cnn", dtype="float32"),
            stages=[StageConfig(steps=1)],
            train=TrainConfig(batch_size=8, logit_adjustment="natural"),
        )
    )
    counts = run.dataset.class_counts(run.splits["train"])
    assert counts[0] > 2 * counts[2]
    offset = run.plan_batch(0)["logit_offset"][0]
    np.testing.assert_allclose(offset, np.log(counts.sum() / 3 / counts), rtol=1e-5)


@pytest.mark.parametrize("loss", ["focal", "binary"])
def test_the_prior_of_another_loss_is_not_adjusted(loss):
    with pytest.raises(UsageError, match=rf"logit_adjustment=natural.*loss={loss}"):
        validate(Config(train=TrainConfig(loss=loss, logit_adjustment="natural")))


def test_the_training_step_uses_both_epoch_by_epoch(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (60, 20, 10))
    images = rng.integers(0, 256, (90, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "cells.npz", images=images, labels=labels)
    run = create_run(
        Config(
            data=DataConfig(
                source=f"npz:{tmp_path / 'cells.npz'}", image_size=16, sampler="power", sampler_power="1..0"
            ),
            model=ModelConfig(variant="custom_cnn", dtype="float32"),
            augment=AugmentConfig(policy="none"),
            stages=[
                StageConfig(
                    steps=32,
                    trainable=("head/.*", "!.*"),
                    optimizer=OptimizerConfig(name="sgd", learning_rate=1e-3),
                )
            ],
            train=TrainConfig(backend="jit", batch_size=16, class_weights="effective", logit_adjustment="natural"),
        )
    )
    # 64 training examples: 4 steps an epoch, so 8 epochs in which the mix goes from natural to balanced.
    assert (run.sampler.epoch_size, run.sampler.epochs) == (64, 8)
    counts = run.sampler.counts
    weights = class_weights("effective", counts, counts / counts.sum())
    stage, seed = run.stages[0], run.place_seed()
    stage_input = RunInputs(run).of_stage(stage)
    step = compile_stage(run, stage, stage_input)
    start = jax.device_get(run.initial_state())
    data = stage_input.place_data(start.params)

    @jax.jit
    def logits_and_targets(batch):
        inputs, targets, keys = training_batch(
            data,
            batch,
            seed,
            start.step,
            image_size=run.config.data.image_size,
            augmentation=run.augmentation,
            num_classes=3,
            label_smoothing=0.0,
        )
        inputs = normalize(inputs, run.config.model.mean, run.config.model.std)
        logits, _ = run.model.apply({"params": start.params}, inputs, train=True, keys=keys)
        return logits, targets

    for at in (0, 31):
        with stage_input.open_batches(at) as batches:
            batch = next(batches)
        # Virtual devices share their threads: what is started while they reduce can starve them.
        _, metrics = jax.block_until_ready(step(run.parallel.place_state(start), data, batch, seed))
        mix = run.sampler.quotas(at // 4) / 64
        offset = logit_offset("natural", counts, mix, weights)
        assert abs(offset).max() > 0.5
        np.testing.assert_allclose(batch["logit_offset"], np.tile(offset, (16, 1)), rtol=1e-6)
        logits, targets = logits_and_targets(batch)
        expected = -(targets * weights * jax.nn.log_softmax(logits + offset)).sum(1).mean()
        np.testing.assert_allclose(metrics["train/loss"], expected, rtol=1e-4)
