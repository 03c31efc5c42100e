"""Each score against its formula by hand, and thresholds that hold on val by construction."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf

from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.evaluator import Outputs
from bloodcell_jax.evaluate.fit_calibration import fit_calibration
from bloodcell_jax.evaluate.out_of_distribution import (
    NEIGHBOR,
    REFERENCE_SIZE,
    REFUSED,
    appearance_distance,
    count_kept,
    energy,
    learn_reference,
    neighbor_distance,
    ood_score,
    reference_examples,
    scaled_by_val,
    scores_of,
)

CLASSES, WIDTH, DEPTH = 4, 16, 24


def outputs_of(labels, seed, shift=0.0):
    """Return outputs of images whose classes are clusters; `shift` moves them away from all training images."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(DEPTH, DEPTH))
    centers = np.random.default_rng(1).normal(0, 3, (CLASSES, WIDTH))
    pooled = centers[labels] + rng.normal(size=(len(labels), WIDTH)) + shift
    logits = pooled @ centers.T / 8
    appearance = 5 + (rng.normal(size=(len(labels), DEPTH)) + shift) @ mix
    return Outputs(*(array.astype(np.float32) for array in (logits, pooled, appearance)))


LABELS = np.arange(600) % CLASSES
TRAINING = outputs_of(LABELS, seed=2)


def test_energy_is_the_formula():
    logits = np.random.default_rng(0).normal(0, 30, (50, 8)).astype(np.float32)
    np.testing.assert_allclose(energy(logits), -logsumexp(logits.astype(np.float64), axis=1), rtol=1e-12)


def test_the_distance_to_the_kth_neighbor_is_that_of_brute_force():
    features = learn_reference(TRAINING).features
    assert features.dtype == np.float16
    pooled = outputs_of(LABELS[:40], seed=3).pooled
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - features[None].astype(np.float32), axis=2)
    np.testing.assert_allclose(neighbor_distance(pooled, features), np.sort(distances, axis=1)[:, NEIGHBOR - 1], 1e-4)
    # Length does not matter, and few training images are enough.
    np.testing.assert_allclose(neighbor_distance(7 * pooled, features), neighbor_distance(pooled, features), 1e-4)
    assert neighbor_distance(pooled, features[:2]).shape == (40,)


def test_the_distance_of_appearances_is_mahalanobis_with_a_shrunk_covariance():
    reference = learn_reference(TRAINING)
    spread = TRAINING.appearance.std(axis=0)
    covariance = LedoitWolf().fit(TRAINING.appearance / spread).covariance_ * np.outer(spread, spread)
    inverse = np.linalg.inv(covariance)
    appearance = outputs_of(LABELS[:20], seed=4, shift=1.0).appearance
    by_hand = [mahalanobis(row, TRAINING.appearance.mean(axis=0), inverse) for row in appearance]
    np.testing.assert_allclose(appearance_distance(appearance, reference), by_hand, rtol=1e-3)


def test_a_channel_that_never_moves_and_fewer_images_than_channels_do_no_harm():
    few = Outputs(*(array[:6].copy() for array in TRAINING))
    few.appearance[:, 0] = 1.0
    reference = learn_reference(few)
    assert np.isfinite(appearance_distance(outputs_of(LABELS[:5], seed=5).appearance, reference)).all()


@pytest.mark.parametrize("count", [1, 18, 99, 100, 1704])
def test_at_most_one_in_a_hundred_of_val_is_refused(count):
    reference = learn_reference(TRAINING)
    val = outputs_of(np.arange(count) % CLASSES, seed=6)
    scaled = scaled_by_val(reference, scores_of(val, reference))
    scores = scores_of(val, scaled)
    refused = ood_score(scores, scaled) > 1
    assert refused.sum() <= REFUSED * count
    if count > 100:
        assert refused.sum() >= REFUSED * count - 2
        np.testing.assert_allclose(np.median(scores, axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(np.quantile(scores, 0.99, axis=0), 1)
    far = outputs_of(LABELS[:50], seed=7, shift=8.0)
    assert (ood_score(scores_of(far, scaled), scaled) > 1).all()


def test_training_images_are_known_again_and_others_are_not_taken_for_them():
    others = outputs_of(LABELS, seed=3)
    scores = scores_of(others, learn_reference(TRAINING))
    reference = scaled_by_val(learn_reference(TRAINING), scores)
    assert count_kept(others.pooled, reference) == 0
    # Another machine or batch changes the last bits.
    shaken = TRAINING.pooled[:50] * (1 + 1e-6 * np.random.default_rng(0).normal(size=(50, WIDTH)))
    assert count_kept(np.concatenate([others.pooled, shaken]), reference) == 50
    # A network that sees all cells as one says nothing.
    assert count_kept(TRAINING.pooled, replace(reference, center=(0.0, 1e-4, 0.0))) == 0


def test_a_reference_of_another_network_is_refused():
    reference = learn_reference(TRAINING)
    for changed in (TRAINING._replace(pooled=TRAINING.pooled[:, 1:]), TRAINING._replace(appearance=TRAINING.pooled)):
        with pytest.raises(DataError, match=rf"\b{WIDTH} and {DEPTH} features"):
            scores_of(changed, reference)


def test_the_reference_is_balanced_and_a_function_of_the_seed():
    labels = np.repeat(np.arange(4), [5000, 1000, 300, 3])
    chosen = reference_examples(labels, seed=1)
    counts = np.bincount(labels[chosen])
    assert len(chosen) == len(set(chosen.tolist())) == REFERENCE_SIZE
    assert counts.tolist() == [849, 848, 300, 3]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, reference_examples(labels, seed=1))
    assert not np.array_equal(chosen, reference_examples(labels, seed=2))
    np.testing.assert_array_equal(reference_examples(labels[:30], seed=1), np.arange(30))


def test_a_calibration_is_the_same_in_any_batches():
    val, labels = outputs_of(LABELS[:200], seed=8), LABELS[:200].copy()
    labels[:20] = (labels[:20] + 1) % CLASSES

    def in_batches(outputs, size):
        count = len(outputs.logits)
        return [Outputs(*(array[i : i + size] for array in outputs)) for i in range(0, count, size)]

    one, many = (fit_calibration(in_batches(TRAINING, size), in_batches(val, size), labels) for size in (1000, 7))
    assert one.temperature == many.temperature > 1
    assert (one.examples, one.errors) == (many.examples, many.errors)
    assert one.errors >= 20
    np.testing.assert_allclose(one.reference.scale, many.reference.scale, rtol=1e-4)
    np.testing.assert_array_equal(one.reference.features, many.reference.features)
    assert one.coverage == many.coverage
    # Without an error nothing says how sure the model may be.
    assert fit_calibration([TRAINING], [val], val.logits.argmax(axis=1)).temperature == 1
