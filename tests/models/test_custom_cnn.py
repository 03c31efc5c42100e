import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bloodcell_jax.errors import UsageError
from bloodcell_jax.models import create_model
from bloodcell_jax.models.custom_cnn import _halve


def drawn(model):
    """Return variables of the model's shapes; how it initializes them takes long to compile, and is not the subject."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(1), jnp.zeros((1, 32, 32, 3))))
    spread = lambda shape: (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.3  # noqa: E731
    return jax.tree.map(
        lambda leaf: np.float32(spread(leaf.shape)) * rng.standard_normal(leaf.shape, np.float32), shapes
    )


def test_it_classifies_and_keeps_no_batch_statistics():
    model = create_model("custom_cnn", 8)
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    variables = drawn(model)
    assert list(variables) == ["params"]
    apply = jax.jit(lambda x: model.apply(variables, x))
    logits, features = apply(images)
    assert (logits.shape, logits.dtype) == ((4, 8), jnp.float32)
    assert features["pooled"].shape == (4, 256)
    # What an image gives does not depend on the others of its batch.
    np.testing.assert_allclose(apply(images[::-1])[0][::-1], logits, atol=1e-5)


def test_dropout_follows_each_example_s_key():
    model = create_model("custom_cnn", 8)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = drawn(model)
    keys = jax.random.split(jax.random.key(2), 2)
    train = jax.jit(lambda x, k: model.apply(variables, x, train=True, keys=k)[0])
    np.testing.assert_allclose(train(images[::-1], keys[::-1])[::-1], train(images, keys), atol=1e-5)
    assert abs(train(images, keys[::-1]) - train(images, keys)).max() > 1e-3


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 7, 5, 2)])
def test_a_map_is_halved_by_the_maximum_of_windows(shape):
    """As flax's max pooling does, what is cut off and the gradient included, where no two pixels are equal."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    pool = lambda x: nn.max_pool(x, (2, 2), (2, 2))  # noqa: E731
    expected, backward = jax.vjp(pool, x)
    found, ours = jax.vjp(_halve, x)
    np.testing.assert_array_equal(found, expected)
    cotangent = rng.standard_normal(expected.shape, np.float32)
    np.testing.assert_array_equal(ours(cotangent)[0], backward(cotangent)[0])


def test_equal_pixels_of_a_window_share_its_gradient():
    window = jnp.array([[3.0, 1.0], [3.0, 3.0]])[None, :, :, None]
    gradient = jax.grad(lambda x: 6 * _halve(x).sum())(window)
    np.testing.assert_allclose(gradient[0, :, :, 0], [[2, 0], [2, 2]])


def test_smaller_images_than_the_network_reduces_to_nothing_are_refused():
    """The mean over an empty map would be NaN."""
    model = create_model("custom_cnn", 8)
    init = lambda size: jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))  # noqa: E731
    init(16)
    with pytest.raises(UsageError, match=r"images of 15x15 .* to 16x16 or more"):
        init(15)
