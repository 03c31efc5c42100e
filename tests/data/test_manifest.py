"""Manifests: the published forms are read right; labels, splits and groups that could mislead are refused."""

import pytest

ROWS = "file,label\na.png,x\nb.png,y\nsub/c.png,x\nd.png,y\n"


def test_wbcbench_has_a_table_for_each_split(manifest, tmp_path):
    manifest.plant(
        tmp_path, "phase1/01.jpg", "phase1/02.jpg", "phase2/train/11.jpg", "phase2/train/12.jpg", "phase2/eval/13.jpg"
    )
    manifest.plant(tmp_path, "phase2/eval/14.jpg", "phase2/test/15.jpg")
    manifest.write(tmp_path / "phase1_label.csv", "ID,labels\n01.jpg,BA\n02.jpg,LY\n")
    manifest.write(tmp_path / "phase2_train.csv", "ID,labels\n11.jpg,LY\n12.jpg,BA\n")
    manifest.write(tmp_path / "phase2_eval.csv", "ID,labels\n13.jpg,BA\n14.jpg,LY\n")
    manifest.write(tmp_path / "phase2_test.csv", "ID\n15.jpg\n")
    named = {"columns": "file=ID,label=labels", "file_pattern": "**/{file}"}
    splits = "train=phase1_label.csv,train=phase2_train.csv,val=phase2_eval.csv"
    manifest.refused(
        f"csv:{tmp_path}", "phase1_label.csv, phase2_eval.csv", "data.split_folders", "data.exclude", **named
    )
    data = manifest.read(f"csv:{tmp_path}", split_folders=splits, exclude="phase2_test.csv", **named)
    assert manifest.understood(data) == {
        "phase1/01.jpg": ("BA", "train"),
        "phase1/02.jpg": ("LY", "train"),
        "phase2/train/11.jpg": ("LY", "train"),
        "phase2/train/12.jpg": ("BA", "train"),
        "phase2/eval/13.jpg": ("BA", "val"),
        "phase2/eval/14.jpg": ("LY", "val"),
    }
    assert data.left_out == {"not named by the manifest": 1, "no images by their suffix .csv": 1}


def test_wbcatt_has_attributes(manifest, tmp_path):
    header = "cell_size,nucleus_shape,label,path,img_name"
    manifest.plant(tmp_path, "PBC_dataset_normal_DIB/basophil/BA_1.jpg", "PBC_dataset_normal_DIB/monocyte/MO_2.jpg")
    manifest.plant(tmp_path, "PBC_dataset_normal_DIB/monocyte/MO_3.jpg", "PBC_dataset_normal_DIB/platelet/PL_1.jpg")
    rows = {
        "train": f"{header}\nbig,segmented,Basophil,PBC_dataset_normal_DIB/basophil/BA_1.jpg,BA_1.jpg\n"
        "small,indented,Monocyte,PBC_dataset_normal_DIB/monocyte/MO_2.jpg,MO_2.jpg\n",
        "test": f"{header}\nbig,indented,Monocyte,PBC_dataset_normal_DIB/monocyte/MO_3.jpg,MO_3.jpg\n",
    }
    for split, text in rows.items():
        manifest.write(tmp_path / "annotations" / f"{split}.csv", text)
    data = manifest.read(f"csv:{tmp_path}/annotations", root=str(tmp_path), columns="file=path")
    assert manifest.understood(data) == {
        "PBC_dataset_normal_DIB/basophil/BA_1.jpg": ("Basophil", "train"),
        "PBC_dataset_normal_DIB/monocyte/MO_2.jpg": ("Monocyte", "train"),
        "PBC_dataset_normal_DIB/monocyte/MO_3.jpg": ("Monocyte", "test"),
    }
    assert data.columns["cell_size"] == ("big", "small", "big")
    assert set(data.columns) == {"cell_size", "nucleus_shape", "img_name"}
    by_name = manifest.read(
        f"csv:{tmp_path}/annotations", root=str(tmp_path), columns="file=img_name", file_pattern="**/{file}"
    )
    assert by_name.sha256() == data.sha256()


