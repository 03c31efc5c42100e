"""Every trial of `benchmarks/recipe_trials.py` is a valid run that differs from the baseline."""

import runpy
from pathlib import Path

import pytest
from absl import flags

from bloodcell_jax.cli.config_flags import parse
from bloodcell_jax.config import validate
from bloodcell_jax.models.registry import build_model
from bloodcell_jax.run.create import check_blocks, create_augmentation

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "recipe_trials.py"


def script():
    """Return the names of the script, without leaving its flags to other tests."""
    before = set(flags.FLAGS)
    names = runpy.run_path(str(PATH))
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    return names


SCRIPT = script()


def config_of(name):
    fields = SCRIPT["fields_of"](name, "cells.zip")
    words = ["--config=pbc_48px", *(f"--config.{field}={value}" for field, value in fields.items())]
    _, parsed = parse(flags.FlagValues(), ["bloodcell", *words])
    return parsed


@pytest.mark.parametrize("name", SCRIPT["TRIALS"])
def test_a_trial_is_valid_and_no_second_baseline(name):
    config = config_of(name)
    assert (config == config_of("baseline")) == (name == "baseline")
    config.model.num_classes = 8
    validate(config)
    build_model(config.model)
    check_blocks(create_augmentation(config), config.train.batch_size, 1)
