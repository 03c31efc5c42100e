"""The configurations of the library are valid, and their docstrings are true."""

import runpy
from pathlib import Path

import pytest
from absl import flags

from bloodcell_jax import cli
from bloodcell_jax.cli.config_flags import parse
from bloodcell_jax.config import validate
from bloodcell_jax.errors import UsageError
from bloodcell_jax.run.create import check_blocks, create_augmentation

FOLDER = Path(__file__).parents[1] / "configs"
REPORT = runpy.run_path(str(FOLDER / "report_table1.py"))
ARGUMENTS = {"quickstart": [""], "pbc_scratch": [""], "convnext_base": [""], "report_table1": REPORT["ROWS"]}


def test_all_are_listed_here():
    # adapt needs a trained run: tests/run/test_adapt.py.
    assert {path.stem for path in FOLDER.glob("[a-z]*.py")} == set(ARGUMENTS) | {"adapt"}


@pytest.mark.parametrize(("name", "argument"), [(name, a) for name, many in ARGUMENTS.items() for a in many])
def test_a_configuration_is_valid_and_fits_one_and_two_devices(name, argument):
    module = runpy.run_path(str(FOLDER / f"{name}.py"))
    config = module["get_config"](argument)
    validate(config)
    for devices in (1, 2):
        check_blocks(create_augmentation(config), config.train.batch_size, devices)
    assert "--config=" in module["__doc__"], "its docstring gives the command"


def test_the_report_s_rows():
    rows = {row: REPORT["get_config"](row) for row in REPORT["ROWS"]}
    assert len(rows) == 5
    assert rows["cnn"].model.variant == "custom_cnn"
    assert {config.model.variant for row, config in rows.items() if row != "cnn"} == {"convnext_base"}
    assert {row for row, config in rows.items() if config.data.samples_per_class == 850} == {
        "under-augmix-randaugment",
        "under-augmix-fourier",
    }
    assert {row for row, config in rows.items() if config.augment.mix != "none"} == {
        "under-augmix-fourier",
        "over-augmix-fourier",
    }
    with pytest.raises(UsageError, match=f"report_table1:knn: .*{', '.join(REPORT['ROWS'])}"):
        REPORT["get_config"]("knn")


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"quickstart"}))
def test_a_configuration_asks_for_the_data(name, capsys, tmp_path):
    argument = REPORT["ROWS"][0] if name == "report_table1" else ""
    flags = [f"--config={name}:{argument}".rstrip(":"), f"--workdir={tmp_path / 'run'}", "--config.data.crop=none"]
    assert cli.main(["bloodcell", "train", *flags]) == 2
    assert "config.data.source: missing" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["stages[0]", "stages[-1]"])
def test_none_unsets_a_field_however_its_path_is_spelled(stage):
    command = ["train", "--config=pbc_scratch", f"--config.{stage}.optimizer.clip_norm=none"]
    assert parse(flags.FlagValues(), command)[1].stages[0].optimizer.clip_norm is None