def test_cnmc_has_folds_and_a_table(manifest, tmp_path):
    folds = [f"fold_{fold}/{kind}/UID_{fold}_1_1_{kind}.bmp" for fold in range(3) for kind in ("all", "hem")]
    manifest.plant(tmp_path, *folds)
    manifest.write(
        tmp_path / "folds.csv", "file,label,fold\n" + "".join(f"{f},{f.split('/')[1]},{f[:6]}\n" for f in folds)
    )
    manifest.refused(f"csv:{tmp_path}/folds.csv", "split=COLUMN", split_folders="train=fold_0,test=fold_1")
    named = {"columns": "split=fold"}
    manifest.refused(f"csv:{tmp_path}/folds.csv", "fold_0 (2 rows)", "data.split_folders=train=fold_0", **named)
    data = manifest.read(f"csv:{tmp_path}/folds.csv", split_folders="train=fold_0,train=fold_1,val=fold_2", **named)
    assert manifest.understood(data) == {f: (f.split("/")[1], "val" if "fold_2" in f else "train") for f in folds}
    manifest.plant(tmp_path / "test", "1.bmp", "2.bmp", "3.bmp")
    text = (
        "Patient_ID,new_names,labels\nUID_57_29_1_all.bmp,1.bmp,1\nUID_58_2_1_hem.bmp,2.bmp,0\nUID_57_2.bmp,3.bmp,1\n"
    )
    data = manifest.read(
        manifest.write(tmp_path / "test/labels.csv", text),
        columns="file=new_names,label=labels,group=Patient_ID",
        class_names=("hem", "all"),
    )
    assert manifest.understood(data) == {"1.bmp": ("all", ""), "2.bmp": ("hem", ""), "3.bmp": ("all", "")}
    assert data.groups == ("UID_57_29_1_all.bmp", "UID_58_2_1_hem.bmp", "UID_57_2.bmp")


def test_segmentation_wbc_has_numbers_as_names_and_labels_from_1(manifest, tmp_path):
    manifest.plant(tmp_path, *(f"Dataset 1/{i:03d}.{suffix}" for i in (1, 2, 3) for suffix in ("bmp", "png")))
    source = manifest.write(tmp_path / "Class Labels of Dataset 1.csv", "image ID,class label\n1,1\n2,2\n3,1\n")
    named = {"columns": "file=image ID,label=class label", "root": str(tmp_path / "Dataset 1")}
    manifest.refused(source, "3 of 3", "'{file:03d}.", **named)
    named["file_pattern"] = "{file:03d}.bmp"
    data = manifest.read(source, **named)
    assert manifest.understood(data) == {"001.bmp": ("1", ""), "002.bmp": ("2", ""), "003.bmp": ("1", "")}
    assert data.left_out == {"not named by the manifest": 3}
    # Counted from 0 or from 1: nobody knows, so a table says it.
    names = ("neutrophil", "lymphocyte", "monocyte")
    manifest.refused(
        source, "label 1 is lymphocyte", "it is neutrophil", "class_names=PATH", class_names=names, **named
    )
    manifest.write(tmp_path / "classes.csv", "label,name\n1,neutrophil\n2,lymphocyte\n3,monocyte\n")
    named["columns"] += f",class_names={tmp_path / 'classes.csv'}"
    data = manifest.read(source, **named)
    assert manifest.understood(data)["002.bmp"] == ("lymphocyte", "")
    assert data.class_names == names
    # A run's own names, in another order, decide the order alone.
    assert manifest.understood(manifest.read(source, class_names=names[::-1], **named)) == manifest.understood(data)


def test_medimeta_has_numbered_files_and_labels(manifest, tmp_path):
    manifest.plant(tmp_path, *(f"images/{i:06d}.tiff" for i in range(4)))
    source = manifest.write(
        tmp_path / "annotations.csv",
        ",image_path,cell class,split,original_split\n"
        + "".join(
            f"{i},images/{i:06d}.tiff,{i % 2},{split},train\n"
            for i, split in enumerate(("test", "val", "train", "train"))
        ),
    )
    data = manifest.read(source, columns="file=image_path,label=cell class", class_names=("neutrophil", "eosinophil"))
    assert list(manifest.understood(data).items()) == [
        ("images/000002.tiff", ("neutrophil", "train")),
        ("images/000003.tiff", ("eosinophil", "train")),
        ("images/000001.tiff", ("eosinophil", "val")),
        ("images/000000.tiff", ("neutrophil", "test")),
    ]
    assert data.columns == {"original_split": ("train",) * 4}


