"""Peers to compare with, and weights that hide no mistake."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from bloodcell_jax.models.convnext import Block


@pytest.fixture(scope="session")
def randomize(torch):
    """Return a function that draws all weights of a PyTorch module, such that activations keep their scale.

    Every vector is away from its initial value, so that a tensor in the wrong place shows.
    """

    def draw(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if sum(length != 1 for length in parameter.shape) == 1:
                    ones = name.endswith(("weight", "gamma", "layer_scale", "layer_scale_parameter"))
                    parameter.copy_(0.2 * noise + (0.5 if ones else 0.1))
                else:
                    parameter.copy_(noise / parameter[0].numel() ** 0.5)
        return module.eval()

    return draw


@pytest.fixture(scope="session")
def random_images():
    """Return a function that draws random images [2, size, size, 3]."""
    return lambda size: np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def assert_close():
    """Return a function that compares with a peer to 1e-5 of the largest value."""

    def compare(ours, theirs):
        theirs = np.asarray(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())

    return compare


@pytest.fixture(scope="session")
def assert_blocks_agree(assert_close):
    """Return a function that compares each block of a model on the input that the block had in a peer.

    It takes the model, its parameters, and (stage, block) -> the peer's (input, output) [n, h, w, c].
    """

    def compare(model, params, passed):
        assert len(passed) == sum(model.variant.depths)
        for s, kernel_size in enumerate(model.variant.kernel_sizes):
            block = jax.jit(Block(model.variant, kernel_size, model.dtype, model.param_dtype).apply)
            for b in range(model.variant.depths[s]):
                inputs, output = passed[s, b]
                assert_close(block({"params": params[f"stage_{s}"][f"block_{b}"]}, inputs, None), output)

    return compare


@pytest.fixture(scope="session")
def watch_blocks():
    """Return a function that makes PyTorch blocks write place -> (input, output) [n, h, w, c] to a dict."""

    def watch(blocks):
        passed = {}

        def keep(place):
            return lambda _, inputs, output: passed.update({place: (_as_nhwc(inputs[0]), _as_nhwc(output))})

        for place, block in blocks.items():
            block.register_forward_hook(keep(place))
        return passed

    return watch


def _as_nhwc(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


@pytest.fixture(scope="session")
def random_params():
    """Return a function that draws a model's parameters as {name: array}, each away from its initial value."""

    @functools.cache
    def shapes_of(model):
        return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))["params"]

    def draw(model, seed=0):
        generator = np.random.default_rng(seed)
        params = {}
        for name, leaf in sorted(flatten_dict(shapes_of(model), sep="/").items()):
            noise = generator.standard_normal(leaf.shape, np.float32)
            if name.endswith("kernel"):
                params[name] = noise / np.float32(np.prod(leaf.shape[:-1]) ** 0.5)
            else:
                params[name] = np.float32(0.2) * noise + np.float32(0.1 if name.endswith("bias") else 0.5)
        return params

    return draw


@pytest.fixture(scope="session")
def write_keras_3():
    """Return a function that writes our {name: array} to an HDF5 file under the names of Keras 3's `save_weights`."""
    return _write_keras_3


def _write_keras_3(file, params, prefix=""):
    """Write a model; a ConvNeXt that is one layer of it has the prefix, and the head is a layer of the model itself."""
    counts = {}

    def write(kind, module, leaves, folder=f"{prefix}layers"):
        number = counts[folder, kind] = counts.get((folder, kind), -1) + 1
        for i, leaf in enumerate(leaves):
            if (name := f"{module}/{leaf}") in params:
                file[f"{folder}/{kind}{f'_{number}' if number else ''}/vars/{i}"] = params[name]

    conv, norm = ("kernel", "bias"), ("scale", "bias")
    for s, b in sorted({tuple(int(p[-1]) for p in n.split("/")[:2]) for n in params if "/block_" in n}):
        if not b:
            sequential = f"{prefix}layers/sequential{f'_{s}' if s else ''}/layers"
            write("conv2d", f"stage_{s}/downsample_conv" if s else "stem_conv", conv, sequential)
            write("layer_normalization", f"stage_{s}/downsample_norm" if s else "stem_norm", norm, sequential)
        block = f"stage_{s}/block_{b}"
        write("conv2d", f"{block}/depthwise", conv)
        write("layer_normalization", f"{block}/norm", norm)
        write("dense", f"{block}/expand", conv)
        write("dense", f"{block}/project", conv)
        write("layer_scale", block, ("layer_scale",))
    write("layer_normalization", "head_norm", norm)
    write("dense", "head", conv, "layers")


@pytest.fixture(scope="session")
def written_as():
    """Return a function that gives our {name: array} the names and axes of a published layout."""
    return _written_as


