"""Small inputs that people in this field really have, from public reports: each is read right or refused by name.

The scripts of `../shared/cases` write them. Siblings of each kind are tested beside the code that reads them.
"""

import json
import runpy
from pathlib import Path

import pytest

from bloodcell_jax import cli
from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import DataError

CASES = Path(__file__).resolve().parents[1].parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="no ../shared/cases")


@pytest.fixture
def make(tmp_path):
    """Return a function that runs the script of a case and returns the folder that it filled."""

    def run(case):
        folder = tmp_path / case
        folder.mkdir()
        runpy.run_path(str(CASES / f"{case}.py"))["make"](str(folder))
        return folder

    return run


@pytest.mark.parametrize(
    ("case", "below", "words"),
    [
        ("kaggle_bccd_upper", "", ("TEST_SIMPLE", "data.split_folders")),
        ("raabin_train_testA_testB", "", ("TestA", "TestB", "data.split_folders")),
        ("cnmc_folds", "", ("fold_0", "all", "data.class_level")),
        ("case_and_space_folders", "", ("'Lymphocyte '", "Neutrophil and neutrophil")),
        ("masks_beside_pictures", "", (".bmp", ".png", "data.include")),
        ("twelve_bit_tiff", "", ("16 bits",)),
        ("black_npz", "u1.npz", ("1 of 255",)),
        ("black_npz", "twice.npz", ("255",)),
    ],
)
def test_what_could_be_mislabeled_is_refused(make, case, below, words):
    with pytest.raises(DataError) as error:
        load_source(str(make(case) / below), image_size=32)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("case", "options", "classes", "splits"),
    [
        ("roboflow_valid", {}, None, {"train", "val", "test"}),
        ("kaggle_bccd_upper", {"exclude": "**/TEST_SIMPLE/**"}, None, {"train", "test"}),
        ("raabin_train_testA_testB", {"split_folders": "train=Train,test=TestA", "exclude": "TestB/**"}, None, None),
        ("cnmc_folds", {"class_level": 3}, ("all", "hem"), set()),
        ("masks_beside_pictures", {"include": "*.bmp"}, None, set()),
    ],
)
def test_what_is_read_or_read_when_told(make, case, options, classes, splits):
    data = load_source(str(make(case)), image_size=32, **options)
    assert splits is None or set(data.splits) == splits
    assert classes is None or data.class_names == classes
    assert not {name.lower() for name in data.class_names} & {"train", "valid", "test", "test_simple", "fold_0"}


def test_numeric_folders_are_ordered_as_numbers(make):
    data = load_source(str(make("numeric_folders_then_npz") / "num"), image_size=32)
    assert data.class_names == tuple(map(str, range(12)))


def test_cells_that_fill_their_image_are_looked_at_whole(make):
    assert set(load_source(str(make("raabin_575_crop")), image_size=32).sides) == {575}


def test_predict_reads_unusual_suffixes_and_says_what_it_looked_at(make, trained, tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--output={rows}"]
    assert cli.main([*command, f"--input={make('predict_skips_jfif')}"]) == 0
    assert len(rows.read_text().splitlines()) == 1 + 36
    capsys.readouterr()
    assert cli.main([*command, f"--input={make('whole_fields_to_predict')}"]) == 0
    assert "640x480 (4)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("case", "file", "flags", "code", "words"),
    [
        ("weights_prefixes", "plain.safetensors", [], 0, ()),
        ("weights_prefixes", "orig_mod.safetensors", [], 0, ("_orig_mod",)),
        ("weights_prefixes", "lightning.safetensors", [], 0, ("model.",)),
        ("spark_module", "spark.pth", [], 0, ()),
        ("spark_module", "tutorial.pth", [], 0, ()),
        ("spark_module", "net.pth", [], 0, ()),
        ("ema_not_updated", "both.pth", [], 0, ("model_ema", "#model")),
        ("ema_not_updated", "both.pth#model", [], 0, ()),
        ("keras_functional_gap_head", "flat.weights.h5", [], 3, ("before it", "model.variant")),
        ("keras_functional_gap_head", "flat.weights.h5", ["--variant=convnext_atto"], 0, ()),
    ],
)
def test_weights_in_the_wild(make, tmp_path, capsys, case, file, flags, code, words):
    if case in ("spark_module", "ema_not_updated"):
        pytest.importorskip("torch")
    command = ["bloodcell", "convert", f"--input={make(case) / file}", f"--output={tmp_path / 'o.safetensors'}"]
    assert cli.main([*command, *flags]) == code
    said = capsys.readouterr().err
    for word in words:
        assert word in said


def test_a_laboratory_with_fewer_classes_is_scored_over_those(make, tmp_path, trained, capsys):
    folder = make("evaluate_absent_classes") / "lab"
    mapping = dict(zip(sorted(path.name for path in folder.iterdir()), ("red", "green"), strict=True))
    flags = [f"--class_map={','.join(f'{a}={b}' for a, b in mapping.items())}", f"--output={tmp_path / 'out'}"]
    assert cli.main(["bloodcell", "evaluate", f"--workdir={trained}", f"--source=folder:{folder}", *flags]) == 0
    assert "2 of 3 classes" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert sorted(metrics["present_classes"]) == ["green", "red"]
