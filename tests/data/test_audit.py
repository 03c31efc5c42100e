"""The findings of an audit in planted data, exactly: what it removes, and what it only reports."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

import bloodcell_jax as bc
from bloodcell_jax.data.audit.clusters import find_clusters, removals
from bloodcell_jax.data.audit.label_errors import find_label_errors
from bloodcell_jax.data.audit.shortcuts import acquisition_groups, tellings
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.synthetic import CLASS_NAMES, draw_cells
from bloodcell_jax.errors import DataError

SIZE, CELLS = 48, 320


def dataset(images, labels, splits=None):
    labels = np.asarray(labels, np.int32)
    return Dataset(images, labels, CLASS_NAMES, tuple(map(str, range(len(labels)))), "memory:cells", splits or {})


def brick_wall(size):
    """Return an image that is no cell."""
    y, x = np.mgrid[:size, :size]
    mortar = (y % 8 < 2) | ((x + 8 * (y // 8 % 2)) % 16 < 2)
    return np.where(mortar[..., None], (90, 200, 60), (190, 60, 30)).astype(np.uint8)


def landscape(size):
    """Return another one: a house on a meadow below the sky."""
    image = np.empty((size, size, 3), np.uint8)
    image[:], image[size // 2 :], image[size // 3 : -size // 4, size // 3 : -size // 3] = (
        (110, 170, 240),
        (50, 140, 40),
        (200, 60, 50),
    )
    return image


@pytest.fixture(scope="module")
def planted():
    """Return 320 cells, and after them copies of some, one with another label, and images that are no cells."""
    cells, labels = draw_cells(CELLS, seed=3, size=SIZE)
    added = [
        (brick_wall(SIZE), np.arange(16) % 8),  # 320..335: across all classes
        (landscape(SIZE), np.full(9, 2)),  # 336..344: within a class
        (cells[10], [labels[10]]),  # 345: a duplicate
        (cells[11, ::-1], [labels[11]]),  # 346: one upside down
        (cells[11].swapaxes(0, 1), [labels[11]]),  # 347: the same one, transposed
        (cells[12], [(labels[12] + 1) % 8]),  # 348: a copy with another label
        (np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8), [5]),  # 349: no cell
    ]
    images = np.concatenate([cells, *(np.repeat(image[None], len(own), axis=0) for image, own in added)])
    labels = np.concatenate([labels, *(own for _, own in added)])
    splits = {"train": np.arange(346), "test": np.arange(346, 350)}
    return dataset(images, labels, {name: rows.astype(np.int32) for name, rows in splits.items()})


@pytest.fixture(scope="module")
def found(planted):
    return bc.audit(planted)


def test_every_cluster_is_found_and_nothing_else(found):
    assert [(cluster.kind, cluster.indices, cluster.is_exact) for cluster in found.clusters] == [
        ("planted", list(range(320, 336)), True),
        ("planted", list(range(336, 345)), True),
        ("conflict", [12, 348], True),
        ("duplicate", [11, 346, 347], False),
        ("duplicate", [10, 345], True),
    ]
    assert found.clusters[0].class_counts == dict.fromkeys(CLASS_NAMES, 2)


def test_what_is_removed_and_why(found):
    by_reason = {}
    for removal in found.removals:
        assert removal.id == str(removal.index)
        by_reason.setdefault(removal.reason, []).append(removal.index)
    assert by_reason == {"planted": list(range(320, 345)), "conflict": [12, 348], "duplicate": [345, 346, 347]}
    details = {removal.index: removal.detail for removal in found.removals}
    assert re.search(r"\b9 copies .*erythroblast: 9$", details[336])
    assert re.search(r"^equal .*\b10$", details[345])
    assert re.search(r"^the same .*\b11$", details[347])
    assert re.search(r"^equal .*labels.*\(12, 348\)$", details[12])


def test_the_ceiling_counts_what_cannot_be_right(found):
    # 14 of the 16 copies under 8 labels are wrong, and one of the pair.
    assert found.accuracy_ceiling == 1 - 15 / 350
    assert re.search(
        r"\b30 of 350 .*8\.6%.*\b25 copies of 2 planted .*\b2 equal .*conflicting.*\b3 duplicates\b.* 95\.71%",
        found.verdict,
    )


def test_groups_in_two_splits_are_named_beside_the_leaks(found):
    data = found.dataset
    groups = ["p0" if i in data.splits["train"] else "p1" for i in range(len(data))]
    whole = replace(found, dataset=replace(data, groups=tuple(groups)))
    assert whole.warnings == found.warnings
    groups[data.splits["train"][0]] = "p1"
    (warning,) = set(replace(found, dataset=replace(data, groups=tuple(groups))).warnings) - set(found.warnings)
    assert warning.startswith("1 group is in more than one split (p1; ")


def test_leaks_are_clusters_in_two_splits(found):
    assert [(leak.indices, leak.splits) for leak in found.leaks] == [
        ([12, 348], ["train", "test"]),
        ([11, 346, 347], ["train", "test"]),
    ]


def test_images_that_are_no_cells_are_reported_and_kept(found):
    # They are the two planted images, once each, and the noise.
    assert {outlier.index for outlier in found.outliers} == {320, 336, 349}
    assert 349 not in {removal.index for removal in found.removals}


def test_cells_alone_are_clean():
    cells, labels = draw_cells(CELLS, seed=4, size=SIZE)
    found = bc.audit(dataset(cells, labels))
    assert (found.clusters, found.removals, found.leaks, found.shortcuts) == ([], [], [], [])
    assert len(found.outliers) <= 2, "the tail is fitted so that two may lie beyond it"
    assert found.acquisition_groups == []
    assert found.accuracy_ceiling == 1
    assert found.verdict.startswith("Nothing ")


def clusters_of(groups, labels, exact=None):
    groups = np.asarray(groups)
    data = dataset(np.zeros((len(groups), 2, 2, 3), np.uint8), labels)
    found = find_clusters(data, groups, groups if exact is None else exact)
    return data, found


def test_a_class_enlarged_by_copying_is_not_planted():
    # Class 0 has 10 images, 8 of each. Class 1 has 30 single images, and one that occurs 8 times.
    groups = np.concatenate([np.repeat(np.arange(10) * 8, 8), np.arange(80, 110), np.full(8, 110)])
    data, found = clusters_of(groups, [0] * 80 + [1] * 38)
    assert [cluster.kind for cluster in found] == ["planted"] + ["duplicate"] * 10
    assert found[0].indices == list(range(110, 118))
    removed = [removal.index for removal in removals(data, found)]
    assert removed == [i for i in range(80) if i % 8] + list(range(110, 118))


@pytest.mark.parametrize(("copies", "kind"), [(2, "duplicate"), (4, "duplicate"), (5, "planted")])
def test_five_copies_are_no_accident(copies, kind):
    _, found = clusters_of([*range(20), *[20] * copies], [0] * (20 + copies))
    assert [cluster.kind for cluster in found] == [kind]


def tinted(images, rows, shift):
    shifted = images.astype(int)
    shifted[rows] += shift
    return shifted.clip(0, 255).astype(np.uint8)


def statistics_of(images):
    from bloodcell_jax.data.audit.appearance import describe

    return describe(images).statistics


def test_shortcuts():
    cells, labels = draw_cells(CELLS, seed=6, size=SIZE)
    blurred = cells.copy()
    for i in np.flatnonzero(labels == 2):
        blurred[i] = np.asarray(Image.fromarray(cells[i]).filter(ImageFilter.GaussianBlur(1)))
    shortcuts = {
        name: [(t.statistic, t.label) for t in tellings(statistics_of(images), labels) if t.is_shortcut]
        for name, images in {
            "none": cells,
            "blue": tinted(cells, labels == 5, (-25, 0, 25)),
            "dark": tinted(cells, labels == 1, -50),
            "blurred": blurred,
        }.items()
    }
    assert shortcuts["none"] == []
    assert ("background blue less red", 5) in shortcuts["blue"]
    assert ("background brightness", 1) in shortcuts["dark"]
    assert shortcuts["blurred"] == [("sharpness", 2)]


def test_the_area_under_the_curve_is_scikit_learn_s():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    values, labels = rng.integers(0, 9, 80).astype(float), rng.integers(0, 3, 80)
    for telling in tellings({"sharpness": values}, labels):
        assert telling.auc == pytest.approx(roc_auc_score(labels == telling.label, values), abs=1e-12)


def test_another_acquisition_is_a_group_of_its_own():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 1000)
    values = rng.normal(-50, 4, 1000)
    other = np.concatenate([np.flatnonzero(labels == 1)[:20], np.flatnonzero(labels == 2)[:10]])
    values[other] = rng.normal(0, 3, 30)
    statistics = {"background blue less red": values, "background green less red": rng.normal(0, 5, 1000)}
    (group,) = acquisition_groups(statistics, labels, 4)
    assert group.indices.tolist() == sorted(other)
    assert group.class_counts.tolist() == [0, 20, 10, 0]
    assert group.p_value < 0.001
    assert acquisition_groups({name: np.zeros(50) for name in statistics}, np.zeros(50, int), 1) == []


def test_confident_learning_on_an_example_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0.9, 0.8, 0.1, 0.2, 0.3, 0.95])
    # The thresholds are (0.9 + 0.8 + 0.1) / 3 = 0.6 for class 0 and (0.8 + 0.7 + 0.05) / 3 = 0.52 for class 1.
    errors = find_label_errors(labels, np.stack([first, 1 - first], axis=1))
    assert [(e.index, e.label, e.suggested) for e in errors] == [(5, 1, 0), (2, 0, 1)]
    assert [e.margin for e in errors] == pytest.approx([-0.9, -0.8])


def test_an_unsure_example_is_no_label_error():
    probabilities = np.array([[0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.2, 0.8]])
    # The second example is nearer to class 1 than to its label, but below the mean of class 1, 0.85.
    assert find_label_errors(np.array([0, 0, 1, 1]), probabilities) == []


def write_predictions(path, planted, rows, probabilities):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "predicted", "confidence", *CLASS_NAMES])
        for row, values in zip(rows, probabilities, strict=True):
            label, best = CLASS_NAMES[planted.labels[row]], int(np.argmax(values))
            writer.writerow([row, label, CLASS_NAMES[best], values[best], *values])


def test_label_errors_from_out_of_fold_predictions(planted, tmp_path):
    rows = np.arange(40, 104)
    probabilities = np.full((64, 8), 0.02)
    probabilities[np.arange(64), planted.labels[rows]] = 0.86
    wrong = (planted.labels[50] + 3) % 8
    probabilities[10, [planted.labels[50], wrong]] = [0.02, 0.86]
    write_predictions(tmp_path / "p.csv", planted, rows, probabilities)
    found = bc.audit(planted, predictions=tmp_path / "p.csv")
    assert [(error.index, error.suggested) for error in found.label_errors] == [(50, wrong)]
    assert 50 not in {removal.index for removal in found.removals}
    assert found.to_dict()["label_errors"][0]["suggested"] == CLASS_NAMES[wrong]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("\n0,", "\n999,"), r"line 2: 999 .*memory:cells"),
        (lambda text: text.replace("id,label", "file,label"), r"header .*file,label"),
        (lambda text: text.replace("0.86", "0.96"), r"0\.96.* not 8 probabilities"),
        (lambda text: text.replace("0.86", "much"), r"line 2: .*'much'"),
        (lambda text: text + text.split("\n")[1], r"repeat an id: 1;"),
        (lambda text: text.split("\n")[0], r"no prediction"),
        (lambda text: "", r"header .*nothing"),
    ],
)
def test_predictions_of_something_else_are_refused(planted, tmp_path, change, said):
    probabilities = np.full((2, 8), 0.02) + 0.84 * np.eye(8)[planted.labels[:2]]
    write_predictions(tmp_path / "p.csv", planted, [0, 1], probabilities)
    (tmp_path / "p.csv").write_text(change((tmp_path / "p.csv").read_text()))
    with pytest.raises(DataError, match=rf"p\.csv\b.*{said}"):
        bc.audit(planted, predictions=tmp_path / "p.csv")


def test_the_numbers_are_plain_json(found):
    numbers = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert numbers["n"] == 350
    assert numbers["remove"] == {"planted": 25, "conflict": 2, "duplicate": 3}
    assert [cluster["indices"] for cluster in numbers["clusters"]][2] == [12, 348]
    assert numbers["leaks"][0] == {"splits": ["train", "test"], "indices": [12, 348]}
    assert {outlier["id"] for outlier in numbers["outliers"]} == {"320", "336", "349"}
    assert sum(numbers["class_counts"].values()) == 350
