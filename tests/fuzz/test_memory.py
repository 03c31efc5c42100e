"""Memory that hostile images may take together."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

PROGRAM = """
import resource, sys
from bloodcell_jax.data.sources import load_source
load_source(sys.argv[1], image_size=32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.fuzz
def test_images_as_large_as_pillow_allows_are_decoded_one_at_a_time(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (94, 94, 3), dtype=np.uint8)
    for name in "ab":
        (tmp_path / "cells" / name).mkdir(parents=True)
    first = tmp_path / "cells" / "a" / "0.png"
    Image.fromarray(pixels).resize((9400, 9400), Image.Resampling.NEAREST).save(first)
    assert first.stat().st_size < 2**20
    for i in range(1, 6):
        os.link(first, tmp_path / "cells" / "ab"[i % 2] / f"{i}.png")
    command = [sys.executable, "-c", PROGRAM, f"folder:{tmp_path / 'cells'}"]
    peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(peak) < 3 * 2**20  # in KiB; all at a time would take 12 GiB
