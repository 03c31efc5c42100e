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
# Flat images, and many times the same one.
IMAGES = np.stack([IMAGE, *FLAT, *[IMAGE] * 28])
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
def found(name):
    """Return what an operation makes of all images in float32, of all in bfloat16, and of the first alone.

    One program computes them, and the operation is compiled for each.
    """
    apply = call(name)

    @jax.jit
    def all_forms(keys, images):
        narrow = jax.vmap(apply)(keys, images.astype(jnp.bfloat16))
        return jax.vmap(apply)(keys, images), narrow, apply(keys[0], images[0])

    return all_forms(KEYS, IMAGES)


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
def test_dtype_shape_range_and_the_same_draws_for_one_image_and_many(name):
    wide, narrow, alone = map(np.asarray, found(name))
    assert wide.shape == IMAGES.shape
    assert np.isfinite(wide).all(), "flat images too"
    assert narrow.dtype == jnp.bfloat16
    for images in (wide, narrow):
        assert images.min() >= 0
        assert images.max() <= 1
    np.testing.assert_allclose(wide[0], alone, atol=1e-5)
    difference = abs(narrow.astype(np.float32) - wide)
    if name in DISCONTINUOUS:
        assert (difference < 0.01).mean() > 0.98
    else:
        # bfloat16 keeps 8 bits of the input and 8 bits of the result.
        assert difference.max() < 0.02


# One of each kind: moved pixels, a histogram, colors, noise, a mask, two images. Outside jit each step of an operation
# is a program of its own.
ONE_OF_EACH = {"affine", "equalize", "hue", "gaussian_noise", "cutout", "mixup"}


@pytest.mark.parametrize(
    "name", [n if n in ONE_OF_EACH else pytest.param(n, marks=pytest.mark.exhaustive) for n in PUBLIC]
)
def test_the_same_draws_outside_jit(name):
    eager = np.stack([call(name)(key, image) for key, image in zip(KEYS[:3], jnp.asarray(IMAGES[:3]), strict=True)])
    np.testing.assert_allclose(found(name)[0][:3], eager, atol=1e-5)


# An operation that only moves pixels takes any type.
@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - {"d4", "cutmix", "fmix"}))
def test_whole_numbers_are_refused(name):
    with pytest.raises(UsageError, match="divide images of uint8 by 255"):
        call(name)(KEYS[0], jnp.zeros((16, 16, 3), jnp.uint8))


def test_random_operations_draw_for_each_image():
    for name, operation in PUBLIC.items():
        if next(iter(inspect.signature(operation).parameters)) != "key":
            continue
        different = {image.tobytes() for image in np.asarray(found(name)[0])[4:]}
        assert len(different) > (4 if name == "d4" else 12), name


def test_every_public_operation_is_in_the_table_and_every_name_of_the_table_is_public():
    table = IMAGE_OPERATIONS | MIXES
    assert len(augment.__all__) == len(set(augment.__all__))
    assert PUBLIC.keys() - NOT_IN_POLICIES == table.keys()
    for name, operation in table.items():
        assert PUBLIC[name] is operation.function
