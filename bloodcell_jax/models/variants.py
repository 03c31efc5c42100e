"""The published ConvNeXt variants under timm's names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """What tells one ConvNeXt from another.

    Attributes:
      depths: blocks per stage.
      dims: channels per stage.
      layer_scale: its initial value; None if blocks have none (V2).
      grn: global response normalization between the two dense layers (V2).
      norm_eps: epsilon of every LayerNorm.
      activation: `gelu` (erf), `gelu_tanh` or `silu`.
      kernel_sizes: side of the depthwise kernel, per stage.
      stem: `patch` (4x4, stride 4), `overlap` or `overlap_tiered` (two 3x3 convolutions of stride 2; tiered has half
        the channels between them).
      norm_before_pool: the head normalizes the map and then averages, instead of the other way round.
    """

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    layer_scale: float | None = 1e-6
    grn: bool = False
    norm_eps: float = 1e-6
    activation: str = "gelu"
    kernel_sizes: tuple[int, int, int, int] = (7, 7, 7, 7)
    stem: str = "patch"
    norm_before_pool: bool = False


def _widths(first: int) -> tuple[int, int, int, int]:
    return first, 2 * first, 4 * first, 8 * first


def _v2(depths: tuple[int, int, int, int], first: int) -> Variant:
    return Variant(depths, _widths(first), layer_scale=None, grn=True)


def _test(depths: tuple[int, int, int, int], dims: tuple[int, int, int, int], **fields) -> Variant:
    """timm's test networks: ImageNet weights in 2 MB."""
    return Variant(depths, dims, norm_eps=1e-5, **fields)


VARIANTS = {
    "convnext_atto": Variant((2, 2, 6, 2), _widths(40)),
    "convnext_atto_ols": Variant((2, 2, 6, 2), _widths(40), stem="overlap_tiered"),
    "convnext_femto": Variant((2, 2, 6, 2), _widths(48)),
    "convnext_femto_ols": Variant((2, 2, 6, 2), _widths(48), stem="overlap_tiered"),
    "convnext_pico": Variant((2, 2, 6, 2), _widths(64)),
    "convnext_pico_ols": Variant((2, 2, 6, 2), _widths(64), stem="overlap_tiered"),
    "convnext_nano": Variant((2, 2, 8, 2), _widths(80)),
    "convnext_nano_ols": Variant((2, 2, 8, 2), _widths(80), stem="overlap"),
    "convnext_tiny": Variant((3, 3, 9, 3), _widths(96)),
    "convnext_tiny_hnf": Variant((3, 3, 9, 3), _widths(96), norm_before_pool=True),
    "convnext_small": Variant((3, 3, 27, 3), _widths(96)),
    "convnext_base": Variant((3, 3, 27, 3), _widths(128)),
    "convnext_large": Variant((3, 3, 27, 3), _widths(192)),
    "convnext_xlarge": Variant((3, 3, 27, 3), _widths(256)),
    "convnext_xxlarge": Variant((3, 4, 30, 3), _widths(384), norm_eps=1e-5),
    "test_convnext": _test((1, 2, 4, 2), (24, 32, 48, 64), activation="gelu_tanh"),
    "test_convnext2": _test((1, 1, 1, 1), (32, 64, 96, 128), activation="gelu_tanh"),
    "test_convnext3": _test((1, 1, 1, 1), (32, 64, 96, 128), activation="silu", kernel_sizes=(7, 5, 5, 3)),
    "convnextv2_atto": _v2((2, 2, 6, 2), 40),
    "convnextv2_femto": _v2((2, 2, 6, 2), 48),
    "convnextv2_pico": _v2((2, 2, 6, 2), 64),
    "convnextv2_nano": _v2((2, 2, 8, 2), 80),
    "convnextv2_tiny": _v2((3, 3, 9, 3), 96),
    "convnextv2_small": _v2((3, 3, 27, 3), 96),
    "convnextv2_base": _v2((3, 3, 27, 3), 128),
    "convnextv2_large": _v2((3, 3, 27, 3), 192),
    "convnextv2_huge": _v2((3, 3, 27, 3), 352),
}
