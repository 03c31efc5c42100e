"""The published files themselves: logits of the two cats of COCO val2017 000000039769.

BLOODCELL_JAX_PUBLISHED names a folder with the files as published and the image file 000000039769.jpg. Missing files
are skipped. The expected values are those of Hugging Face's conversion scripts. For V2 at 224 pixels, the scripts
resized the shorter side to 256 (bicubic) and center-cropped. Otherwise they resized to a square without a crop.
"""

import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.models import create_model
from bloodcell_jax.weights import load_weights, read_weights_info

FOLDER = os.environ.get("BLOODCELL_JAX_PUBLISHED")
V1 = {
    "convnext_tiny_1k_224_ema.pth": [-0.1210, -0.6605, 0.1918],
    "convnext_small_1k_224_ema.pth": [-0.4473, -0.1847, -0.6365],
    "convnext_base_1k_224_ema.pth": [0.4525, 0.7539, 0.0308],
    "convnext_large_1k_224_ema.pth": [0.4174, -0.0989, 0.1489],
    "convnext_base_22k_224.pth": [1.2980, 0.3631, -0.1198],
    "convnext_large_22k_224.pth": [1.2963, 0.1227, 0.1723],
    "convnext_xlarge_22k_224.pth": [1.7956, 0.8390, 0.2820],
    "convnext_base_22k_1k_224.pth": [-0.2822, -0.0502, -0.0878],
    "convnext_large_22k_1k_224.pth": [0.2681, 0.2365, 0.6246],
    "convnext_xlarge_22k_1k_224_ema.pth": [-0.6677, -0.1873, -0.8379],
    "convnext_base_1k_384.pth": [0.3561, 0.6350, -0.0384],
    "convnext_large_1k_384.pth": [0.2513, -0.1349, -0.1613],
    "convnext_base_22k_1k_384.pth": [-0.5672, -0.0730, -0.4348],
    "convnext_large_22k_1k_384.pth": [-0.2642, 0.3931, 0.5116],
    "convnext_xlarge_22k_1k_384_ema.pth": [-0.7749, -0.2967, -0.6444],
}
V2 = {
    "convnextv2_atto_1k_224_ema.pt": [-0.3930, 0.1747, -0.5246, 0.4177, 0.4295],
    "convnextv2_femto_1k_224_ema.pt": [-0.1727, -0.5341, -0.7818, -0.4745, -0.6566],
    "convnextv2_pico_1k_224_ema.pt": [-0.0333, 0.1563, -0.9137, 0.1054, 0.0381],
    "convnextv2_nano_1k_224_ema.pt": [-0.1744, -0.1555, -0.0713, 0.0950, -0.1431],
    "convnextv2_tiny_1k_224_ema.pt": [0.9996, 0.1966, -0.4386, -0.3472, 0.6661],
    "convnextv2_base_1k_224_ema.pt": [-0.2553, -0.6708, -0.1359, 0.2518, -0.2488],
    "convnextv2_large_1k_224_ema.pt": [-0.0673, -0.5627, -0.3753, -0.2722, 0.0178],
    "convnextv2_huge_1k_224_ema.pt": [-0.6377, -0.7458, -0.2150, 0.1184, -0.0597],
    "convnextv2_nano_22k_224_ema.pt": [1.0799, 0.2322, -0.8860, 1.0219, 0.6231],
    "convnextv2_tiny_22k_224_ema.pt": [0.4220, -0.6919, -0.4317, -0.2881, -0.6609],
    "convnextv2_base_22k_224_ema.pt": [-0.2419, -0.6221, 0.2176, -0.0980, -0.7527],
    "convnextv2_large_22k_224_ema.pt": [-0.0504, 0.5636, -0.1729, -0.6507, -0.3949],
    "convnextv2_nano_22k_384_ema.pt": [0.3766, 0.4917, -1.1426, 0.9942, 0.6024],
    "convnextv2_tiny_22k_384_ema.pt": [0.1082, -0.8286, -0.5095, 0.4681, -0.8085],
    "convnextv2_base_22k_384_ema.pt": [0.0391, -0.4371, 0.3786, 0.1251, -0.2784],
    "convnextv2_large_22k_384_ema.pt": [0.3560, 0.9486, 0.3149, -0.2667, -0.5138],
    "convnextv2_huge_22k_384_ema.pt": [-0.2469, -0.4550, -0.5853, -0.0810, 0.0309],
    "convnextv2_huge_22k_512_ema.pt": [-0.3090, 0.0802, -0.0682, -0.1979, -0.2826],
}


def cats(file):
    """Return the Pillow image as the scripts made it for a file; the file's name ends in the size in pixels."""
    image = Image.open(Path(FOLDER) / "000000039769.jpg").convert("RGB")
    size = int(re.findall(r"_(\d{3})[_.]", file)[-1])
    if file in V1 or size > 224:
        return image.resize((size, size), Image.Resampling.BICUBIC)
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = [(side - 224) // 2 for side in image.size]
    return image.crop((left, top, left + 224, top + 224))


@pytest.mark.skipif(FOLDER is None, reason="BLOODCELL_JAX_PUBLISHED names no folder of published files")
@pytest.mark.parametrize(("file", "expected"), [*V1.items(), *V2.items()])
def test_logits_of_the_cats(file, expected):
    path = Path(FOLDER or "") / file
    if not path.exists():
        pytest.skip(f"{file} is not there")
    info = read_weights_info(path)
    pixels = np.asarray(cats(file), np.float32) / 255
    images = ((pixels - info.mean) / info.std)[None].astype(np.float32)
    model = create_model(info.variant, info.num_classes)
    logits, _ = jax.jit(model.apply)({"params": load_weights(path, model)}, images)
    # The resize of the scripts is not reproduced to the pixel.
    np.testing.assert_allclose(logits[0, : len(expected)], expected, rtol=0, atol=0.05)
