"""The map of a split: principal components as scikit-learn's, of images drawn at random."""

import importlib.util

import numpy as np
import pytest
from sklearn.decomposition import PCA

from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.evaluator import Outputs
from bloodcell_jax.evaluate.explain.embedding_map import (
    MOST_POINTS,
    EmbeddingSample,
    check_method,
    embedding_map,
    principal_components,
)


def test_principal_components_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)) + rng.normal(size=12)
    coordinates, shares = principal_components(features)
    peer = PCA(2, svd_solver="full").fit(features)
    axes = peer.components_
    axes = axes * np.sign(axes[[0, 1], np.abs(axes).argmax(axis=1)])[:, None]
    np.testing.assert_allclose(coordinates, (features - peer.mean_) @ axes.T, atol=1e-9)
    np.testing.assert_allclose(shares, peer.explained_variance_ratio_)


def test_the_side_of_an_axis_does_not_depend_on_the_images():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 1)) * np.array([3.0, 1.0, -0.5]) + 0.01 * rng.normal(size=(200, 3))
    some, _ = principal_components(features)
    others, _ = principal_components(features[::-1][:150])
    assert np.corrcoef(some[:, 0], features[:, 0])[0, 1] > 0.99
    assert np.corrcoef(others[:, 0], features[::-1][:150, 0])[0, 1] > 0.99


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_images_have_a_map_too(count):
    record = embedding_map(np.eye(3, dtype=np.float32)[:count])
    assert len(record["x"]) == len(record["y"]) == count
    assert record["shares"][0] == pytest.approx((0, 1, 0.5)[count - 1], abs=1e-5)


def test_features_are_scaled_to_length_1():
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    assert embedding_map(features)["x"] == pytest.approx(embedding_map(7 * features)["x"], abs=1e-4)


@pytest.mark.parametrize(("count", "kept"), [(3, 3), (MOST_POINTS + 500, MOST_POINTS)])
def test_a_sample_keeps_the_rows_of_its_places(count, kept):
    pooled = np.arange(count, dtype=np.float32)[:, None]
    sample, nothing = EmbeddingSample(count), np.zeros((count, 0), np.float32)
    batches = [Outputs(nothing[i : i + 256], pooled[i : i + 256], nothing[i : i + 256]) for i in range(0, count, 256)]
    passed = list(sample.watch(batches))
    assert all(one is other for one, other in zip(passed, batches, strict=True))
    assert len(np.unique(sample.places)) == kept
    assert sample.pooled[:, 0].tolist() == sample.places.tolist()


def test_a_method_that_is_not_there_is_refused_before_anything_runs():
    with pytest.raises(UsageError, match=r"--embedding_map=tsne: .*pca, umap"):
        check_method("tsne")
    if importlib.util.find_spec("umap") is None:
        with pytest.raises(UsageError, match=r"umap-learn.*bloodcell_jax\[umap\]"):
            check_method("umap")


def test_umap_keeps_clusters_apart():
    pytest.importorskip("umap", reason="needs the extra [umap]")
    centers = np.repeat(np.eye(4, 16), 30, axis=0)
    features = (centers + 0.05 * np.random.default_rng(0).normal(size=centers.shape)).astype(np.float32)
    record = embedding_map(features, "umap")
    assert record["shares"] is None
    points = np.array([record["x"], record["y"]]).T.reshape(4, 30, 2)
    spread = np.linalg.norm(points - points.mean(axis=1, keepdims=True), axis=-1).max()
    apart = np.linalg.norm(points.mean(axis=1)[:, None] - points.mean(axis=1), axis=-1)[~np.eye(4, dtype=bool)].min()
    assert spread < apart
    assert embedding_map(features, "umap") == record