ISIC = "image,MEL,NV,BCC\nISIC_1,0.0,1.0,0.0\nISIC_2,1.0,0.0,0.0\nISIC_3,0.0,0.0,1.0\n"
ISIC_OPTIONS = {"columns": "file=image,label=MEL+NV+BCC", "file_pattern": "{file}.jpg"}


def test_isic_has_a_column_for_each_class(manifest, tmp_path):
    manifest.plant(tmp_path, "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg")
    source = manifest.write(tmp_path / "truth.csv", ISIC)
    data = manifest.read(source, **ISIC_OPTIONS)
    assert data.class_names == ("MEL", "NV", "BCC")
    assert manifest.understood(data) == {"ISIC_1.jpg": ("NV", ""), "ISIC_2.jpg": ("MEL", ""), "ISIC_3.jpg": ("BCC", "")}
    assert data.columns == {}
    for rows in ("ISIC_1,1.0,1.0,0.0\nISIC_2,0.0,0.0,0.0\n", "ISIC_1,1,1,0\nISIC_2,0,0,0\n"):
        bad = manifest.write(tmp_path / "bad.csv", "image,MEL,NV,BCC\nISIC_3,0,0,1\n" + rows)
        manifest.refused(bad, "2 of 3", "line 3: 1 in MEL and NV", "line 4", "--skip_bad", **ISIC_OPTIONS)
        assert manifest.understood(manifest.read(bad, skip_bad=True, **ISIC_OPTIONS)) == {"ISIC_3.jpg": ("BCC", "")}
    soft = manifest.write(tmp_path / "soft.csv", ISIC.replace("0.0,1.0,0.0", "0.3,0.7,0.0"))
    manifest.refused(soft, "1 rows", "line 2", "'0.3'", **ISIC_OPTIONS)


@pytest.mark.parametrize("labels", [("x", "X"), ("x", " x"), ("a b", "a  b"), ("1", "01")])
def test_labels_that_differ_by_little(manifest, labels, four_images):
    manifest.refused(
        manifest.write(four_images / "t.csv", f"file,label\na.png,{labels[0]}\nb.png,{labels[1]}\nd.png,z\n"),
        "differ only",
    )


def test_whole_numbers_may_have_decimals(manifest, four_images):
    data = manifest.read(manifest.write(four_images / "t.csv", "file,label\na.png,10.0\nb.png,2\nd.png,0.0\n"))
    assert data.class_names == ("0", "2", "10")
    assert manifest.understood(data)["a.png"] == ("10", "")
    # Names that are numbers are names: 10 is not the class at place 10.
    named = manifest.read(f"csv:{four_images / 't.csv'}", class_names=("10", "2", "0"))
    assert manifest.understood(named) == manifest.understood(data)


@pytest.mark.parametrize(("labels", "odd"), [((0.5, 1), "0.5"), ((-1, 0), "-1"), (("1e-3", 2), "1e-3")])
def test_numbers_that_are_no_labels(manifest, labels, odd, four_images):
    manifest.refused(
        manifest.write(four_images / "t.csv", f"file,label\na.png,{labels[0]}\nb.png,{labels[1]}\n"), "'label'", odd
    )


@pytest.mark.parametrize("label", ["9" * 5000, "x\u200b", '"x\ny"', "a long description, " * 20])
def test_texts_that_are_no_names(manifest, label, four_images):
    label = label if label.startswith('"') else f'"{label}"'
    manifest.refused(
        manifest.write(four_images / "t.csv", f"file,label\na.png,{label}\nb.png,y\n"), "'label'", "1 texts"
    )


def test_numbers_count_class_names_and_the_log_says_so(manifest, four_images, caplog):
    source = manifest.write(four_images / "t.csv", "file,label\na.png,1\nb.png,0\n")
    data = manifest.read(source, class_names=("hem", "all"))
    assert manifest.understood(data) == {"a.png": ("all", ""), "b.png": ("hem", "")}
    assert any("0 is hem, 1 is all" in message for message in caplog.messages)
    manifest.refused(
        manifest.write(four_images / "u.csv", "file,label\na.png,2\nb.png,0\n"),
        "2 (1 rows)",
        class_names=("hem", "all"),
    )


