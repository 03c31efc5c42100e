"""What a new user meets: help on a configuration, suggestions, flags that a shell takes, results for programs."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from bloodcell_jax import cli
from bloodcell_jax.cli.command_line import VERBS
from bloodcell_jax.cli.verb import Verb, say
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.classifier import Classifier

ROOT = Path(__file__).parents[1]
BARE = re.compile(r"(?<!['\"\w])--config\.stages\[")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Work in a folder with a configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        '"""Cells of our lab.\n\nThe second paragraph."""\n'
        "from bloodcell_jax.config import *\n"
        "def get_config(arg):\n"
        "    return Config(seed=int(arg), augment=AugmentConfig(policy='d4|brightness'))\n"
    )


def help_of(capsys, *words):
    assert cli.main(["bloodcell", *words, "--help"]) == 0
    return capsys.readouterr().out


def test_help_shows_the_docstring_and_the_values_of_a_configuration(written, capsys):
    text = help_of(capsys, "train", "--config=mine.py:41")
    assert "\nCells of our lab.\n\nThe second paragraph.\n" in text
    assert "\n  --config.seed=41\n" in text
    assert "\n  '--config.augment.policy=d4|brightness'\n" in text
    assert "Values are those of mine.py:41\n" in text
    assert "\n  --config.seed=0\n" in help_of(capsys, "train")


def test_help_on_a_configuration_that_wants_an_argument_says_so(written, capsys):
    text = help_of(capsys, "benchmark", "--config=mine.py")
    assert "Cells of our lab." in text
    assert "\n  --config.seed=0\n" in text
    assert re.search(r"Values are those of Config, because the file says: .*argument", text)


def test_help_on_a_configuration_that_is_not_there_is_refused(written, capsys):
    assert cli.main(["bloodcell", "train", "--config=quickstrat", "--help"]) == 2
    assert "did you mean --config=quickstart?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tarin"], "train"),
        (["find-lr"], "find_lr"),
        (["train", "--config=quickstart", "--workdr=run"], "--workdir"),
        (["train", "--config=quickstart", "--dry-run"], "--dry_run"),
        (["predict", "--imput=cells"], "--input"),
        (["train", "--conifg=quickstart"], "--config"),
        (["train", "--config=quickstart", "--config.train.batchsize=8"], "--config.train.batch_size"),
        (
            ["train", "--config=quickstart", "--config.stages[0].optimizer.learning_rat=1"],
            "'--config.stages[0].optimizer.learning_rate'",
        ),
    ],
)
def test_what_is_misspelled_gets_a_suggestion(words, offered, capsys):
    assert cli.main(["bloodcell", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"did you mean {offered}?" in line


def test_what_is_like_nothing_gets_none(capsys):
    assert cli.main(["bloodcell", "xyzzy"]) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if verb.has_config])
def test_flags_with_brackets_are_quoted_in_help(name, capsys):
    assert not BARE.search(help_of(capsys, name))


def test_flags_with_brackets_are_quoted_in_documents_and_docstrings():
    """Zsh, the shell of macOS, refuses bare ones: no matches found."""
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("launch/*")]
    sources = [*ROOT.glob("configs/*.py"), *(ROOT / "bloodcell_jax").rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (*documents, *sources)
        for line in path.read_text(encoding="utf-8").splitlines()
        if BARE.search(line)
    ]
    assert found == []


def test_the_verbs_for_programs_print_json():
    known = {name for name, verb in VERBS.items() if verb.has_json}
    assert known == {"train", "evaluate", "predict", "audit", "benchmark", "plan"}
    assert all("DEFINE_bool" not in inspect.getsource(VERBS[name].run) for name in known)


def verb_that_says(results):
    def run(values):
        say("words for people")
        return results

    def define(values):
        flags.DEFINE_string("output", None, "a file", flag_values=values)

    return Verb("says", "  says", define, run, has_json=True)


def call(verb, *words):
    values = verb.create_flags()
    values(["says", *words])
    verb.call(values)


def test_json_stands_alone_on_standard_output(capsys):
    verb = verb_that_says({"name": "a\x1b[2J", "score": 0.5})
    call(verb)
    assert capsys.readouterr() == ("words for people\n", "")
    call(verb, "--json")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"name": "a\x1b[2J", "score": 0.5}
    assert "\x1b" not in printed.out
    assert printed.err == "words for people\n"
    call(verb_that_says(None), "--json")  # Another process of the run says them.
    assert capsys.readouterr().out == ""


def test_json_and_another_result_do_not_share_standard_output():
    for output in ("-", "/dev/stdout"):
        with pytest.raises(UsageError, match=rf"--json, --output={output}: "):
            call(verb_that_says({}), "--json", f"--output={output}")


def test_predict_prints_json(trained, cells, tmp_path, capfd):
    (tmp_path / "a").mkdir()
    with np.load(cells) as arrays:
        for name, index in (("a/1.png", 0), ("a/2.png", 50), ("3.png", 100)):
            Image.fromarray(arrays["images"][index]).save(tmp_path / name)
    output = tmp_path / "cells.csv"
    flags = [f"--workdir={trained}", f"--input={tmp_path}", f"--output={output}"]
    assert cli.main(["bloodcell", "predict", *flags, "--json"]) == 0
    results = json.loads(capfd.readouterr().out)
    assert results["output"] == str(output)
    assert (results["images"], results["unreadable"], results["page"]) == (3, 0, None)
    assert results["counts"] == {"red": 1, "green": 1, "blue": 1}
    counts = {folder: sum(found["counts"].values()) for folder, found in results["folders"].items()}
    assert sorted(counts.values()) == [1, 2]


def test_a_run_is_loaded_without_a_word(trained, capfd):
    Classifier.from_workdir(trained, checkpoint="last")
    assert capfd.readouterr() == ("", "")
