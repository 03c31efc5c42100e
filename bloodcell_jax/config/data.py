"""The options that say what data are read, how they are split, and in which order they are shown."""

from dataclasses import dataclass

from bloodcell_jax.config.option import option

# What `data.crop` may be: pixels, a fraction of the shorter side, `AUTO`, or None for the shorter side.
Crop = int | float | str | None
AUTO = "auto"

# Fields that say which part of a file is looked at, and how an image becomes what the network sees: a model that
# leaves its run takes them along.
SCALE = ("crop", "microns_per_pixel")
GEOMETRY = ("image_size", *SCALE)


@dataclass(kw_only=True)
class DataConfig:
    source: str | None = option(
        None,
        "KIND:PLACE, which must be given wherever images are read; `train --help` lists the kinds. A bare path is "
        "recognized by what it is",
        may_change=True,  # the data hash must be equal
    )
    data_dir: str | None = option(
        None,
        "folder of prepared datasets (tfds:) and of local copies (medmnist:); unset: ~/tensorflow_datasets",
        may_change=True,
    )
    skip_bad: bool = option(
        False,
        "leave out image files that cannot be read, and name each of them",
        may_change=True,
    )
    image_size: int = option(96, "pixels; every image becomes image_size x image_size", minimum=16)
    crop: Crop = option(
        AUTO,
        "the centered square of an image file that is looked at: pixels, such as 200; a fraction of the shorter side, "
        "such as 0.56; none: the shorter side; auto: 200 pixels of files near 360 pixels wide, as PBC's are, and the "
        "shorter side of others. Arrays of a dataset (npz, medmnist, tfds) are never cropped",
        may_change=True,  # the data hash must be equal
    )
    microns_per_pixel: float | str | None = option(
        None,
        "scale of the image files: a number, or the column of a manifest that holds one for each image. A crop in "
        "pixels, or auto, then means pixels of 0.1 micrometers: files of any scale show the same piece of the slide",
        may_change=True,  # the data hash must be equal
    )
    class_names: tuple[str, ...] = option((), "names in label order; empty: the source's own")
    columns: str | None = option(
        None,
        "columns of a manifest (csv:), such as file=new_names,label=labels,group=patient; roles: file, label, split, "
        "group; label=MEL+NV+BCC: one column of 0 and 1 for each class; class_names=PATH: a table label,name; unset: "
        "the columns with these names",
    )
    root: str | None = option(
        None,
        "folder or zip archive that the paths of a manifest (csv:) begin in; unset: the folder of the manifest",
        may_change=True,  # the data hash must be equal
    )
    file_pattern: str | None = option(
        None,
        "path of each file of a manifest (csv:), with columns in braces, such as {file}.jpg, {file:03d}.bmp or "
        "**/{file}, which looks for the name in all folders; unset: the cell is the path",
    )
    include: str | None = option(
        None,
        "image files of class folders and manifests to read: glob patterns joined by commas, such as *.bmp; unset: all",
    )
    exclude: str | None = option(
        None,
        "files and folders of class folders and manifests to leave out: glob patterns joined by commas, such as "
        "unlabeled/**",
    )
    class_level: int | None = option(
        None,
        "level of the class folders, 1 for the first folders of the source; unset: recognized, and refused if two "
        "readings are possible",
        minimum=1,
    )
    split_folders: str | None = option(
        None,
        "folders above the class folders, or names of splits in a manifest, such as train=Train,test=TestA; unset: "
        "those with usual names (train, training; val, valid, validation, dev; test, testing) in any case",
    )
    group_regex: str | None = option(
        None,
        "finds the group of each image, such as its patient or slide, in its path inside the source: a regular "
        "expression with one capture group, such as UID_(\\d+)_; groups never cross a split; unset: the source's own",
        may_change=True,  # the groups must be equal, by the hash in splits.json
    )
    clean: str | None = option(None, "clean.json of the verb audit; the examples that it names are left out")
    splits: tuple[float, ...] = option(
        (0.7, 0.15, 0.15), "train, val and test fractions; used if the source has no splits of its own"
    )
    split_seed: int | None = option(
        None,
        "seed of the splits alone, so that runs of several seeds learn from the same images; unset: seed",
        minimum=0,
        maximum=2**32 - 1,
    )
    folds: int | None = option(
        None,
        "cut train and val together into so many folds, stratified by class; one of them is val, the others are train. "
        "Test stays what it is. Unset: the splits. The verb crossval trains every fold",
        minimum=2,
    )
    fold: int = option(0, "the fold that is val, from 0 to folds - 1", minimum=0)
    group_duplicates: bool = option(
        True, "keep images that show the same cell in the same split, unless the source's own splits decide"
    )
    sampler: str = option(
        "natural",
        "natural: each example once an epoch; under: samples_per_class examples of each class; over: every class "
        "repeated to the size of the largest; balanced: all classes equally often in an epoch of the natural length; "
        "power: classes in proportion to size ** sampler_power; groups: each class as often as in natural, "
        "and within it each group (patient or slide) equally often",
        choices=("natural", "under", "over", "balanced", "power", "groups"),
    )
    samples_per_class: int | None = option(
        None,
        "labels of each class that training sees, drawn by the seed, or all where a class has fewer; the rest of train "
        "is unused. Unset: all; for sampler=under, the size of the smallest class, and no class may have fewer",
        minimum=1,
    )
    sampler_redraw: bool = option(
        False, "draw other examples in each epoch for sampler=under", read_with=("sampler", ("under",))
    )
    sampler_power: str = option(
        "0.5",
        "exponent for sampler=power: 1 is natural, 0 is balanced; FIRST..LAST, such as 1..0, changes it linearly over "
        "the epochs",
        read_with=("sampler", ("power",)),
    )
    feed: str = option(
        "auto",
        "resident: all images lie on every device; streaming: batches are read and decoded ahead of their steps; "
        "auto: resident if memory allows",
        choices=("auto", "resident", "streaming"),
        may_change=True,
    )
    workers: int | None = option(
        None,
        "processes that decode images for feed=streaming; 0: threads of the main process; unset: half the cores, 16 at "
        "most",
        minimum=0,
        may_change=True,
    )