def test_unknown_labels_are_counted(manifest, four_images):
    source = manifest.write(four_images / "t.csv", ROWS)
    manifest.refused(source, "1 labels", "y (2 rows)", "x, z", class_names=("x", "z"))
    manifest.write(four_images / "names.csv", "label,name\nx,basophil\n")
    manifest.refused(source, "y (2 rows)", columns=f"class_names={four_images / 'names.csv'}")
    manifest.write(four_images / "names.csv", "label,name\nx,basophil\ny,basophil\n")
    manifest.refused(source, "name: basophil", columns=f"class_names={four_images / 'names.csv'}")
    manifest.write(four_images / "names.csv", "id,title\nx,basophil\n")
    manifest.refused(source, "label,name", columns=f"class_names={four_images / 'names.csv'}")


@pytest.mark.parametrize("empty", ["", " ", "nan", "NaN", "null", "NA", "#N/A"])
def test_rows_without_a_label(manifest, empty, four_images):
    source = manifest.write(four_images / "t.csv", f"file,label\na.png,x\nb.png,{empty}\nd.png,y\n")
    manifest.refused(source, "1 of 3", "line 3", "--skip_bad")
    data = manifest.read(source, skip_bad=True)
    assert list(manifest.understood(data)) == ["a.png", "d.png"]
    assert list(data.skipped) == ["line 3"]
    manifest.refused(manifest.write(four_images / "u.csv", "file,label\na.png,\nb.png,\n"), "2 of 2", skip_bad=True)


def test_splits_have_usual_names_in_any_case(manifest, four_images):
    text = "file,label,split\nb.png,y,TEST\na.png,x,Training\nd.png,y,train \nsub/c.png,x,Validation\n"
    source = manifest.write(four_images / "t.csv", text.replace("train ", "Training"))
    assert list(manifest.understood(manifest.read(source)).items()) == [
        ("a.png", ("x", "train")),
        ("d.png", ("y", "train")),
        ("sub/c.png", ("x", "val")),
        ("b.png", ("y", "test")),
    ]
    manifest.refused(
        manifest.write(four_images / "u.csv", text.replace("TEST", "TestA")), "TestA (1 rows)", "data.split_folders"
    )
    manifest.refused(manifest.write(four_images / "v.csv", text.replace("TEST", "")), "1 of 4", "line 2")
    manifest.refused(source, "'Nothing'"[1:-1], split_folders="train=Nothing")
    assert manifest.read(manifest.write(four_images / "w.csv", "file,label,split\na.png,x,\nb.png,y,\n")).splits == {}


def test_a_table_and_its_column_must_agree(manifest, four_images):
    manifest.write(four_images / "train.csv", "file,label,split\na.png,x,train\nb.png,y,val\n")
    manifest.refused(f"csv:{four_images}", "1 rows", "train.csv line 3")
    manifest.write(four_images / "train.csv", "file,label,split\na.png,x,train\nb.png,y,train\n")
    manifest.write(four_images / "val.csv", "file,label\nd.png,x\n")
    manifest.refused(f"csv:{four_images}", "1 of 3", "val.csv line 2")
    manifest.write(four_images / "TRAINING.csv", ROWS)
    manifest.refused(f"csv:{four_images}", "TRAINING.csv, train.csv", "all train", "data.exclude")


def test_groups_are_complete(manifest, four_images):
    source = manifest.write(four_images / "t.csv", "file,label,patient\na.png,x,p 1\nb.png,y,p2\nd.png,y,\n")
    manifest.refused(source, "1 of 3", "line 4", "group", columns="group=patient")
    data = manifest.read(source, columns="group=patient", exclude="d.png")
    assert data.groups == ("p 1", "p2")
    assert data.columns == {}
    # One patient under two names would be in two splits.
    for one, other in (("P1", "p1"), ("1", "01"), ("1", "0" * 5000 + "1")):
        manifest.refused(
            manifest.write(four_images / "u.csv", f"file,label,group\na.png,x,{one}\nb.png,y,{other}\n"),
            "groups differ only",
        )
    assert manifest.read(
        manifest.write(four_images / "v.csv", "file,label,group\na.png,x,7.0\nb.png,y,7\n")
    ).groups == (
        "7",
        "7",
    )
