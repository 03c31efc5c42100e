"""Using a trained run: from Python, on files, on another source."""

import copy
import csv
import io
import shutil
import warnings
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax import cli
from bloodcell_jax.data.geometry import View
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.evaluate_source import evaluate_source
from bloodcell_jax.evaluate.predict_files import predict_files
from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def classifier(trained):
    return bc.Classifier.from_workdir(trained)


@pytest.fixture
def image_folder(cells, tmp_path):
    """Return a folder of six of the training images, some nested, and two files that are no image."""
    folder = tmp_path / "images"
    (folder / "slide 2").mkdir(parents=True)
    with np.load(cells) as arrays:
        images = arrays["images"][::20]
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / (f"{i}.png" if i < 4 else f"slide 2/{i}.PNG"))
    (folder / "broken.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("ignored")
    return folder


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_classifier_gives_what_the_run_wrote(classifier, trained, cells):
    rows = read_rows(trained / "eval/test/predictions.csv")
    with np.load(cells) as arrays:
        images = arrays["images"][[int(row["id"]) for row in rows]]
    probabilities = classifier.predict(images)
    written = np.array([[float(row[name]) for name in NAMES] for row in rows])
    np.testing.assert_allclose(probabilities, written, atol=2e-6)
    assert classifier.class_names == NAMES
    assert classifier.predict(images[:0]).shape == (0, 3)
    # Another size is resized, alone or in a crowd.
    large = np.repeat(np.repeat(images[:2], 2, 1), 2, 2)
    np.testing.assert_allclose(classifier.predict(large)[1], classifier.predict(large[1:])[0], atol=1e-6)


def test_arrays_that_show_nothing_are_refused(classifier, cells):
    with np.load(cells) as arrays:
        images = arrays["images"][:4]
    with pytest.raises(DataError, match=r"\b1 of 255\b"):
        classifier.predict((images / 255 + 0.5).astype(np.uint8))


def test_one_image_that_shows_nothing_among_others_is_refused(classifier, cells):
    with np.load(cells) as arrays:
        images = arrays["images"][:3].copy()
    for level in (0, 200):
        images[1] = level
        for given in (images, list(images)):
            with pytest.raises(DataError, match="image 1"):
                classifier.predict(given)


def test_one_image_must_stand_in_a_list(classifier, image_folder):
    path = image_folder / "0.png"
    for image in (str(path), path, Image.new("RGB", (32, 32), "red")):
        with pytest.raises(UsageError, match="list"):
            classifier.predict(image)
    one = classifier.predict([path])
    np.testing.assert_array_equal(classifier.predict(iter([path])), one)


def test_cells_of_another_size_are_warned_of(classifier, image_folder):
    other = copy.copy(classifier)
    other.view = View(360, 200)
    path = image_folder / "0.png"
    with pytest.warns(UserWarning, match="360"):
        other.predict([path])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.predict([path], cropped=True)
        classifier.predict([path])


@pytest.fixture
def diverged(classifier):
    """Return a classifier whose head holds NaN."""
    params = jax.tree.map(lambda leaf: leaf * np.float32("nan"), classifier._params)
    return bc.Classifier(classifier.config, params, step=12, workdir=classifier.workdir)


def test_a_diverged_checkpoint_gives_no_probabilities(diverged, cells, image_folder, tmp_path):
    with np.load(cells) as arrays:
        images = arrays["images"][:5]
    for predict in (diverged.predict, lambda images: diverged.predict_examples(images, np.arange(len(images)))):
        with pytest.raises(DataError, match=r"^5 of 5 .*\bstep 12\b"):
            predict(images)
    with pytest.raises(DataError, match=r"\bstep 12\b"):
        predict_files(lambda: diverged, [str(image_folder)], PredictionOutputs(tmp_path / "cells.csv"), strict=False)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("images", [np.zeros((2, 32, 32), np.uint8), np.zeros((2, 32, 32, 3), np.float32)])
def test_other_arrays_are_refused(classifier, images):
    with pytest.raises(UsageError, match="expected uint8"):
        classifier.predict(images)


def test_checkpoints_by_name(trained):
    assert bc.Classifier.from_workdir(trained, checkpoint="last").step == 36
    assert bc.Classifier.from_workdir(trained, checkpoint="32").step == 32
    assert bc.Classifier.from_workdir(trained, checkpoint=32).step == 32
    with pytest.raises(UsageError, match="there are best, last, "):
        bc.Classifier.from_workdir(trained, checkpoint="7")


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(DataError, match=r"config\.json: no such file"):
        bc.Classifier.from_workdir(tmp_path)


def test_predict_writes_a_row_per_image_and_names_the_others(trained, image_folder, tmp_path, capsys):
    output = tmp_path / "out" / "cells.csv"
    code = cli.main(["bloodcell", "predict", f"--workdir={trained}", f"--input={image_folder}", f"--output={output}"])
    assert code == 0
    rows = read_rows(output)
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "3.png", "slide 2/4.PNG", "slide 2/5.PNG"]
    assert list(rows[0]) == ["file", "predicted", "confidence", *NAMES, "ood_score", "known"]
    assert [row["predicted"] for row in rows] == [NAMES[i // 2] for i in range(6)]
    for row in rows:
        assert row["confidence"] == max(row[name] for name in NAMES)
        assert (row["known"] == "true") == (float(row["ood_score"]) <= 1)
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.err
    assert captured.out.splitlines()[-1].endswith("6 images")


def test_predict_reads_zips_globs_and_single_images(trained, image_folder, tmp_path):
    archive = tmp_path / "more.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(image_folder / "0.png", "deep/0.png")
    output = tmp_path / "cells.csv"
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--output={output}", f"--input={archive}"]
    assert cli.main([*command, f"--input={image_folder}/[12].png", f"--input={image_folder / '3.png'}"]) == 0
    assert [row["file"] for row in read_rows(output)] == ["deep/0.png", "1.png", "2.png", "3.png"]


def test_predict_reads_every_image_and_says_what_else_there_was(trained, image_folder, tmp_path, capsys):
    image = Image.open(image_folder / "0.png")
    for name in ("a.jfif", "b.JPE", "c.jp2", "d.tga"):
        kind = {"jfif": "jpeg", "jpe": "jpeg", "jp2": "jpeg2000", "tga": "tga"}[name[2:].lower()]
        image.save(image_folder / name, kind)
    (image_folder / "broken.jpg").unlink()
    output = tmp_path / "cells.csv"
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--output={output}", f"--input={image_folder}"]
    assert cli.main([*command, "--strict"]) == 0
    assert [row["file"] for row in read_rows(output)][4:8] == ["a.jfif", "b.JPE", "c.jp2", "d.tga"]
    (line,) = capsys.readouterr().err.splitlines()
    assert ": 1 (.txt: 1)" in line
    (image_folder / "scan.psd").write_bytes(b"8BPS")
    assert cli.main(command) == 0
    assert ".psd: 1" in capsys.readouterr().err
    assert cli.main([*command, "--strict"]) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--strict: " in line
    assert ": 1 (scan.psd)" in line


def test_files_of_equal_names_have_distinct_rows(trained, image_folder, tmp_path, capsys):
    shutil.copytree(image_folder, tmp_path / "b")
    output = tmp_path / "cells.csv"
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--output={output}", f"--input={image_folder}/0.png"]
    assert cli.main([*command, f"--input={tmp_path / 'b' / '0.png'}", f"--input={tmp_path / 'b' / '1.png'}"]) == 0
    assert [row["file"] for row in read_rows(output)] == ["images/0.png", "b/0.png", "b/1.png"]
    assert "0.png" in capsys.readouterr().err


def test_predict_says_how_much_of_large_images_it_looked_at(trained, image_folder, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, (width, height) in {"x": (640, 480), "y": (320, 240), "z": (640, 480), "wide": (640, 200)}.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{name}.png")
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--output={tmp_path / 'cells.csv'}"]
    assert cli.main([*command, f"--input={tmp_path}/*.png", f"--input={image_folder}/0.png"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert all(words in line for words in ("640x480 (2)", "320x240 (1)", "1 more sizes (1)", "4 cropped to", "75 % of"))
    assert cli.main([*command, f"--input={tmp_path}/x.png", "--crop=20"]) == 0
    assert "20x20 (1); 0.13 % of" in capsys.readouterr().err
    assert cli.main([*command, f"--input={tmp_path}/x.png", "--microns_per_pixel=0.2"]) == 0
    assert "100x100 (1); 3.26 % of" in capsys.readouterr().err
    assert cli.main([*command, f"--input={tmp_path}/x.png", "--microns_per_pixel=0.2", "--crop=none"]) == 2
    assert cli.main([*command, f"--input={tmp_path}/x.png", "--microns_per_pixel=scale"]) == 2


def test_predict_and_evaluate_say_if_another_size_does_not_fit(classifier, tmp_path, caplog):
    config = copy.deepcopy(classifier.config)
    seen = bc.Classifier(config, classifier._params, step=12, workdir=classifier.workdir, view=View(360, 200))
    rng = np.random.default_rng(0)
    for folder, side in (("same", 360), ("other", 575)):
        for name in config.data.class_names:
            (tmp_path / folder / name).mkdir(parents=True)
            image = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
            image.save(tmp_path / folder / name / "1.png")
    outputs = PredictionOutputs(tmp_path / "o.csv")
    for folder, said in (("same", False), ("other", True)):
        for use in (
            lambda folder: predict_files(lambda: seen, [str(tmp_path / folder)], outputs, strict=False),
            lambda folder: evaluate_source(seen, f"folder:{tmp_path / folder}", None, str(tmp_path / "out")),
        ):
            caplog.clear()
            use(folder)
            warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert [("575" in line, "360" in line) for line in warnings] == [(True, True)] * said


def test_damage_inside_a_zip_costs_one_row(trained, image_folder, tmp_path, capsys):
    archive = tmp_path / "cells.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(image_folder / "0.png", "0.png")
        file.write(image_folder / "1.png", "1.png")
    content = bytearray(archive.read_bytes())
    start = 30 + len("0.png")  # behind the member's header, where decompression begins
    content[start + 1 : start + 40] = b"\xff" * 39
    archive.write_bytes(content)
    command = ["bloodcell", "predict", f"--workdir={trained}", f"--output={tmp_path / 'cells.csv'}"]
    assert cli.main([*command, f"--input={archive}"]) == 0
    assert [row["file"] for row in read_rows(tmp_path / "cells.csv")] == ["1.png"]
    assert "0.png: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--input={image_folder}", "--output={image_folder}"], 2, "is a folder"),
        (["--input={image_folder}", "--output={image_folder}/notes.txt/cells.csv"], 5, "cells.csv: cannot be written"),
        (["--input={image_folder}", "--strict"], 3, "1 of 7 images could not be read"),
        (["--input={image_folder}/broken.jpg"], 3, "1 of 1 images could not be read"),
        (["--input={image_folder}/absent"], 2, "absent: no such file, folder or match"),
        (["--input={image_folder}/slide*/none"], 2, "no such file, folder or match"),
        ([], 2, "--input: missing"),
        (["--input={image_folder}", "--crop=x"], 2, "--crop=x"),
        (["--input={image_folder}", "--checkpoint=5"], 2, "--checkpoint=5"),
    ],
)
def test_predict_refuses_with_one_line_and_no_file(trained, image_folder, tmp_path, capsys, arguments, code, words):
    output = tmp_path / "cells.csv"
    arguments = [argument.format(image_folder=image_folder) for argument in arguments]
    assert cli.main(["bloodcell", "predict", f"--workdir={trained}", f"--output={output}", *arguments]) == code
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_a_image_in_any_mode(classifier, image_folder):
    from bloodcell_jax.data.geometry import Geometry
    from bloodcell_jax.data.image_files import decode

    image = Image.open(image_folder / "0.png")
    expected = decode((image_folder / "0.png").read_bytes(), "0.png", Geometry(32))
    for mode in ("RGBA", "P"):
        stream = io.BytesIO()
        image.convert(mode).save(stream, "png")
        found = decode(stream.getvalue(), mode, Geometry(32))
        assert found.shape == expected.shape == (32, 32, 3)
