"""A trained run scored on its own splits, and on another laboratory with names of its own."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.evaluate_source import evaluate_source
from bloodcell_jax.report.evaluation_page import write_evaluation_page
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.own_files import delete_run

NAMES = ("red", "green", "blue")


def test_evaluate_the_run_s_own_splits(trained, tmp_path, capsys):
    output = tmp_path / "again"
    assert cli.main(["bloodcell", "evaluate", f"--workdir={trained}", f"--output={output}"]) == 0
    again, first = (json.loads((f / "metrics.json").read_text()) for f in (output, trained / "eval/test"))
    assert again["accuracy"] == first["accuracy"]
    assert again["nll"] == pytest.approx(first["nll"], abs=1e-5)
    assert "accuracy" in capsys.readouterr().out
    flags = ["--split=all", f"--output={tmp_path / 'all'}", "--explain=0"]
    assert cli.main(["bloodcell", "evaluate", f"--workdir={trained}", *flags]) == 0
    assert json.loads((tmp_path / "all" / "metrics.json").read_text())["n"] == 120
    assert json.loads((tmp_path / "all" / "explained_cells.json").read_text())["cells"] == []
    page = (tmp_path / "all" / "index.html").read_text()
    assert "<article>" not in page
    assert "A map of all images" in page


def test_another_checkpoint_leaves_the_results_of_the_run_as_they_are(trained, tmp_path):
    workdir = Workdir(shutil.copytree(trained, tmp_path / "run"))
    best = json.loads(workdir.evaluation("test").metrics.read_text())
    other = next(step for step in ("32", "36") if int(step) != best["step"])
    flags = [f"--workdir={workdir}", "--split=test", f"--checkpoint={other}", "--explain=0"]
    assert cli.main(["bloodcell", "evaluate", *flags]) == 0
    assert json.loads(workdir.evaluation("test").metrics.read_text()) == best
    assert json.loads(workdir.evaluation(f"test_step{other}").metrics.read_text())["step"] == int(other)
    delete_run(workdir)
    assert not workdir.eval.exists()


def test_images_that_the_run_learned_from_are_counted(trained, cells, tmp_path, capsys):
    flags = ["bloodcell", "evaluate", f"--workdir={trained}", "--explain=0"]
    assert cli.main([*flags, "--split=val", f"--output={tmp_path / 'val'}"]) == 0
    assert "seen_in_training" not in json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert cli.main([*flags, f"--source=npz:{cells}", f"--output={tmp_path / 'all'}"]) == 0
    metrics = json.loads((tmp_path / "all" / "metrics.json").read_text())
    count = len(Workdir(trained).read_splits()["train"])
    assert metrics["seen_in_training"] == count
    assert metrics["calibration"]["holds_val"]
    assert f"{count} of 120 images" in capsys.readouterr().err
    assert f"{count} of these 120 images" in (tmp_path / "all" / "index.html").read_text()


def test_images_that_a_file_of_a_model_knows_from_its_training_are_counted(trained, cells, tmp_path, capsys):
    """One image less is another source, and a model's file does not say which images were in train."""
    with np.load(cells) as arrays:
        np.savez(tmp_path / "fewer.npz", images=arrays["images"][1:], labels=arrays["labels"][1:])
    for number, model in enumerate((f"--workdir={trained}", f"--model={trained}/model.safetensors")):
        output = tmp_path / str(number)
        flags = [model, f"--source=npz:{tmp_path / 'fewer.npz'}", f"--output={output}", "--explain=0"]
        assert cli.main(["bloodcell", "evaluate", *flags]) == 0
        count = json.loads((output / "metrics.json").read_text())["seen_in_training_at_least"]
        assert count in (len(Workdir(trained).read_splits()["train"]) - 1, len(Workdir(trained).read_splits()["train"]))
        assert f"at least {count} of 119 images" in capsys.readouterr().err
        assert f"At least {count} of these 119 images" in (output / "index.html").read_text()


def test_another_part_of_the_run_s_own_images_needs_a_folder_of_its_own(trained, tmp_path, capsys):
    before = Workdir(trained).evaluation("test").metrics.read_bytes()
    command = ["bloodcell", "evaluate", f"--workdir={trained}", "--crop=0.5", "--explain=0"]
    assert cli.main(command) == 2
    assert re.search(r"--crop: .*--output", capsys.readouterr().err)
    assert Workdir(trained).evaluation("test").metrics.read_bytes() == before
    assert cli.main([*command, f"--output={tmp_path / 'o'}"]) == 0
    assert json.loads((tmp_path / "o" / "metrics.json").read_text())["crop"] == 0.5


@pytest.fixture
def other_lab(cells, tmp_path):
    """Return class folders with names of another laboratory: two of the three classes, and one that is none."""
    with np.load(cells) as arrays:
        for name, first in (("BLUE", 80), ("Rouge", 0), ("artifact", 40)):
            (tmp_path / "lab" / name).mkdir(parents=True)
            for i in range(first, first + 5):
                Image.fromarray(arrays["images"][i]).save(tmp_path / "lab" / name / f"{i}.png")
    return tmp_path / "lab"


