"""Which square of a file is looked at, and whether it fits what a model was trained on."""

import numpy as np
import pytest

from bloodcell_jax import cli
from bloodcell_jax.config import Config, DataConfig, validate
from bloodcell_jax.data.geometry import Geometry, View, misfit, too_small
from bloodcell_jax.errors import UsageError

PBC = [(360, 363), (366, 369), (359, 360), (362, 360)]  # All sizes of the published set, but for a handful.


@pytest.mark.parametrize(
    ("crop", "size", "side"),
    [
        (200, (363, 360), 200),
        (200, (300, 200), 200),
        (200, (300, 150), 150),
        (None, (363, 360), 360),
        (0.56, (575, 580), 322),
        (0.001, (100, 100), 1),
        *(("auto", size, 200) for size in PBC),
        # MedMNIST's, Raabin's, BCCD's, C-NMC's and another lab's: nothing is cut off.
        *(("auto", (side, side + 10), side) for side in (28, 96, 120, 224, 240, 300, 450, 480, 575)),
    ],
)
def test_the_square(crop, size, side):
    assert Geometry(96, crop).side(*size) == Geometry(96, crop).side(*size[::-1]) == side


@pytest.mark.parametrize(
    ("crop", "microns", "side"),
    [("auto", 0.1, 200), ("auto", 0.05, 400), ("auto", 0.2, 100), (300, 0.06, 500), (300, 0.02, 1000)],
)
def test_a_known_scale_shows_the_same_piece_of_the_slide(crop, microns, side):
    assert Geometry(96, crop, microns).side(1200, 1000) == side


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"crop": 0}, "crop=0"),
        ({"crop": -3}, "crop=-3"),
        ({"crop": 1.0}, "crop=1.0"),
        ({"crop": 200.0}, "crop=200.0"),
        ({"crop": float("nan")}, "crop=nan"),
        ({"crop": "half"}, "crop=half"),
        ({"crop": True}, "crop=True"),
        ({"microns_per_pixel": 0.0}, "microns_per_pixel=0.0"),
        ({"microns_per_pixel": 0.1, "crop": None}, "crop=none"),
        ({"microns_per_pixel": 0.1, "crop": 0.5}, "crop=0.5"),
    ],
)
def test_what_no_crop_is(fields, named):
    with pytest.raises(UsageError, match=named):
        validate(Config(data=DataConfig(**fields)))


@pytest.mark.parametrize(("text", "value"), [("200", 200), ("0.56", 0.56), ("none", None), ("auto", "auto")])
def test_the_command_line_takes_every_form(text, value, tmp_path, capsys):
    (tmp_path / "a.py").write_text("from bloodcell_jax.config import Config\ndef get_config():\n    return Config()\n")
    from absl import flags

    from bloodcell_jax.cli.config_flags import parse

    _, config = parse(flags.FlagValues(), ["train", f"--config={tmp_path / 'a.py'}", f"--config.data.crop={text}"])
    assert config.data.crop == value
    for wrong in ("x", "0", "1.5", ""):
        command = ["launch.py", "train", f"--config={tmp_path / 'a.py'}", "--workdir=w", f"--config.data.crop={wrong}"]
        assert cli.main(command) == 2
        assert f"crop={wrong}" in capsys.readouterr().err


def test_other_views_are_named():
    trained = View(360, 200)
    assert _misfit(trained, View(360, 200)) is None
    assert _misfit(trained, View(366, 200)) is None
    assert _misfit(trained, View(400, 222)) is None  # a fraction keeps the proportion
    for other in (View(575, 200), View(575, 575), View(96, 96), View(1200, 667)):
        said = _misfit(trained, other)
        assert said is not None
        assert str(other.shorter_side) in said
        assert "360" in said
    assert _misfit(View(96, 96), View(120, 120)) is None
    assert _misfit(View(96, 96), View(480, 480)) is not None


def _misfit(trained: View, *others: View) -> str | None:
    """Return what is said of square files with these views."""
    sizes = np.array([[other.shorter_side, other.shorter_side + 3] for other in others])
    return misfit(trained, sizes, np.array([other.side for other in others]))


def test_a_few_files_of_another_size_are_counted():
    said = _misfit(View(360, 200), *[View(360, 200)] * 19, *[View(96, 96)] * 18)
    assert said is not None
    assert "18 of 37" in said
    assert str(View(96, 96)) in said


def test_files_smaller_than_the_piece_of_the_slide_are_counted():
    sizes = np.array([[200, 240], [420, 400], [90, 300]])
    said = too_small(sizes, Geometry(96, "auto", 0.05))
    assert said is not None
    assert all(text in said for text in ("2 of 3", "400", "0.05"))
    assert too_small(sizes, Geometry(96, 80, 0.1)) is None
    assert too_small(sizes, Geometry(96, "auto", None)) is None
