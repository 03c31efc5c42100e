"""From a published file to a fine-tuning run, through the command line."""

import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from bloodcell_jax import cli
from bloodcell_jax.models import create_model

CONFIG = """
from bloodcell_jax.config import *

def get_config(arg=""):
    return Config(
        data=DataConfig(source="npz:{cells}", image_size=32),
        model=ModelConfig(variant="test_convnext3", weights="{weights}", dtype="float32"),
        stages=[
            StageConfig(name="head", steps=1, trainable=("head/.*", "!.*")),
            StageConfig(name="late", steps=1, trainable=("head.*", "stage_3/.*", "!.*")),
        ],
        train=TrainConfig(batch_size=8),
    )
"""


@pytest.fixture
def converted(random_params, written_as, tmp_path, capsys):
    """Return the path of our safetensors, converted from a file in timm's layout."""
    source, target = tmp_path / "timm.safetensors", tmp_path / "ours.safetensors"
    params = random_params(create_model("test_convnext3", 10))
    save_file(written_as("timm", params), source)
    assert cli.main(["bloodcell", "convert", f"--input={source}", f"--output={target}"]) == 0
    output = capsys.readouterr()
    assert re.fullmatch(
        rf"{re.escape(str(target))}: test_convnext3, 10 classes, .*not known, from timm\.safetensors\n", output.out
    )
    assert re.search(r"timm\.safetensors: test_convnext3 .*ImageNet's mean and std", output.err)
    return target


@pytest.mark.exhaustive
def test_fine_tuning_from_a_converted_file_trains_the_parameters_that_the_config_names(
    converted, cells, tmp_path, capsys
):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(cells=cells, weights=converted))
    assert cli.main(["bloodcell", "train", f"--config={config}", "--dry_run"]) == 0
    table = {row[0]: row[3:] for row in map(str.split, capsys.readouterr().out.splitlines()) if len(row) == 5}
    for path, states in table.items():
        if path.startswith(("stem", "stage", "head/", "head_norm")):
            late = path.startswith(("head", "stage_3/"))
            assert states == [
                "trainable" if path.startswith("head/") else "frozen",
                "trainable" if late else "frozen",
            ], path
    workdir = tmp_path / "run"
    assert cli.main(["bloodcell", "train", f"--config={config}", f"--workdir={workdir}"]) == 0
    assert re.search(r"the head .*\b3 classes.*\b10 classes", capsys.readouterr().err)

    import bloodcell_jax as bc

    start = bc.load_weights(converted, create_model("test_convnext3", 3))
    trained = bc.Classifier.from_workdir(workdir, checkpoint="last")._params
    for stage in ("stage_0", "stage_1", "stage_2", "stage_3"):
        before = start[stage]["block_0"]["expand"]["kernel"]
        same = np.array_equal(before, trained[stage]["block_0"]["expand"]["kernel"])
        assert same == (stage != "stage_3"), stage


def test_an_existing_file_is_not_overwritten(converted, capsys):
    before = converted.read_bytes()
    assert cli.main(["bloodcell", "convert", f"--input={converted}", f"--output={converted}"]) == 2
    assert f"--output={converted}: " in capsys.readouterr().err
    assert converted.read_bytes() == before


def test_the_model_of_a_run_has_its_own_variant(tmp_path, capsys):
    command = ["bloodcell", "convert", "--input=pbc_cnn", f"--output={tmp_path / 'model.safetensors'}"]
    assert cli.main([*command, "--variant=convnext_base"]) == 2
    assert "model of a run, a custom_cnn" in capsys.readouterr().err
    assert cli.main([*command, "--variant=custom_cnn"]) == 0


def test_weights_that_are_no_model_of_a_run_are_a_convnext_s(converted, tmp_path, capsys):
    command = ["bloodcell", "convert", f"--input={converted}", f"--output={tmp_path / 'model.safetensors'}"]
    assert cli.main([*command, "--variant=custom_cnn"]) == 2
    assert "--variant=custom_cnn" in capsys.readouterr().err
