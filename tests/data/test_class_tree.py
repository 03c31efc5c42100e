"""Trees of class folders as laboratories have them: read right, or refused with both readings and what decides."""

import stat
import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodcell_jax.data.sources import load_source
from bloodcell_jax.errors import DataError, UsageError

NAMES = ("eosinophil", "lymphocyte", "monocyte")


def plant(root, paths):
    """Write a small image at every path, no two alike."""
    for seed, path in enumerate(paths):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(target)
    return f"folder:{root}"


def tree(*folders, count=3, suffix="png"):
    return [f"{folder}/{i}.{suffix}" for folder in folders for i in range(count)]


def below(splits, classes=NAMES, **options):
    return tree(*(f"{split}/{name}" for split in splits for name in classes), **options)


def read(source, **options):
    return load_source(source, image_size=8, **options)


READ = {
    "upper case": (below(["TRAIN", "TEST"]), {"train", "test"}),
    "Roboflow's valid": (below(["train", "valid", "test"]), {"train", "val", "test"}),
    "validation and testing": (below(["Training", "Validation", "Testing"]), {"train", "val", "test"}),
    "dev": (below(["train", "dev"]), {"train", "val"}),
    "wrapped twice": (below(["cells/images/TRAIN", "cells/images/TEST"]), {"train", "test"}),
    "no splits": (tree(*NAMES), set()),
    "sub-types in class folders": (tree("ig/MMY", "ig/MY", "neutrophil/BNE", "neutrophil/SNE"), set()),
    "sub-types beside images": (tree("ig", "ig/MMY", "ig/MY", "neutrophil"), set()),
    "one sub-type name in common": (tree("ig/MMY", "ig/MY", "ig/other", "neutrophil/BNE", "neutrophil/other"), set()),
    "one folder for each slide": (tree("ig/slide1", "ig/slide2", "neutrophil/slide3", "neutrophil/slide4"), set()),
}


@pytest.mark.parametrize("layout", READ)
def test_a_usual_layout_is_read(layout, tmp_path):
    paths, splits = READ[layout]
    data = read(plant(tmp_path / "in", paths))
    assert set(data.splits) == splits
    assert data.class_names in (NAMES, ("ig", "neutrophil"))
    assert len(data) == len(paths)
    for index, name in enumerate(data.ids):
        assert data.class_names[data.labels[index]] in name.split("/")


AMBIGUOUS = {
    "Kaggle's TEST_SIMPLE": (below(["images/TRAIN", "images/TEST", "images/TEST_SIMPLE"]), ["TEST_SIMPLE", "exclude"]),
    "Raabin's TestA": (below(["Train", "TestA", "TestB"]), ["Train is train", "TestA, TestB", "split_folders"]),
    "unlabeled beside": (below(["train", "val", "test"]) + tree("unlabeled"), ["unlabeled", "data.exclude"]),
    "a background class beside": (below(["train", "test"]) + tree("background/a"), ["background"]),
    "C-NMC's folds": (below(["fold_0", "fold_1", "fold_2"], ("all", "hem")), ["fold_0", "all, hem", "class_level=2"]),
    "folds in train": (below(["train/f1", "train/f2", "val/f1"], ("all", "hem")), ["f1, f2", "class_level=3"]),
    "sites": (below(["Barcelona", "Munich"]), ["Barcelona, Munich", "class_level=2", "class_level=1"]),
    "images and masks": (below(["images", "masks"]), ["images, masks", "class_level"]),
    "sets": (below(["train_set", "test_set"]), ["test_set, train_set"]),
    "two for val": (below(["train", "val", "valid"]), ["val, valid"]),
    "two for train": (below(["train", "Train"]), ["Train, train"]),
    "no train": (below(["val", "test"]), ["without train/", "split_folders"]),
    "two depths": (tree("basophil", "granulocytes/neutrophil", "granulocytes/eosinophil"), ["class_level=1"]),
    "case": (tree("Neutrophil", "neutrophil", "monocyte"), ["Neutrophil and neutrophil"]),
    "a blank at the end": (tree("neutrophil", "neutrophil ", "monocyte"), ["neutrophil and 'neutrophil '"]),
    "two blanks": (tree("immature granulocyte", "immature  granulocyte"), ["immature  granulocyte"]),
    "case between splits": (tree("train/Neutrophil", "train/b", "val/neutrophil", "val/b"), ["Neutrophil and neutro"]),
    "zeros": (tree("1", "01", "2"), ["01 and 1"]),
    "bmp and png": (tree(*NAMES, suffix="bmp") + tree(*NAMES), ["9 of 9", ".bmp: 9", "data.include='*.bmp'"]),
    "a mask of one cell": ([*tree(*NAMES), "monocyte/1_gt.png"], ["1 of 10", "'*_gt.*'", "data.include='*'"]),
    "_mask": (tree(*NAMES) + [p.replace(".png", "_mask.png") for p in tree(*NAMES)], ["9 of 18", "'*_mask.*'"]),
}


