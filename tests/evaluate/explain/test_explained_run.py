"""A run and the verb evaluate leave what explains each split, with training images where their source is at hand."""

import json
import shutil

import numpy as np
import pytest

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.explain.occlusion import GRID
from bloodcell_jax.report import write_report
from bloodcell_jax.workdir import Workdir


def _cells(folder):
    return json.loads((folder / "explained_cells.json").read_text())


def _evaluate(capsys, *flags):
    assert cli.main(["bloodcell", "evaluate", *flags]) == 0, capsys.readouterr().err


def test_a_run_explains_its_splits_beside_images_that_it_learned_from(trained):
    splits = Workdir(trained).read_splits()
    for split in ("val", "test"):
        folder = trained / "eval" / split
        record, embedding = _cells(folder), json.loads((folder / "embedding_map.json").read_text())
        assert record["without_neighbors"] is None
        assert len(record["cells"]) == 2, "evaluate.explain of the run"
        for cell in record["cells"]:
            assert int(cell["id"]) in splits[split]
            assert len(cell["neighbors"]) == 3
            assert {int(image["id"]) for image in cell["neighbors"]} <= set(splits["train"].tolist())
            distances = [image["distance"] for image in cell["neighbors"]]
            assert distances == sorted(distances)
        n = json.loads((folder / "metrics.json").read_text())["n"]
        assert len(embedding["x"]) == embedding["of"] == n
        wrong = np.array(embedding["label"]) != embedding["predicted"]
        assert wrong.mean() == pytest.approx(1 - json.loads((folder / "metrics.json").read_text())["accuracy"])


def test_the_report_is_made_from_the_files_alone(trained, tmp_path):
    shutil.copytree(trained / "eval", tmp_path / "eval")
    html = write_report(tmp_path).read_text()
    assert "What the model looks at on test" in html
    assert html.count("<article>") == 2
    (tmp_path / "eval" / "test" / "explained_cells.json").unlink()
    (tmp_path / "eval" / "test" / "embedding_map.json").unlink()
    assert "What the model looks at" not in write_report(tmp_path).read_text()


def test_another_source_stands_beside_the_images_of_the_run(trained, cells, tmp_path, capsys):
    flags = (f"--workdir={trained}", f"--source=npz:{cells}", f"--output={tmp_path / 'out'}", "--explain=5")
    _evaluate(capsys, *flags)
    record = _cells(tmp_path / "out")
    assert len(record["cells"]) == 5
    # The source is the run's own, so that the nearest image of one that was learned is that image.
    train = set(Workdir(trained).read_splits()["train"].tolist())
    learned = [cell for cell in record["cells"] if int(cell["id"]) in train]
    assert learned
    for cell in learned:
        assert cell["neighbors"][0]["id"] == cell["id"]
        assert cell["neighbors"][0]["distance"] < 0.03
    assert "What the model looks at" in (tmp_path / "out" / "index.html").read_text()


def test_training_images_that_are_not_at_hand_are_said_to_be_missing(trained, cells, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(trained, moved)
    config = json.loads((moved / "config.json").read_text())
    config["data"]["source"] = "npz:gone.npz"
    (moved / "config.json").write_text(json.dumps(config))
    _evaluate(capsys, f"--workdir={moved}", f"--source=npz:{cells}", f"--output={tmp_path / 'out'}", "--explain=1")
    record = _cells(tmp_path / "out")
    assert "gone.npz" in record["without_neighbors"]
    assert record["cells"][0]["neighbors"] == []
    assert "gone.npz" in (tmp_path / "out" / "index.html").read_text()


def test_an_unknown_map_is_refused_before_anything_is_read(trained, capsys):
    assert cli.main(["bloodcell", "evaluate", f"--workdir={trained}", "--embedding_map=tsne"]) == 2
    assert "pca, umap" in capsys.readouterr().err.splitlines()[-1]


def test_images_are_explained_from_python(trained, cells):
    classifier = bc.Classifier.from_workdir(trained)
    with np.load(cells) as arrays:
        images = arrays["images"][[0, 50, 100]]
    explained = classifier.explain(images)
    assert explained.classes.tolist() == classifier.predict(images).argmax(axis=1).tolist()
    assert explained.grad_cam.shape == (3, 1, 1)
    assert explained.occlusion.shape == (3, GRID, GRID)
    named = classifier.explain([images[0]], ["blue"])
    assert named.classes.tolist() == [2]
    np.testing.assert_allclose(named.logits, explained.logits[:1], atol=1e-5)
    with pytest.raises(UsageError, match=r"purple.*red, green, blue"):
        classifier.explain(images, ["red", "red", "purple"])
    with pytest.raises(UsageError, match="3 images and 1 class"):
        classifier.explain(images, ["red"])
    with pytest.raises(UsageError, match="0 images"):
        classifier.explain([])