# Our names -> the published names of each layout; {s} and {b} are stage and block, {d} is 2s, {f} is 2s + 1.
_TABLES = {
    "facebook": {
        "stem_conv": "downsample_layers.0.0",
        "stem_norm": "downsample_layers.0.1",
        "downsample_norm": "downsample_layers.{s}.0",
        "downsample_conv": "downsample_layers.{s}.1",
        "depthwise": "stages.{s}.{b}.dwconv",
        "norm": "stages.{s}.{b}.norm",
        "expand": "stages.{s}.{b}.pwconv1",
        "grn": "stages.{s}.{b}.grn",
        "project": "stages.{s}.{b}.pwconv2",
        "layer_scale": "stages.{s}.{b}.gamma",
        "head_norm": "norm",
        "head": "head",
    },
    "timm": {
        "stem_conv": "stem.0",
        "stem_norm": "stem.1",
        "downsample_norm": "stages.{s}.downsample.0",
        "downsample_conv": "stages.{s}.downsample.1",
        "depthwise": "stages.{s}.blocks.{b}.conv_dw",
        "norm": "stages.{s}.blocks.{b}.norm",
        "expand": "stages.{s}.blocks.{b}.mlp.fc1",
        "grn": "stages.{s}.blocks.{b}.mlp.grn",
        "project": "stages.{s}.blocks.{b}.mlp.fc2",
        "layer_scale": "stages.{s}.blocks.{b}.gamma",
        "head_norm": "head.norm",
        "head": "head.fc",
    },
    "torchvision": {
        "stem_conv": "features.0.0",
        "stem_norm": "features.0.1",
        "downsample_norm": "features.{d}.0",
        "downsample_conv": "features.{d}.1",
        "depthwise": "features.{f}.{b}.block.0",
        "norm": "features.{f}.{b}.block.2",
        "expand": "features.{f}.{b}.block.3",
        "project": "features.{f}.{b}.block.5",
        "layer_scale": "features.{f}.{b}.layer_scale",
        "head_norm": "classifier.0",
        "head": "classifier.2",
    },
    "hugging face": {
        "stem_conv": "convnext.embeddings.patch_embeddings",
        "stem_norm": "convnext.embeddings.layernorm",
        "downsample_norm": "convnext.encoder.stages.{s}.downsampling_layer.0",
        "downsample_conv": "convnext.encoder.stages.{s}.downsampling_layer.1",
        "depthwise": "convnext.encoder.stages.{s}.layers.{b}.dwconv",
        "norm": "convnext.encoder.stages.{s}.layers.{b}.layernorm",
        "expand": "convnext.encoder.stages.{s}.layers.{b}.pwconv1",
        "grn": "convnext.encoder.stages.{s}.layers.{b}.grn",
        "project": "convnext.encoder.stages.{s}.layers.{b}.pwconv2",
        "layer_scale": "convnext.encoder.stages.{s}.layers.{b}.layer_scale_parameter",
        "head_norm": "convnext.layernorm",
        "head": "classifier",
    },
    "hugging face dinov3": {
        "stem_conv": "stages.0.downsample_layers.0",
        "stem_norm": "stages.0.downsample_layers.1",
        "downsample_norm": "stages.{s}.downsample_layers.0",
        "downsample_conv": "stages.{s}.downsample_layers.1",
        "depthwise": "stages.{s}.layers.{b}.depthwise_conv",
        "norm": "stages.{s}.layers.{b}.layer_norm",
        "expand": "stages.{s}.layers.{b}.pointwise_conv1",
        "project": "stages.{s}.layers.{b}.pointwise_conv2",
        "layer_scale": "stages.{s}.layers.{b}.gamma",
        "head_norm": "layer_norm",
    },
    "hugging face tensorflow": {
        "stem_conv": "{root}/convnext/embeddings/patch_embeddings",
        "stem_norm": "{root}/convnext/embeddings/layernorm",
        "downsample_norm": "{root}/convnext/encoder/stages.{s}/downsampling_layer.0",
        "downsample_conv": "{root}/convnext/encoder/stages.{s}/downsampling_layer.1",
        "depthwise": "{root}/convnext/encoder/stages.{s}/layers.{b}/dwconv",
        "norm": "{root}/convnext/encoder/stages.{s}/layers.{b}/layernorm",
        "expand": "{root}/convnext/encoder/stages.{s}/layers.{b}/pwconv1",
        "project": "{root}/convnext/encoder/stages.{s}/layers.{b}/pwconv2",
        "layer_scale": "{root}/convnext/encoder/stages.{s}/layers.{b}/layer_scale_parameter:0",
        "head_norm": "{root}/convnext/layernorm",
        "head": "classifier/tf_conv_next_for_image_classification/classifier",
    },
}
_TF_ROOT = "convnext/tf_conv_next_for_image_classification"


def _written_as(layout, params):
    written, table = {}, _TABLES[layout]
    if layout == "timm" and "stem_conv_0/kernel" in params:
        table = table | {"stem_conv_0": "stem.0", "stem_conv_1": "stem.1", "stem_norm": "stem.2"}
    for name, array in params.items():
        *place, module, leaf = name.split("/")
        if leaf == "layer_scale":
            place, module, leaf = [*place, module], leaf, ""
        s, b = [int(part.rpartition("_")[2]) for part in [*place, "0", "0"][:2]]
        theirs = table[module].format(s=s, b=b, d=2 * s, f=2 * s + 1, root=_TF_ROOT)
        if layout == "hugging face tensorflow":
            leaf = {"scale": "gamma", "bias": "beta"}[leaf] if module.endswith("norm") else leaf
            written[f"{theirs}/{leaf}:0" if leaf else theirs] = array
            continue
        leaf = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
        if layout == "facebook" and module == "grn":
            leaf = {"weight": "gamma", "bias": "beta"}[leaf]
        written[f"{theirs}.{leaf}" if leaf else theirs] = _as_torch(layout, module, array)
    return written


def _as_torch(layout, module, array):
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    if array.ndim == 2:
        return np.ascontiguousarray(array.T)
    if module == "grn" and layout in ("facebook", "hugging face"):
        return array.reshape(1, 1, 1, -1)
    if module == "layer_scale" and layout == "torchvision":
        return array.reshape(-1, 1, 1)
    return array
