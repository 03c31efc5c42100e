"""Which images the pages show: a bounded number, the same as a sort of all would give."""

from pathlib import PurePosixPath

import numpy as np
import pytest

from bloodcell_jax.data.image_files import DecodedImage
from bloodcell_jax.evaluate.chosen_images import Gallery, Lowest, WorkList, review_order
from bloodcell_jax.evaluate.classified_files import ClassifiedFile
from bloodcell_jax.evaluate.input_files import InputFile


@pytest.mark.parametrize("count", [0, 1, 7, 100, 300])
def test_the_lowest_are_those_of_a_stable_sort(count):
    keys = np.random.default_rng(count).integers(0, 20, 200).tolist()
    lowest = Lowest(count)
    for number, key in enumerate(keys):
        lowest.offer(key, number)
    assert lowest.items() == np.argsort(keys, kind="stable")[:count].tolist()


def classified(number, label, confidence):
    probabilities = np.full(3, (1 - confidence) / 2)
    probabilities[label] = confidence
    file = InputFile(f"{number}.png", "a", PurePosixPath("/gone"), f"{number}.png", lambda: b"no image")
    pixels = np.full((8, 8, 3), number, np.uint8)
    return ClassifiedFile(number, file, DecodedImage(pixels, 8, 8, 8), probabilities)


def test_a_gallery_shows_both_ends_of_a_large_class_and_all_of_a_small_one():
    gallery, rng = Gallery(3, size=10), np.random.default_rng(0)
    confidence = rng.permutation(np.linspace(0.5, 0.9, 40))
    for number, value in enumerate(confidence):
        gallery.offer(classified(number, int(number % 5 == 0), value))
    surest, least_sure = gallery.of_class(0)
    own = np.array([number for number in range(40) if number % 5])
    ranked = own[np.argsort(-confidence[own])].tolist()
    assert [each.number for each in surest] == ranked[:5]
    assert [each.number for each in least_sure] == ranked[-5:]
    surest, least_sure = gallery.of_class(1)
    assert [each.number for each in surest + least_sure] == sorted(range(0, 40, 5), key=lambda i: -confidence[i])
    assert gallery.of_class(2) == ([], [])


def test_the_least_certain_come_first_in_a_work_list():
    work_list = WorkList(4)
    for number, confidence in enumerate((0.9, 0.4, 0.8, 0.6, 0.4, 0.95)):
        work_list.offer(classified(number, 0, confidence))
    cells = work_list.cells()
    assert [cell.classified.number for cell in cells] == [1, 4, 3, 2]
    # Their files have gone, so what the model saw is shown.
    assert all(cell.size == (8, 8) and cell.jpeg.startswith(b"\xff\xd8") for cell in cells)


def test_the_least_known_and_the_least_certain_take_turns():
    confidence = np.array([0.9, 0.4, 0.8, 0.6, 0.7])
    assert review_order(confidence).tolist() == [1, 3, 4, 2, 0]
    score = np.array([5.0, 1.0, 2.0, 9.0, 0.0])
    assert review_order(confidence, score).tolist() == [3, 1, 0, 2, 4]
    assert review_order(confidence, -confidence).tolist() == review_order(confidence).tolist()
