"""Mixed images: the mass of the label equals the mass of the pixels, and partners stay in their block."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bloodcell_jax import augment
from bloodcell_jax.augment.mixing import _low_pass_spectrum, _wrong_axis_spectrum
from bloodcell_jax.errors import UsageError

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 1000)
WHITE, BLACK = jnp.ones((24, 20, 1)), jnp.zeros((24, 20, 1))


@functools.partial(jax.jit, static_argnames=("operation", "compat"))
def mix_all(operation, alpha, **options):
    return jax.vmap(lambda key: operation(key, WHITE, BLACK, alpha=alpha, **options))(KEYS)


@functools.cache
def mixed(operation, alpha=1.0, **options):
    """Return what white mixed with black comes to, and the shares."""
    return jax.device_get(mix_all(operation, alpha, **options))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("operation", [augment.mixup, augment.cutmix, augment.fmix], ids=["mixup", "cutmix", "fmix"])
def test_the_mass_of_the_label_is_the_mass_of_the_pixels(operation, alpha):
    images, shares = mixed(operation, alpha=alpha)
    np.testing.assert_allclose(images.mean((1, 2, 3)), shares, atol=2e-6)
    assert shares.min() >= 0
    assert shares.max() <= 1
    if operation is not augment.cutmix:
        # Beta(alpha, alpha): mean 1/2, variance 1 / (8 alpha + 4).
        assert abs(shares.mean() - 0.5) < 0.05
        assert abs(shares.var() * (8 * alpha + 4) - 1) < 0.15


def test_cutmix_pastes_one_box_of_whole_pixels():
    images, shares = mixed(augment.cutmix)
    for image in images[:200]:
        pasted = image[..., 0] == 0
        rows, columns = pasted.any(1), pasted.any(0)
        np.testing.assert_array_equal(pasted, rows[:, None] & columns)
        assert (np.diff(np.flatnonzero(rows)) == 1).all()
    # If lambda is uniform and the center lies anywhere, the mean of the pasted part is 0.32 and the mean drawn is 0.5.
    assert 0.28 < 1 - shares.mean() < 0.36
    claimed = mixed(augment.cutmix, compat="kerascv")[1]
    assert abs(claimed.mean() - 0.5) < 0.03


def test_a_spectrum_has_both_directions_and_kerascv_s_has_not():
    def energy(draw):
        spectrum = np.asarray(draw(KEY, (32, 24), 3.0))
        noise = np.fft.irfft2(spectrum, (32, 24))
        power = abs(np.fft.rfft2(noise)) ** 2
        return power[:, 2:].sum() / power.sum()

    assert energy(_low_pass_spectrum) > 0.005
    assert energy(_wrong_axis_spectrum) < 1e-9


def test_low_pass_amplitudes_fall_with_frequency():
    drawn = abs(np.asarray(jax.jit(jax.vmap(lambda key: _low_pass_spectrum(key, (32, 32), 3.0)))(KEYS[:300])))
    mean = (drawn**2).mean(0) ** 0.5 / 2**0.5
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32))
    np.testing.assert_allclose(mean, np.maximum(frequency, 1 / 32) ** -3.0, rtol=0.25)


def test_fmix_masks_are_smooth_and_cut_at_the_share():
    images, shares = mixed(augment.fmix)
    middle = abs(shares - 0.5) < 0.2
    edges = abs(np.diff(images[middle, :, :, 0], axis=1)).sum(1).mean()
    assert edges < 4, "few borders cross a column"
    flat = jnp.stack([jnp.zeros((4, 4, 3)), jnp.ones((4, 4, 3))])
    assert np.isfinite(jax.jit(jax.vmap(lambda image: augment.fmix(KEY, image, image)[0]))(flat)).all()


SLOTS = jnp.arange(64, dtype=jnp.int32)
LABELS = np.arange(64)
TARGETS = jnp.asarray(np.eye(64)[LABELS], jnp.float32)
# Each image is its own slot.
IMAGES = jnp.broadcast_to(jnp.arange(64.0)[:, None, None, None] / 64, (64, 4, 4, 3))


@functools.partial(jax.jit, static_argnames="mix")
def apply_to_all(mix, key):
    return augment.apply_mix(mix, key, SLOTS, IMAGES, TARGETS, block=16)


def apply(text, key=KEY):
    return jax.device_get(apply_to_all(augment.parse_mix(text), key))


def test_each_image_is_mixed_with_another_of_its_block_and_so_is_its_target():
    images, targets = apply("mixup:alpha=2")
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(images[:, 0, 0, 0], targets @ (LABELS / 64), atol=1e-5)
    partners = []
    for slot, target in enumerate(targets):
        (others,) = np.nonzero(np.delete(target, slot))
        assert len(others) == 1
        partners.append(others[0] + (others[0] >= slot))
        assert partners[-1] // 16 == slot // 16
    assert sorted(partners) == list(range(64)), "each is a partner once"
    assert not np.array_equal(apply("mixup:alpha=2", jax.random.key(1))[1], targets)


def test_of_several_each_image_gets_one_and_p_is_the_share():
    images, targets = apply("mixup:alpha=5,p=0.25|cutmix:p=0.5")
    flat = np.ptp(images, axis=(1, 2, 3)) < 1e-6
    alone = targets.max(1) > 1 - 1e-6
    np.testing.assert_allclose(images.mean((1, 2, 3)), targets @ (LABELS / 64), atol=1e-5)
    assert (flat & ~alone).sum() == 16, "a quarter of each block of 16"
    assert (~flat).sum() + (flat & alone).sum() == 48
    assert apply("none")[0] is not None
    np.testing.assert_array_equal(apply("none")[1], TARGETS)


def test_mistakes_are_named():
    with pytest.raises(UsageError, match=r"mixup:p=0\.7\|cutmix:p=0\.7.* 1\.4"):
        augment.parse_mix("mixup:p=0.7|cutmix:p=0.7")
    with pytest.raises(UsageError, match=r"'d4'.*mixup, cutmix, fmix"):
        augment.parse_mix("d4")
    with pytest.raises(UsageError, match=r"fmix.*compat=keras .*none, kerascv"):
        augment.parse_mix("fmix:compat=keras")