@pytest.mark.parametrize("layout", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(layout, tmp_path):
    paths, words = AMBIGUOUS[layout]
    with pytest.raises(DataError) as refused:
        read(plant(tmp_path / "in", paths))
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


DECIDED = {
    "the folds are merged": (AMBIGUOUS["C-NMC's folds"][0], {"class_level": 2}, ("all", "hem"), {}),
    "the sites are the classes": (AMBIGUOUS["sites"][0], {"class_level": 1}, ("Barcelona", "Munich"), {}),
    "the second test is left out": (
        AMBIGUOUS["Raabin's TestA"][0],
        {"exclude": "TestB/**"} | {"split_folders": "test=TestA"},
        NAMES,
        {"train": 9, "test": 9},
    ),
    "folds are splits": (
        AMBIGUOUS["C-NMC's folds"][0],
        {"split_folders": "train=fold_0,val=fold_1,test=fold_2"},
        ("all", "hem"),
        {"train": 6, "val": 6, "test": 6},
    ),
    "folds are splits above the classes": (
        AMBIGUOUS["C-NMC's folds"][0],
        {"class_level": 2, "split_folders": "train=fold_0,val=fold_1,test=fold_2"},
        ("all", "hem"),
        {"train": 6, "val": 6, "test": 6},
    ),
    "folds in train are merged": (
        AMBIGUOUS["folds in train"][0],
        {"class_level": 3},
        ("all", "hem"),
        {},
    ),
    "one suffix": (AMBIGUOUS["bmp and png"][0], {"include": "*.bmp"}, NAMES, {}),
    "two folds are train": (
        AMBIGUOUS["C-NMC's folds"][0],
        {"split_folders": "train=fold_0,train=fold_1,test=fold_2"},
        ("all", "hem"),
        {"train": 12, "test": 6},
    ),
    "a name like a mask's is a cell": (AMBIGUOUS["a mask of one cell"][0], {"include": "*"}, NAMES, {}),
    "classes of choice": (tree(*NAMES), {"include": "eosinophil/**,monocyte/**"}, ("eosinophil", "monocyte"), {}),
    "files of classes of choice": (
        tree(*NAMES),
        {"include": "eosinophil/*,monocyte/*.png"},
        ("eosinophil", "monocyte"),
        {},
    ),
    "no masks": (AMBIGUOUS["_mask"][0], {"exclude": "*_mask.*"}, NAMES, {}),
    "unlabeled is left out": (
        AMBIGUOUS["unlabeled beside"][0],
        {"exclude": "unlabeled/**"},
        NAMES,
        {"train": 9, "val": 9, "test": 9},
    ),
    "unlabeled is left out wherever it is": (
        AMBIGUOUS["unlabeled beside"][0],
        {"exclude": "**/unlabeled/**"},
        NAMES,
        {"train": 9, "val": 9, "test": 9},
    ),
    "the group is a class": (AMBIGUOUS["two depths"][0], {"class_level": 1}, ("basophil", "granulocytes"), {}),
}


def test_two_folders_for_one_split_are_refused_above_the_classes_too(tmp_path):
    source = plant(tmp_path / "in", below(["train", "training", "val"], ("all", "hem")))
    for options in ({}, {"class_level": 2}):
        with pytest.raises(DataError, match=r"both train"):
            read(source, **options)


@pytest.mark.parametrize(
    ("paths", "level", "words"),
    [
        (below(["all", "hem"], ("train", "test")), 1, "test, train"),
        (below(["train/f1", "val/f1"], ("all", "hem")), 3, "train, val"),
    ],
)
def test_splits_that_the_level_of_the_classes_hides_are_named(paths, level, words, tmp_path, caplog):
    assert read(plant(tmp_path / "in", paths), class_level=level).splits == {}
    assert words in caplog.text


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("train=fold_0,test=fold_9", ["fold_9", "fold_0, fold_1, fold_2"]),
        ("train=fold_0,test=fold_1", ["fold_0 is train", "fold_2 stands beside"]),
    ],
)
def test_splits_that_were_named_above_the_classes_are_not_forgotten(named, words, tmp_path):
    with pytest.raises(DataError) as refused:
        read(plant(tmp_path / "in", AMBIGUOUS["C-NMC's folds"][0]), class_level=2, split_folders=named)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("decision", DECIDED)
