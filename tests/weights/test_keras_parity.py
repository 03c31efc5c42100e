"""Keras applications on the JAX backend: both kinds of Keras 3's files load, and the port computes the same."""

import os
import re

import jax
import numpy as np
import pytest

from bloodcell_jax.models import create_model
from bloodcell_jax.weights import load_weights, read_weights_info
from bloodcell_jax.weights.info import IMAGENET_MEAN, IMAGENET_STD

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
CLASSES = 10
NAMES = {"convnext_tiny": "ConvNeXtTiny", "convnext_base": "ConvNeXtBase"}


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras", reason="Keras is not installed (extra `peers`)")


def randomize(network):
    generator = np.random.default_rng(0)
    for weight in network.weights:
        noise = generator.standard_normal(weight.shape)
        if noise.ndim == 1:
            weight.assign(0.2 * noise + (0.1 if weight.name in ("bias", "beta") else 0.5))
        else:
            weight.assign(noise / np.prod(noise.shape[:-1]) ** 0.5)
    return network


def blocks_of(network, depths):
    """Return (stage, block) -> its symbolic (input, output); a block's output is the input of the next layer."""
    name = network.name
    inputs = {}
    for s, depth in enumerate(depths):
        layers = [f"{name}_stage_{s}_block_{b}_depthwise_conv" for b in range(depth)]
        following = f"{name}_downsampling_block_{s}" if s < 3 else f"{name}_head_gap"
        inputs |= {(s, b): network.get_layer(layer).input for b, layer in enumerate([*layers, following])}
    return {(s, b): (inputs[s, b], inputs[s, b + 1]) for s, depth in enumerate(depths) for b in range(depth)}


@pytest.mark.parametrize("save", ["save", "save_weights"])
@pytest.mark.parametrize(("variant", "size"), [(variant, size) for variant in NAMES for size in (96, 224)])
def test_logits_and_blocks(variant, size, save, keras, assert_blocks_agree, assert_close, tmp_path):
    build = getattr(keras.applications, NAMES[variant])
    peer = randomize(build(weights=None, classes=CLASSES, classifier_activation=None, input_shape=(size, size, 3)))
    path = tmp_path / ("model.h5" if save == "save" else "model.weights.h5")
    getattr(peer, save)(path)
    assert read_weights_info(path, variant).variant == variant
    model = create_model(variant, CLASSES)
    # Keras' network takes pixels of 0 to 255 and normalizes them itself.
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.float32)
    expected, passed = keras.Model(peer.input, (peer.output, blocks_of(peer, model.variant.depths)))(pixels)
    images = ((pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32)
    params = load_weights(path, model)
    logits, _ = jax.jit(model.apply)({"params": params}, images)
    assert_close(logits, expected)
    assert_blocks_agree(model, params, passed)


@pytest.mark.parametrize("save", ["save", "save_weights"])
def test_without_the_top(save, keras, tmp_path, caplog):
    peer = keras.applications.ConvNeXtTiny(weights=None, include_top=False)
    path = tmp_path / ("model.h5" if save == "save" else "model.weights.h5")
    getattr(peer, save)(path)
    load_weights(path, create_model("convnext_tiny", CLASSES))
    assert re.search(rf"{path.name}: .*final norm .*never trained", caplog.text)
    assert re.search(rf"{path.name}: the head .*\b{CLASSES} classes", caplog.text)
