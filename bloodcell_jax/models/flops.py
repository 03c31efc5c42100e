"""Model FLOPs by formula: what the architecture needs, whatever implementation runs."""

from flax import linen as nn

from bloodcell_jax.models.convnext import ConvNeXt
from bloodcell_jax.models.custom_cnn import WIDTHS


def forward_flops(model: nn.Module, image_size: int) -> int:
    """Return the FLOPs of one picture's forward pass: matrix and depthwise products, two per multiply-add."""
    count = _convnext if isinstance(model, ConvNeXt) else _custom_cnn
    return 2 * count(model, image_size)


def _convnext(model: ConvNeXt, image_size: int) -> int:
    variant = model.variant
    size, products = _stem(model, image_size)
    for i, (depth, width) in enumerate(zip(variant.depths, variant.dims, strict=True)):
        if i > 0:
            size //= 2
            products += size**2 * 4 * variant.dims[i - 1] * width
        block = variant.kernel_sizes[i] ** 2 * width + 8 * width**2
        products += depth * size**2 * block
    return products + variant.dims[-1] * model.num_classes


def _stem(model: ConvNeXt, image_size: int) -> tuple[int, int]:
    """Return the map's side after the stem and the stem's multiply-adds."""
    width, stride = model.variant.dims[0], model.stem_stride
    if model.variant.stem == "patch":
        size = (image_size + (0 if stride == 4 else 2) - 4) // stride + 1
        return size, size**2 * 16 * 3 * width
    inner = model.inner_stem_width
    half = (image_size - 1) // 2 + 1
    size = (half - 1) // (stride // 2) + 1
    return size, 9 * (half**2 * 3 * inner + size**2 * inner * width)


def _custom_cnn(model: nn.Module, image_size: int) -> int:
    products, channels, size = image_size**2 * 9 * 3 * WIDTHS[0], WIDTHS[0], image_size
    for width in WIDTHS:
        products += size**2 * 9 * (channels * width + width**2)
        channels, size = width, size // 2
    return products + channels * model.num_classes
