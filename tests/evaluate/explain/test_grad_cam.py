"""Grad-CAM equals derivations that use no automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax.evaluate.explain.grad_cam import grad_cam
from bloodcell_jax.models import create_model

CLASSES = np.array([2, 0, 1, 2])


def _network(variant, **options):
    """Return a network, drawn parameters of its head, and maps of four images as its last stage might give them."""
    model, rng = create_model(variant, 3, **options), np.random.default_rng(1)
    shapes = {"head": {"kernel": (model.feature_width, 3), "bias": (3,)}}
    shapes["head_norm"] = {"scale": (model.feature_width,), "bias": (model.feature_width,)}
    draw = lambda shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    params = jax.tree.map(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    return model, params, draw((4, 3, 2, model.feature_width))


def _maps(model, params, last_map):
    return np.asarray(jax.jit(lambda *values: grad_cam(model, *values))(params, last_map, CLASSES))


def _norm(x, params, epsilon):
    centered = x - x.mean(axis=-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + epsilon)
    return scaled * params["scale"] + params["bias"]


def _logit(last_map, label, params, epsilon, *, norm_before_pool):
    """Return the logit of a class for one map [h, w, c], in float64."""
    if norm_before_pool:
        pooled = _norm(last_map, params["head_norm"], epsilon).mean(axis=(0, 1))
    else:
        pooled = _norm(last_map.mean(axis=(0, 1)), params["head_norm"], epsilon)
    return (pooled @ params["head"]["kernel"] + params["head"]["bias"])[label]


@pytest.mark.parametrize("norm_before_pool", [False, True])
def test_of_a_convnext_it_equals_finite_differences(norm_before_pool):
    model, params, maps = _network("test_convnext2", norm_before_pool=norm_before_pool, dtype=jnp.bfloat16)
    head = jax.tree.map(np.float64, {name: params[name] for name in ("head", "head_norm")})
    expected = []
    for last_map, label in zip(maps.astype(np.float64), CLASSES, strict=True):
        weights = np.zeros(maps.shape[-1])
        for channel in range(len(weights)):
            # All positions move together: the sum of the channel's gradients.
            change = 1e-5 * np.eye(len(weights))[channel]
            up, down = (
                _logit(last_map + sign * change, label, head, 1e-5, norm_before_pool=norm_before_pool)
                for sign in (1, -1)
            )
            weights[channel] = (up - down) / 2e-5 / last_map[..., 0].size
        expected.append(last_map @ weights)
    np.testing.assert_allclose(_maps(model, params, maps), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_of_a_network_with_a_linear_head_it_is_the_class_activation_map():
    model, params, maps = _network("custom_cnn")
    kernel = np.asarray(params["head"]["kernel"], np.float64)
    # B. Zhou et al., Learning deep features for discriminative localization, CVPR 2016, eq. 2, over the positions.
    expected = np.stack([m @ kernel[:, k] for m, k in zip(maps, CLASSES, strict=True)]) / 6
    np.testing.assert_allclose(_maps(model, params, maps), expected, rtol=1e-4, atol=1e-4)


def test_a_norm_after_the_mean_leaves_a_contrast_between_positions():
    model, params, maps = _network("test_convnext2")
    values = _maps(model, params, maps)
    np.testing.assert_allclose(values.sum(axis=(1, 2)), 0, atol=1e-3 * np.abs(values).max())
    assert (np.abs(values).max(axis=(1, 2)) > 0.01).all()
