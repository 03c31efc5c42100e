"""One convention for every operation of the public API, and one declaration of each."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax import augment
from bloodcell_jax.augment.operations import IMAGE_OPERATIONS, MIXES
from bloodcell_jax.errors import UsageError

NOT_OPERATIONS = {"Policy", "affine_matrix", "apply_mix", "apply_policy", "apply_views", "parse_mix", "parse_policy"}
NOT_OPERATIONS |= {"from_keras_factor"}
PUBLIC = {name: getattr(augment, name) for name in augment.__all__ if name not in NOT_OPERATIONS}
# Functions with the arguments of an operation that no policy names.
NOT_IN_POLICIES = {"enhance_brightness", "enhance_color", "enhance_contrast", "solarize_add", "warp"}
# Arguments without a default.
NEEDED = {
    "warp": {"matrix": jnp.array([[1.0, 0.1, 0], [0, 1, -2.5]])},
    "enhance_brightness": {"factor": 1.5},
    "enhance_color": {"factor": 1.5},
    "enhance_contrast": {"factor": 1.5},
}
# In these operations a rounded value decides. bfloat16 is compared by the share of values that agree.
DISCONTINUOUS = {"autocontrast", "equalize", "posterize", "solarize", "solarize_add", "jpeg"}

rng = np.random.default_rng(0)
IMAGE = (rng.integers(0, 256, (16, 16, 3)) / 255).astype(np.float32)
FLAT = [np.full((16, 16, 3), value, np.float32) for value in (0.0, 1.0, 128 / 255)]
# One black and one white image, and thirty times the same image.
IMAGES = np.stack([IMAGE, *FLAT[:2], *[IMAGE] * 29])
KEYS = jax.random.split(jax.random.key(0), len(IMAGES))


def call(name):
    """Return `(key, image) -> image` with the operation's defaults."""
    operation, needed = PUBLIC[name], NEEDED.get(name, {})
    parameters = list(inspect.signature(operation).parameters)

    def apply(key, image):
        arguments = ([key] if parameters[0] == "key" else []) + [image]
        if "other" in parameters:
            arguments.append(image[::-1])
        result = operation(*arguments, **needed)
        return result[0] if isinstance(result, tuple) else result

    return apply


@functools.cache
def batched(name):
    return jax.jit(jax.vmap(call(name)))


@pytest.mark.parametrize("name", PUBLIC)
def test_the_signature(name):
    parameters = list(inspect.signature(PUBLIC[name]).parameters.values())
    names = [parameter.name for parameter in parameters]
    first = names.index("image")
    assert names[:first] in ([], ["key"])
    after = [parameter for parameter in parameters[first + 1 :] if parameter.name not in ("other", "matrix")]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in after)
    assert inspect.getdoc(PUBLIC[name]).split("\n")[0].endswith(".")


@pytest.mark.parametrize("name", PUBLIC)
def test_dtype_shape_range_and_the_same_draws_in_every_transformation(name):
    apply = call(name)
    found = np.asarray(batched(name)(KEYS, IMAGES))
    assert found.shape == IMAGES.shape
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    eager = np.stack([apply(key, image) for key, image in zip(KEYS[:3], jnp.asarray(IMAGES[:3]), strict=True)])
    np.testing.assert_allclose(found[:3], eager, atol=1e-5)
    jitted = jax.jit(apply)(KEYS[0], IMAGES[0])
    np.testing.assert_allclose(found[0], jitted, atol=1e-5)
    narrow = batched(name)(KEYS, jnp.asarray(IMAGES, jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    assert narrow.min() >= 0
    assert narrow.max() <= 1
    difference = abs(np.asarray(narrow, np.float32) - found)
    if name in DISCONTINUOUS:
        assert (difference < 0.01).mean() > 0.98
    else:
        # bfloat16 keeps 8 bits of the input and 8 bits of the result.
        assert difference.max() < 0.02
    gray = apply(KEYS[2], FLAT[2])
    assert np.isfinite(gray).all()


# An operation that only moves pixels takes any type.
@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - {"d4", "cutmix", "fmix"}))
def test_whole_numbers_are_refused(name):
    with pytest.raises(UsageError, match="divide images of uint8 by 255"):
        call(name)(KEYS[0], jnp.zeros((16, 16, 3), jnp.uint8))


def test_random_operations_draw_for_each_image():
    for name, operation in PUBLIC.items():
        if next(iter(inspect.signature(operation).parameters)) != "key":
            continue
        found = np.asarray(batched(name)(KEYS, IMAGES))[3:]
        different = {image.tobytes() for image in found}
        assert len(different) > (4 if name == "d4" else 12), name


def test_every_public_operation_is_in_the_table_and_every_name_of_the_table_is_public():
    table = IMAGE_OPERATIONS | MIXES
    assert len(augment.__all__) == len(set(augment.__all__))
    assert PUBLIC.keys() - NOT_IN_POLICIES == table.keys()
    for name, operation in table.items():
        assert PUBLIC[name] is operation.function
