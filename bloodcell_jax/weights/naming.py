"""Rules from the names in PyTorch's files and in Hugging Face's TensorFlow files to ours.

Our names are the paths in the parameter tree, joined by `/`. A rule is a pattern for a whole name, and our name for it.
"""

import re
from collections.abc import Callable, Iterable

Rules = list[tuple[re.Pattern, str]]
Rename = Callable[[dict[str, tuple[int, ...]]], dict[str, str]]


def rename_by(rules: Rules) -> Rename:
    """Return a function that maps a file's names, with their shapes, to ours; names without a rule are left out."""

    def rename(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
        found = {}
        for name in shapes:
            for pattern, ours in rules:
                if match := pattern.fullmatch(name):
                    found[name] = match.expand(ours)
                    break
        return found

    return rename


def _rules(modules: Iterable[tuple[str, str]], *, prefix: str = "") -> Rules:
    """Return the rules for modules whose tensors have names like `module.weight` or `module/kernel:0`."""
    rules = []
    for theirs, ours in modules:
        scale = "scale" if ours.endswith(("norm", "grn")) else "kernel"
        leaves = {"weight|gamma" if scale == "scale" else "weight|kernel": scale, "bias|beta": "bias"}
        rules += [
            (re.compile(rf"{prefix}(?:{theirs})[./](?:{leaf})(?::0)?"), f"{ours}/{our_leaf}")
            for leaf, our_leaf in leaves.items()
        ]
    return rules


def _layer_scale(theirs: str, ours: str = r"stage_\1/block_\2") -> Rules:
    return [(re.compile(theirs), f"{ours}/layer_scale")]


def _blocks(prefix: str, **modules: str) -> list[tuple[str, str]]:
    return [(prefix + theirs, rf"stage_\1/block_\2/{ours}") for ours, theirs in modules.items()]


# Facebook's files. Those of FCMAE were trained by sparse convolutions and have `ln` and `linear` inside their modules.
FACEBOOK = _rules(
    [
        (r"downsample_layers\.0\.0", "stem_conv"),
        (r"downsample_layers\.0\.1(?:\.ln)?", "stem_norm"),
        (r"downsample_layers\.(\d+)\.0(?:\.ln)?", r"stage_\1/downsample_norm"),
        (r"downsample_layers\.(\d+)\.1", r"stage_\1/downsample_conv"),
        *_blocks(
            r"stages\.(\d+)\.(\d+)\.",
            depthwise="dwconv",
            norm=r"norm(?:\.ln)?",
            expand=r"pwconv1(?:\.linear)?",
            grn="grn",
            project=r"pwconv2(?:\.linear)?",
        ),
        ("norm", "head_norm"),
        ("head", "head"),
    ],
    prefix=r"(?:encoder\.)?",
) + _layer_scale(r"stages\.(\d+)\.(\d+)\.gamma")

_TIMM_BODY = _rules(
    [
        (r"stages\.(\d+)\.downsample\.0", r"stage_\1/downsample_norm"),
        (r"stages\.(\d+)\.downsample\.1", r"stage_\1/downsample_conv"),
        *_blocks(
            r"stages\.(\d+)\.blocks\.(\d+)\.",
            depthwise="conv_dw",
            norm="norm",
            expand=r"mlp\.fc1",
            grn=r"mlp\.grn",
            project=r"mlp\.fc2",
        ),
        (r"head\.norm|norm_pre", "head_norm"),
        (r"head\.fc", "head"),
    ]
) + _layer_scale(r"stages\.(\d+)\.blocks\.(\d+)\.gamma")
_TIMM = _rules([(r"stem\.0", "stem_conv"), (r"stem\.1", "stem_norm")]) + _TIMM_BODY
_TIMM_OVERLAP = (
    _rules([(r"stem\.0", "stem_conv_0"), (r"stem\.1", "stem_conv_1"), (r"stem\.2", "stem_norm")]) + _TIMM_BODY
)


def rename_timm(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Return our names of timm's; a stem of two convolutions has a third module, the norm."""
    return rename_by(_TIMM_OVERLAP if "stem.2.weight" in shapes else _TIMM)(shapes)


def _torchvision() -> Rules:
    rules = _rules(
        [
            (r"features\.0\.0", "stem_conv"),
            (r"features\.0\.1", "stem_norm"),
            (r"classifier\.0", "head_norm"),
            (r"classifier\.2", "head"),
        ]
    )
    for stage in range(4):
        downsampling, block = rf"features\.{2 * stage}\.", rf"features\.{2 * stage + 1}\.(\d+)\."
        ours = rf"stage_{stage}/block_\1"
        rules += _layer_scale(rf"{block}layer_scale", ours) + _rules(
            [
                (rf"{downsampling}0", f"stage_{stage}/downsample_norm"),
                (rf"{downsampling}1", f"stage_{stage}/downsample_conv"),
                (rf"{block}block\.0", f"{ours}/depthwise"),
                (rf"{block}block\.2", f"{ours}/norm"),
                (rf"{block}block\.3", f"{ours}/expand"),
                (rf"{block}block\.5", f"{ours}/project"),
            ]
        )
    return rules


TORCHVISION = _torchvision()

# The prefix of PyTorch's names may be absent. That of TensorFlow's names repeats the classes around the layer.
_HUGGING_FACE_PREFIX = r"(?:.*/|convnext(?:v2)?\.)?"
HUGGING_FACE = _rules(
    [
        (r"embeddings[./]patch_embeddings", "stem_conv"),
        (r"embeddings[./]layernorm", "stem_norm"),
        (r"encoder[./]stages\.(\d+)[./]downsampling_layer\.0", r"stage_\1/downsample_norm"),
        (r"encoder[./]stages\.(\d+)[./]downsampling_layer\.1", r"stage_\1/downsample_conv"),
        *_blocks(
            r"encoder[./]stages\.(\d+)[./]layers\.(\d+)[./]",
            depthwise="dwconv",
            norm="layernorm",
            expand="pwconv1",
            grn="grn",
            project="pwconv2",
        ),
        ("layernorm", "head_norm"),
        ("classifier", "head"),
    ],
    prefix=_HUGGING_FACE_PREFIX,
) + _layer_scale(_HUGGING_FACE_PREFIX + r"encoder[./]stages\.(\d+)[./]layers\.(\d+)[./]layer_scale_parameter(?::0)?")

# DINOv3's in transformers. Later versions put the stages into a module of their own, but not the final norm.
_DINOV3_PREFIX = r"(?:dinov3_convnext\.)?(?:(?:model|encoder)\.)?"
HUGGING_FACE_DINOV3 = _rules(
    [
        (r"stages\.0\.downsample_layers\.0", "stem_conv"),
        (r"stages\.0\.downsample_layers\.1", "stem_norm"),
        (r"stages\.(\d+)\.downsample_layers\.0", r"stage_\1/downsample_norm"),
        (r"stages\.(\d+)\.downsample_layers\.1", r"stage_\1/downsample_conv"),
        *_blocks(
            r"stages\.(\d+)\.layers\.(\d+)\.",
            depthwise="depthwise_conv",
            norm="layer_norm",
            expand="pointwise_conv1",
            project="pointwise_conv2",
        ),
        ("layer_norm", "head_norm"),
        ("classifier", "head"),
    ],
    prefix=_DINOV3_PREFIX,
) + _layer_scale(_DINOV3_PREFIX + r"stages\.(\d+)\.layers\.(\d+)\.gamma")
