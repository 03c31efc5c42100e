"""Rules from the names in the three HDF5 formats of Keras' ConvNeXts to ours."""

import re

from bloodcell_jax.weights.naming import Rules

_CONV, _NORM = ("kernel", "bias"), ("scale", "bias")


def _rules_by_layer() -> Rules:
    """Return the rules for `layer[i]/weight`; i is the place of the weight in its layer."""
    layers = [(r".*_stem", [("stem_conv", _CONV), ("stem_norm", _NORM)])]
    for i in range(3):
        stage = f"stage_{i + 1}/downsample"
        layers.append((rf".*_downsampling_block_{i}", [(f"{stage}_norm", _NORM), (f"{stage}_conv", _CONV)]))
    block, ours = r".*_stage_(\d+)_block_(\d+)", r"stage_\1/block_\2"
    layers += [
        (f"{block}_depthwise_conv", [(f"{ours}/depthwise", _CONV)]),
        (f"{block}_layernorm", [(f"{ours}/norm", _NORM)]),
        (f"{block}_pointwise_conv_1", [(f"{ours}/expand", _CONV)]),
        (f"{block}_pointwise_conv_2", [(f"{ours}/project", _CONV)]),
        (f"{block}_layer_scale", [(ours, ("layer_scale",))]),
        # In a file without the top, the last norm has no name of its own.
        (r".*_head_layernorm|layer_normalization(?:_\d+)?", [("head_norm", _NORM)]),
        (r".*_head_dense", [("head", _CONV)]),
    ]
    rules = []
    for layer, modules in layers:
        leaves = [f"{module}/{leaf}" for module, names in modules for leaf in names]
        rules += [(re.compile(rf"(?:{layer})\[{i}\]/.*"), leaf) for i, leaf in enumerate(leaves)]
    return rules


KERAS = _rules_by_layer()


def rename_numbered(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Return our names of the tensors that Keras 3's `save_weights` names by class and number.

    Blocks are numbered over all stages. A stage ends when the number of channels of the depthwise convolution changes.
    """
    names = {}
    for i in range(4):
        path = f"layers/{_numbered('sequential', i)}/layers"
        names |= _variables(f"{path}/conv2d", f"stage_{i}/downsample_conv" if i else "stem_conv", _CONV)
        names |= _variables(f"{path}/layer_normalization", f"stage_{i}/downsample_norm" if i else "stem_norm", _NORM)
    number, stage, place, channels = 0, -1, 0, None
    while (depthwise := f"layers/{_numbered('conv2d', number)}/vars/0") in shapes:
        stage, place = (stage, place + 1) if shapes[depthwise][-1:] == channels else (stage + 1, 0)
        channels = shapes[depthwise][-1:]
        block = f"stage_{stage}/block_{place}"
        names |= _variables(f"layers/{_numbered('conv2d', number)}", f"{block}/depthwise", _CONV)
        names |= _variables(f"layers/{_numbered('layer_normalization', number)}", f"{block}/norm", _NORM)
        names |= _variables(f"layers/{_numbered('dense', 2 * number)}", f"{block}/expand", _CONV)
        names |= _variables(f"layers/{_numbered('dense', 2 * number + 1)}", f"{block}/project", _CONV)
        names |= _variables(f"layers/{_numbered('layer_scale', number)}", block, ("layer_scale",))
        number += 1
    names |= _variables(f"layers/{_numbered('layer_normalization', number)}", "head_norm", _NORM)
    names |= _variables(f"layers/{_numbered('dense', 2 * number)}", "head", _CONV)
    return {name: ours for name, ours in names.items() if name in shapes}


def outer_head(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Return our names of the head behind a ConvNeXt that is one layer of a model: the only weights beside it."""
    modules = {name.rpartition("/vars/")[0] for name in shapes}
    if len(modules) != 1 or not re.fullmatch(r"(?:.*/)?layers/dense(?:_\d+)?", module := modules.pop()):
        return {}
    return {name: ours for name, ours in _variables(module, "head", _CONV).items() if name in shapes}


# Last layers of a model -> whether the norm comes before the pooling.
NORM_BEFORE_POOL: dict[tuple[str, ...], bool] = {
    ("LayerNormalization", "GlobalAveragePooling2D", "Dense"): True,
    ("GlobalAveragePooling2D", "LayerNormalization", "Dense"): False,
}


def _numbered(layer: str, number: int) -> str:
    return f"{layer}_{number}" if number else layer


def _variables(layer: str, module: str, leaves: tuple[str, ...]) -> dict[str, str]:
    return {f"{layer}/vars/{i}": f"{module}/{leaf}" for i, leaf in enumerate(leaves)}
