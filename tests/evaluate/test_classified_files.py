"""Files are classified while threads decode: in order, to the bit as one by one, and every fault is said in order."""

import contextlib
import logging
import re
import threading

import numpy as np
import pytest
from PIL import Image

import bloodcell_jax as bc
from bloodcell_jax.errors import DataError
from bloodcell_jax.evaluate.classified_files import classify_files
from bloodcell_jax.evaluate.input_files import find_input_files


@pytest.fixture(scope="module")
def classifier(trained):
    return bc.Classifier.from_workdir(trained)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of 150 files of several sizes: every tenth cannot be read, and some are animations."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(150):
        path, side = folder / f"{number:03}.png", (32, 32, 150, 40)[number % 4]
        frames = [Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(2)]
        if number % 10 == 3:
            path.write_bytes(b"no image")
        elif number % 25 == 7:
            frames[0].save(path, save_all=True, append_images=frames[1:])
        else:
            frames[0].save(path)
    return folder


@pytest.fixture
def files(folder):
    with contextlib.ExitStack() as archives:
        yield find_input_files([str(folder)], archives, strict=False).files


def test_answers_equal_those_of_the_classifier_to_the_bit(classifier, files, folder):
    classified = list(classify_files(classifier, files))
    numbers = [number for number in range(150) if number % 10 != 3]
    assert [each.number for each in classified] == numbers
    assert [each.file.name for each in classified] == [f"{number:03}.png" for number in numbers]
    expected = classifier.predict([folder / f"{number:03}.png" for number in numbers])
    np.testing.assert_array_equal(np.array([each.probabilities for each in classified]), expected)
    assert [(each.label, each.confidence) for each in classified] == [(p.argmax(), p.max()) for p in expected]
    assert [each.image.width for each in classified][:3] == [32, 32, 150]


def test_what_is_said_of_files_has_their_order(classifier, files, caplog):
    with caplog.at_level(logging.INFO, "bloodcell_jax"):
        list(classify_files(classifier, files))
    said = [(int(re.match(r"(\d+)\.png: ", record.getMessage())[1]), record.levelname) for record in caplog.records]
    faults = [(number, "WARNING") for number in range(3, 150, 10)]
    notes = [(number, "INFO") for number in range(7, 150, 25)]
    assert said == sorted(faults + notes)
    assert caplog.messages[0] == "003.png: cannot be read as an image (not a known image format); replace or remove it"


def test_progress_ends_with_the_last_file_readable_or_not(classifier, files):
    shown = []
    list(classify_files(classifier, files, lambda done, total: shown.append((done, total))))
    assert shown[0] == (0, 150)
    assert shown[-1] == (150, 150)
    assert shown == sorted(set(shown))
    assert len(shown) >= 150 // classifier.batch_size


def test_no_thread_is_left_if_the_loop_ends_early(classifier, files):
    list(classify_files(classifier, files[:40]))  # JAX's own threads have started.
    before = set(threading.enumerate())
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(classify_files(classifier, files)) as classified:
        next(classified)
        raise KeyboardInterrupt
    assert set(threading.enumerate()) == before


def test_no_thread_is_left_if_the_model_is_at_fault(classifier, files):
    import jax

    broken = jax.tree.map(lambda leaf: leaf * np.float32("nan"), classifier._params)
    broken = bc.Classifier(classifier.config, broken, step=12, workdir=None)
    before = set(threading.enumerate())
    with pytest.raises(DataError, match=r"^32 of 32 .*\bstep 12\b"):
        list(classify_files(broken, files))
    assert {thread for thread in threading.enumerate() if "ThreadPool" in thread.name} <= before
