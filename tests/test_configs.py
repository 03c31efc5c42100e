"""The configurations of the library are valid, and their docstrings are true."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from bloodcell_jax import cli
from bloodcell_jax.cli.config_flags import parse
from bloodcell_jax.config import check_all_read, validate
from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import create_model, param_shapes
from bloodcell_jax.run.create import check_blocks, create_augmentation
from bloodcell_jax.train.stages import plan_stages

FOLDER = Path(__file__).parents[1] / "configs"
REPORT = runpy.run_path(str(FOLDER / "report_table1.py"))
RECIPES = runpy.run_path(str(FOLDER / "fine_tune.py"))
ARGUMENTS: dict[str, Sequence[str]] = dict.fromkeys(
    ("quickstart", "pbc_scratch", "pbc_48px", "pbc_robust", "pbc_cnn", "convnext_base"), ("",)
)
ARGUMENTS |= {"report_table1": tuple(REPORT["ROWS"]), "fine_tune": tuple(RECIPES["RECIPES"])}


def test_all_are_listed_here():
    # adapt needs a trained run: tests/run/test_adapt.py.
    assert {path.stem for path in FOLDER.glob("[a-z]*.py")} == set(ARGUMENTS) | {"adapt"}


def test_a_package_takes_the_configurations_beside_it_though_another_one_is_installed(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "pretrained")
    shutil.copytree(FOLDER.parent / "bloodcell_jax", tmp_path / "bloodcell_jax", ignore=ignored)
    (tmp_path / "configs").mkdir()
    shutil.copy(FOLDER / "quickstart.py", tmp_path / "configs" / "mine.py")
    program = "from bloodcell_jax.cli.config_flags import shipped; print(*shipped())"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "mine\n", done.stderr


@pytest.mark.parametrize(("name", "argument"), [(name, a) for name, many in ARGUMENTS.items() for a in many])
def test_a_configuration_is_valid_and_fits_one_and_two_devices(name, argument):
    module = runpy.run_path(str(FOLDER / f"{name}.py"))
    config = module["get_config"](argument)
    validate(config)
    check_all_read(config)
    for devices in (1, 2):
        check_blocks(create_augmentation(config), config.train.batch_size, devices)
    assert "--config=" in module["__doc__"], "its docstring gives the command"


def test_the_report_s_rows():
    rows = {row: REPORT["get_config"](row) for row in REPORT["ROWS"]}
    assert set(rows) - {"full-unfreeze", "hybrid"} == {
        "cnn",
        *(f"{balance}-augmix-{augment}" for balance in ("under", "over") for augment in ("randaugment", "fourier")),
    }
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


@pytest.mark.parametrize("name", RECIPES["RECIPES"])
def test_a_recipe_s_patterns_fit_every_network(name):
    """The head always learns, and what a stage sets free stays free."""
    config = RECIPES["get_config"](name)
    for variant in ("convnext_atto", "custom_cnn"):
        shapes = param_shapes(create_model(variant, 8), 32)
        free = set()
        for stage in plan_stages(config, shapes, epoch_size=640):
            learns = {path for path, trains in leaves_by_path(stage.mask).items() if trains}
            assert learns >= free | {"head/kernel", "head/bias"}
            free = learns
        everything = name in ("gradual-unfreezing", "winner", "from-scratch")
        assert (free == set(leaves_by_path(shapes))) == everything
        if name == "linear-probe":
            assert free == {"head/kernel", "head/bias"}


def test_the_winner_s_rates_and_shares():
    config = RECIPES["get_config"]("winner")
    stages = plan_stages(config, param_shapes(create_model("convnext_atto", 8), 32), epoch_size=6400)
    rates = [(stage.schedule(0), stage.schedule(stage.stop - stage.start)) for stage in stages]
    np.testing.assert_allclose(rates, [(5e-5, 1e-6), (5e-6, 1e-6)], rtol=1e-4)
    assert [stage.stop - stage.start for stage in stages] == [1500, 1000]
    shares = [float(share) for share in re.findall(r"p=([\d.]+)", config.augment.policy)]
    assert len(shares) == config.augment.policy.count("|") + 1 == 11
    assert min(shares) == 0.1
    assert max(shares) == 0.4


def test_gradual_unfreezing_lowers_the_rate_from_stage_to_stage():
    rates = [stage.optimizer.learning_rate for stage in RECIPES["get_config"]("gradual-unfreezing").stages]
    np.testing.assert_allclose(rates, [1e-3 / 2.6**number for number in range(5)])
    with pytest.raises(UsageError, match=r"fine_tune:half: .*linear-probe, report"):
        RECIPES["get_config"]("half")


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"quickstart"}))
def test_a_configuration_asks_for_the_data(name, capsys, tmp_path):
    argument = ARGUMENTS[name][0]
    flags = [f"--config={name}:{argument}".rstrip(":"), f"--workdir={tmp_path / 'run'}", "--config.data.crop=none"]
    # Each of the eight devices of these tests has few images.
    flags += ["--config.augment.block=8"]
    assert cli.main(["bloodcell", "train", *flags]) == 2
    assert "config.data.source: missing" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["stages[0]", "stages[-1]"])
def test_none_unsets_a_field_however_its_path_is_spelled(stage):
    command = ["train", "--config=pbc_scratch", f"--config.{stage}.optimizer.clip_norm=none"]
    assert parse(flags.FlagValues(), command)[1].stages[0].optimizer.clip_norm is None
