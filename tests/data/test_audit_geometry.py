"""The audit warns if the sizes of the images suggest another geometry."""

import re

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.audit.geometry import geometry_warnings, image_sizes
from bloodcell_jax.data.geometry import Geometry
from bloodcell_jax.data.sources import load_source


@pytest.mark.parametrize(
    ("sizes", "crop", "said"),
    [
        ([(360, 363)] * 100, 200, None),
        ([(96, 96)] * 100, 200, None),
        ([(360, 363)] * 99 + [(150, 150)], 200, None),
        ([(360, 363)] * 50 + [(150, 150)] * 50, 200, r"^50 .* crop of 200 pixels"),
        ([(224, 224)] * 100, 200, r"--crop=none\b"),
        ([(1200, 900)] * 100, 200, r"--crop=0.56\b"),
        ([(575, 575)] * 100, 200, r"575 .*\b35%"),  # Raabin-WBC: the cell fills its image
        ([(575, 575)] * 100, "auto", None),
        ([(1200, 900)] * 100, 0.3, r"crop of 270 keeps 30%"),
        ([(360, 363)] * 50 + [(150, 150)] * 50, "auto", r"^50 .* crop of 200 pixels"),
        ([(150, 100)] * 100, 200, r"^100% .*not square: .*centered"),
        ([(28, 28)] * 100, 200, r"enlarged from 28 to 96 pixels"),
        ([(360, 360)] * 100, 40, r"enlarged from 40 to 96 pixels"),
    ],
)
def test_sizes_that_suggest_another_geometry(sizes, crop, said):
    sides = np.array([Geometry(96, crop).side(*size) for size in sizes])
    warnings = geometry_warnings(np.array(sizes), sides, image_size=96)
    assert (said is None and warnings == []) or any(re.search(said, warning) for warning in warnings)


def test_arrays_are_never_cropped_so_their_shape_is_what_counts():
    (warning,) = geometry_warnings(np.array([(363, 240)]), None, image_size=96)
    assert re.search(r"^100% .*not square: .*squeezed", warning)
    assert geometry_warnings(np.array([(360, 363)]), None, image_size=96) == []


def test_sizes_are_those_on_disk(tmp_path):
    for name, size in {"a/1.png": (30, 20), "a/2.png": (20, 20), "b/1.png": (50, 40)}.items():
        (tmp_path / "cells" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 50).save(tmp_path / "cells" / name)
    sizes, are_files = image_sizes(load_source(f"folder:{tmp_path / 'cells'}", image_size=16))
    assert (sizes.tolist(), are_files) == ([[30, 20], [20, 20], [50, 40]], True)
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 40, 3), np.uint8)
    np.savez(tmp_path / "cells.npz", images=images, labels=np.arange(4))
    sizes, are_files = image_sizes(load_source(f"npz:{tmp_path / 'cells.npz'}", image_size=16))
    assert (sizes.tolist(), are_files) == ([[40, 24]], False)
    assert image_sizes(load_source("synthetic:24", image_size=16)) is None
