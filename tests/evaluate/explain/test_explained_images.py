"""Both maps of a trained network lie on the part of the image that gives the class, and they agree in rank."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bloodcell_jax.data.dataset import Dataset, index_ids
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.evaluator import Evaluator
from bloodcell_jax.evaluate.explain.agreement import rank_agreement
from bloodcell_jax.evaluate.explain.explained_images import explain_images, log_probability
from bloodcell_jax.evaluate.explain.occlusion import occlude
from bloodcell_jax.evaluate.explain.training_neighbors import TrainingImages, nearest_training_images
from bloodcell_jax.models import create_model
from bloodcell_jax.models.input import normalize, to_unit

SIDE, PART, CELLS, POSITIONS = 48, 8, 16, 3
SMEAR, RED_CELL = np.array([240, 225, 210]), np.array([215, 180, 170])
NUCLEI = np.array([[70, 30, 120], [120, 150, 210], [230, 120, 60]])
MEAN = STD = (0.5, 0.5, 0.5)


def _draw(count, seed, classes=4):
    """Draw smears with red cells, and one nucleus whose color is the class; returns images, labels and its middles.

    The last of four classes has no nucleus. Without it a network may learn one color as the lack of the others, and
    then no part of the image is needed for it.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    images, labels = np.empty((count, SIDE, SIDE, 3), np.uint8), rng.integers(0, classes, count)
    middles = rng.integers(10, SIDE - 10, (count, 2))
    for image, label, middle in zip(images, labels, middles, strict=True):
        canvas = SMEAR + rng.normal(0, 6, (SIDE, SIDE, 3))
        for a, b in rng.integers(0, SIDE, (4, 2)):
            canvas[np.hypot(y - a, x - b) < 8] = RED_CELL + rng.normal(0, 4, 3)
        if label < len(NUCLEI):
            canvas[np.hypot(y - middle[0], x - middle[1]) < PART] = NUCLEI[label] + rng.normal(0, 8, 3)
        image[:] = canvas.clip(0, 255)
    return images, labels, middles


def _train(model, params, images, labels, *, steps=80, batch=32):
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            logits, _ = model.apply({"params": params}, normalize(to_unit(images), MEAN, STD))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in range(steps):
        rows = rng.integers(0, len(images), batch)
        params, state = step(params, state, images[rows], labels[rows])
    return params


@pytest.fixture(scope="module")
def network():
    """Return passes through a trained network of 3 x 3 positions, and the images that it has learned from."""
    # Kernels of 1 in the later stages: a position of the last map then sees its own part of the image and little more.
    # With kernels of 3 there it sees all of this small image, and Grad-CAM need not lie where the occlusion does.
    options = {"dims": (8, 16, 24, 32), "kernel_sizes": (3, 3, 1, 1), "stem_stride": 2, "layer_scale": None}
    model = create_model("test_convnext2", 4, **options)
    params = jax.jit(lambda key: model.init(key, jnp.zeros((1, SIDE, SIDE, 3)))["params"])(jax.random.key(0))
    # ConvNeXt's small initial weights are meant for wider networks: with so few channels it learns nothing for long.
    params = jax.tree.map(lambda x: 6 * x if x.ndim > 1 else x, params)
    images, labels, _ = _draw(600, seed=0)
    params = _train(model, params, images, labels)
    evaluator = Evaluator(
        model, mean=MEAN, std=STD, batch_size=98, parallel=create_parallel("jit", 1, jax.devices()[:1])
    )
    dataset = Dataset(images, labels.astype(np.int32), ("a", "b", "c", "none"), index_ids(len(images)), "npz:x")
    return partial(evaluator.outputs_and_grad_cam, params), evaluator.batch_size, dataset


@pytest.fixture(scope="module")
def cells():
    return _draw(CELLS, seed=1, classes=len(NUCLEI))


@pytest.fixture(scope="module")
def explained(network, cells):
    forward, batch_size, _ = network
    return explain_images(forward, cells[0], np.arange(CELLS), batch_size=batch_size)


def _peaks(maps):
    """Return the middle of the highest cell of each map, in pixels [n, 2]."""
    size = SIDE / maps.shape[1]
    return np.stack([(np.array(np.unravel_index(m.argmax(), m.shape)) + 0.5) * size for m in maps])


def test_the_occlusion_map_is_highest_on_the_part_that_gives_the_class(explained, cells):
    _, labels, middles = cells
    right = explained.classes == labels
    assert right.mean() >= 0.9
    distance = np.linalg.norm(_peaks(explained.occlusion) - middles, axis=1)
    assert (distance[right] < PART + 1).mean() >= 0.9
    elsewhere = np.linalg.norm(_peaks(explained.occlusion) - np.roll(middles, 1, axis=0), axis=1)
    assert (elsewhere < PART + 1).mean() < 0.4, "a map that says the same of every image would pass"


def test_grad_cam_agrees_with_occlusion_in_rank(explained):
    assert explained.grad_cam.shape == (CELLS, POSITIONS, POSITIONS)
    rank = [rank_agreement(a, b) for a, b in zip(explained.grad_cam, explained.occlusion, strict=True)]
    others = [rank_agreement(a, b) for a, b in zip(explained.grad_cam, explained.occlusion[::-1], strict=True)]
    assert np.median(rank) > 0.7
    assert np.median(others) < 0.35, "maps of other images do not agree"


def test_a_class_may_be_named_and_its_probability_falls_as_the_map_says(network, cells, explained):
    forward, batch_size, _ = network
    wanted = (explained.classes[:1] + 1) % 4
    named = explain_images(forward, cells[0], np.arange(1), wanted, batch_size=batch_size)
    assert (named.classes == wanted).all()
    assert not np.allclose(named.grad_cam, explained.grad_cam[:1])
    # The first cell of the grid lies under the first patch alone.
    patched = occlude(cells[0][0])[:1]
    ((outputs, _),) = forward(np.concatenate([cells[0][:1], patched]), np.arange(2, dtype=np.int32), None)
    whole, covered = log_probability(outputs.logits, wanted[[0, 0]])
    assert named.occlusion[0, 0, 0] == pytest.approx(whole - covered, abs=1e-4)


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def training(network):
    forward, batch_size, dataset = network
    indices = np.arange(5, 5 + 6 * batch_size, 6)
    ((outputs, _),) = forward(dataset.images, indices, None)
    return TrainingImages(dataset, indices, _unit(outputs.pooled).astype(np.float16))


def test_the_nearest_training_images_are_those_of_least_distance(network, training, explained, cells):
    forward, _, dataset = network
    indices, features = training.indices, training.features.astype(np.float32)
    found = nearest_training_images(forward, explained.pooled, training, 3)
    distances = np.linalg.norm(_unit(explained.pooled)[:, None] - features, axis=-1)
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :3], atol=2e-3)
    places = np.searchsorted(indices, found.examples)
    np.testing.assert_allclose(np.take_along_axis(distances, places, axis=1), found.distances, atol=2e-3)
    assert (dataset.labels[found.examples[:, 0]] == cells[1]).mean() > 0.9


def test_images_that_the_features_are_not_of_are_refused(network, training, explained):
    for wrong in (training.indices[::-1], training.indices[:-1]):
        with pytest.raises(DataError, match="npz:x"):
            nearest_training_images(network[0], explained.pooled, training._replace(indices=wrong), 1)