def test_the_option_that_the_error_names_decides(decision, tmp_path):
    paths, options, names, splits = DECIDED[decision]
    data = read(plant(tmp_path / "in", paths), **options)
    assert data.class_names == names
    assert {split: len(indices) for split, indices in data.splits.items()} == splits
    for index, name in enumerate(data.ids):
        assert data.class_names[data.labels[index]] in name.split("/")


@pytest.mark.parametrize("text", ["Train", "training=Train", "train=", "train=A,val=A", "=A"])
def test_split_folders_that_say_nothing_are_refused(text, tmp_path):
    with pytest.raises(UsageError, match=r"split_folders=.*train=Train,test=TestA"):
        read(plant(tmp_path / "in", below(["A", "B"])), split_folders=text)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    source = plant(tmp_path / "in", below(["Train", "TestA"]))
    with pytest.raises(DataError, match=r"TestC.*TestA, Train"):
        read(source, split_folders="train=Train,test=TestC")


def test_what_is_left_out_is_counted(tmp_path, caplog):
    source = plant(tmp_path / "in", tree(*NAMES, suffix="bmp") + tree(*NAMES))
    with caplog.at_level("INFO", "bloodcell_jax"):
        assert len(read(source, include="*.bmp")) == 9
    assert any("leave out 9 of 18" in message for message in caplog.messages)
    with pytest.raises(DataError, match=r"include=\*\.tif.* none of 18"):
        read(source, include="*.tif")


def test_a_pattern_of_files_takes_no_class_away(tmp_path):
    """Two classes have `.bmp` and one has `.BMP`: patterns know small letters from capitals."""
    paths = tree("basophil", "monocyte", suffix="bmp") + tree("neutrophil", suffix="BMP")
    source = plant(tmp_path / "in", paths + [f"{path.partition('.')[0]}.png" for path in paths])
    with pytest.raises(DataError, match=r"include='\*\.BMP,\*\.bmp'|include='\*\.png'"):
        read(source)
    with pytest.raises(DataError, match="no image of class folder neutrophil"):
        read(source, include="*.bmp")
    assert len(read(source, include="*.bmp", exclude="neutrophil/**")) == 6
    assert read(source, include="*.BMP,*.bmp").class_names == ("basophil", "monocyte", "neutrophil")


def test_the_few_names_that_classes_have_in_common_are_said(tmp_path, caplog):
    source = plant(tmp_path / "in", tree("munich/baso", "munich/mono", "barcelona/eos", "barcelona/mono"))
    assert read(source).class_names == ("barcelona", "munich")
    assert any("mono" in message and "data.class_level=2" in message for message in caplog.messages)


@pytest.mark.parametrize("lost", ["cells/monocyte", "cells/train", "cells/test"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_link_that_leads_nowhere_is_no_missing_class_or_split(kind, lost, tmp_path):
    place = "cells/train/" if lost != "cells/monocyte" else "cells/"
    paths = tree(f"{place}eosinophil", f"{place}lymphocyte")
    if lost == "cells/train":
        paths = [path.replace("train/", "test/") for path in paths]
    source = plant(tmp_path / "in", paths)
    (tmp_path / "in" / lost).symlink_to(tmp_path / "unmounted")
    if kind == "zip":
        source = f"zip:{tmp_path / 'in.zip'}"
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for path in paths:
                archive.write(tmp_path / "in" / path, path)
            link = zipfile.ZipInfo(lost)
            link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "../unmounted")
    with pytest.raises(DataError, match=f"{lost}: a link .*data.exclude='{lost}'"):
        read(source)
    if lost != "cells/train":
        assert len(read(source, exclude=lost)) == 6


def test_a_link_that_cannot_even_be_followed_is_named(tmp_path):
    source = plant(tmp_path / "in", tree("eosinophil", "lymphocyte"))
    (tmp_path / "in" / "monocyte").symlink_to("n" * 300)
    with pytest.raises(DataError, match="monocyte: a link"):
        read(source)


def test_numeric_class_folders_are_ordered_as_numbers(tmp_path):
    source = plant(tmp_path / "in", tree(*map(str, range(12))))
    assert read(source).class_names == tuple(map(str, range(12)))
    mixed = plant(tmp_path / "mixed", tree("1", "10", "2", "other"))
    assert read(mixed).class_names == ("1", "10", "2", "other")


@pytest.mark.parametrize("names", [("0", "1", "10", "2"), ("1", "2", "3", "4"), ("3", "2", "1", "0")])
def test_numbers_in_another_order_are_not_labels(tmp_path, names):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "cells.npz", images=images, labels=np.arange(8) % 4)
    with pytest.raises(DataError, match=rf"{', '.join(names)}.* would be class"):
        read(f"npz:{tmp_path / 'cells.npz'}", class_names=names)
    assert read(f"npz:{tmp_path / 'cells.npz'}", class_names=("0", "1", "2", "3")).class_names[3] == "3"
