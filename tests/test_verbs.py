"""A verb is a file of `cli/` and an entry of the table."""

import importlib
from pathlib import Path

import pytest

from bloodcell_jax import cli
from bloodcell_jax.cli.command_line import VERBS
from bloodcell_jax.cli.verb import Verb

FOLDER = Path(cli.__file__).parent


def verbs_in(path):
    module = importlib.import_module(f"bloodcell_jax.cli.{path.stem}")
    if path.stem == "command_line":
        return []
    return [value for value in vars(module).values() if isinstance(value, Verb)]


def test_every_verb_is_in_the_table_under_the_name_of_its_file():
    found = {path.stem: verbs_in(path) for path in FOLDER.glob("[a-z]*.py")}
    assert {name: verbs[0] for name, verbs in found.items() if verbs} == VERBS
    assert all(len(verbs) <= 1 for verbs in found.values())


@pytest.mark.parametrize("name", VERBS)
def test_its_help_has_examples_and_flags(name, capsys):
    assert cli.main(["bloodcell", name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(VERBS[name].summary)
    assert f"\n  {name} --" in text
    assert "\nFlags:\n  --" in text
    assert not any(line.strip().startswith("of ") for line in text.splitlines())