def test_evaluate_another_source_by_class_name(trained, other_lab, tmp_path, capsys):
    command = ["bloodcell", "evaluate", f"--workdir={trained}", f"--source=folder:{other_lab}"]
    results = tmp_path / "results"
    assert cli.main([*command, f"--output={results}", "--class_map=rouge=red,artifact=drop"]) == 0
    captured = capsys.readouterr()
    assert "2 of 3 classes, 1 without an image (green), n 10" in captured.out
    assert "BLUE is blue, Rouge is red" in captured.err
    assert re.search(r"\nOn this source the confidence .*\(ECE \d\.\d\d; \d\.\d\d on val\)", captured.out)
    assert re.search(r"\n\d+ of 10 images \(", captured.out)
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["n"] == 10
    assert metrics["accuracy"] > 0.8
    assert metrics["present_classes"] == ["red", "blue"]
    assert metrics["class_map"] == {"BLUE": "blue", "Rouge": "red", "artifact": None}
    assert metrics["dropped"] == {"artifact": 5}
    assert metrics["forced_choice"]["f1_macro"] >= metrics["f1_macro"]
    page = (results / "index.html").read_text()
    assert "test, own data" in page
    assert "On this source the confidence" in page
    # What was understood is a map for the next time.
    (tmp_path / "map.json").write_text(json.dumps(metrics["class_map"]))
    again = tmp_path / "again"
    assert cli.main([*command, f"--output={again}", f"--class_map={tmp_path / 'map.json'}"]) == 0
    assert (again / "predictions.csv").read_bytes() == (results / "predictions.csv").read_bytes()


def test_evaluate_refuses_what_it_cannot_place(trained, other_lab, tmp_path, capsys):
    command = ["bloodcell", "evaluate", f"--workdir={trained}", f"--source=folder:{other_lab}"]
    assert cli.main(command) == 2, "--output is missing"
    command.append(f"--output={tmp_path / 'results'}")
    assert cli.main(command) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert "Rouge, artifact" in line
    assert "red, green, blue" in line
    assert '--class_map="Rouge=drop,artifact=drop"' in line
    assert cli.main([*command, "--class_map=Rouge=purple,artifact=drop"]) == 2
    assert cli.main(["bloodcell", "evaluate", f"--workdir={trained}", "--class_map=red=blue"]) == 2
    assert cli.main([*command, "--class_map=Rouge=drop,artifact=drop,BLUE=drop"]) == 3
    assert not (tmp_path / "results").exists()
    for flag in ("--include=a/**", "--group_regex=(.)", "--skip_bad", "--class_level=1", "--root=cells"):
        assert cli.main(["bloodcell", "evaluate", f"--workdir={trained}", flag]) == 2
        assert f"{flag.partition('=')[0]}: belongs to --source" in capsys.readouterr().err


def test_labels_without_names_are_in_the_model_s_order(trained, cells, tmp_path, capsys):
    command = ["bloodcell", "evaluate", f"--workdir={trained}", f"--source=npz:{cells}", f"--output={tmp_path / 'o'}"]
    assert cli.main(command) == 0
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert metrics["class_map"] == {name: name for name in NAMES}
    assert "0 is red, 1 is green, 2 is blue" in capsys.readouterr().err
    assert metrics["accuracy"] > 0.8


def test_a_model_without_its_run_needs_a_source(trained, cells, tmp_path):
    classifier = bc.Classifier.from_workdir(trained)
    alone = bc.Classifier(classifier.config, classifier._params, step=36, workdir=None)
    with pytest.raises(UsageError, match="--source"):
        evaluate_source(alone, None, None, None)
    folder, scores, _ = evaluate_source(alone, f"npz:{cells}", None, str(tmp_path / "out"))
    assert scores["n"] == 120
    page = write_evaluation_page(folder, trained / "model.safetensors").read_text()
    assert "own data" not in page
    assert "test_convnext2" in page
    explained = json.loads((folder.path / "explained_cells.json").read_text())
    assert "--workdir" in explained["without_neighbors"]


def test_changed_data_are_not_taken_for_the_run_s_own(trained, cells, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    with np.load(cells) as arrays:
        changed = {"images": 255 - arrays["images"], "labels": arrays["labels"]}
    np.savez(tmp_path / "changed.npz", **changed)
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["source"] = f"npz:{tmp_path / 'changed.npz'}"
    (workdir / "config.json").write_text(json.dumps(config))
    assert cli.main(["bloodcell", "evaluate", f"--workdir={workdir}", f"--output={tmp_path / 'out'}"]) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert "not the data this run was trained on" in line
    assert not (tmp_path / "out").exists()
