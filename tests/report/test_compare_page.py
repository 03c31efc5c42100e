"""`report --compare` says on standard output and on a page what two runs have in common and what not."""

import csv
import json
import re
import shutil

import pytest

from bloodcell_jax import cli


@pytest.fixture(scope="module")
def other(trained, tmp_path_factory):
    """Return a copy of a run that had another seed, and the opposite of whose answers is given for two images."""
    workdir = tmp_path_factory.mktemp("other") / "<i>other"
    shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("checkpoints"))
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"seed": 4}))
    path = workdir / "eval" / "test" / "predictions.csv"
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    for row in rows[:2]:
        row[2] = row[1] if row[1] != row[2] else next(name for name in ("red", "green") if name != row[1])
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return workdir


def compare(*words):
    return cli.main(["bloodcell", "report", "--compare", *map(str, words)])


def test_two_runs_stand_side_by_side(trained, other, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compare(trained, other) == 0
    text = capsys.readouterr().out
    metrics = json.loads((trained / "eval" / "test" / "metrics.json").read_text())
    low, high = metrics["accuracy_ci95"]
    accuracy = f"{100 * metrics['accuracy']:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
    assert re.search(rf"Accuracy +{re.escape(accuracy)} +{re.escape(accuracy)}\n", text)
    assert f"accuracy {-200 / metrics['n']:.2f} points" in text
    assert "seed: 3 (run), 4 (<i>other)" in text
    assert "blue" in text
    assert f"on the same {metrics['n']} images" in text
    assert "McNemar's exact test: p = " in text
    html = (tmp_path / "compare.html").read_text()
    assert "page: compare.html" in text
    assert "&lt;i&gt;other" in html
    assert "<i>" not in html
    for words in ("McNemar's exact test", "seed", "Training time"):
        assert words in html.replace("&#39;", "'")
    assert "has different" not in text
    assert "warning" not in text


def test_the_page_goes_where_it_is_told_and_over_no_input(trained, other, tmp_path, capfd):
    page = tmp_path / "a.html"
    assert compare(trained, f"--output={page}", other) == 0
    assert page.exists()
    assert "rule of three" not in capfd.readouterr().out
    assert compare(trained, other, "--output=-") == 0
    out, err = capfd.readouterr()
    assert "<!doctype html>" in out
    assert "seed: 3" in err
    for output, said in ((trained / "config.json", "is the input"), (tmp_path, "is a folder")):
        assert compare(trained, other, f"--output={output}") == 2
        assert said in capfd.readouterr().err


def test_two_runs_that_agree_on_every_image_may_still_differ(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("checkpoints"))
    assert compare(trained, copy, f"--output={tmp_path / 'a.html'}") == 0
    assert "they may still differ by 15.3 points" in capsys.readouterr().out  # 1 - 0.05 ** (1 / 18)


def test_what_cannot_be_compared_is_one_line(trained, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words, code, said in (
        ([trained], 2, "one run alone"),
        ([trained, tmp_path / "absent"], 2, "no such folder"),
        ([trained, tmp_path / "empty"], 3, "config.json"),
        ([trained, trained], 2, "the same folder"),
    ):
        assert compare(*words) == code
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert cli.main(["bloodcell", "report", f"--workdir={trained}", f"--compare={trained}"]) == 2
    assert cli.main(["bloodcell", "report", f"--workdir={trained}", "--output=a.html"]) == 2
    assert cli.main(["bloodcell", "report", str(trained)]) == 2
    assert "unexpected" in capsys.readouterr().err
