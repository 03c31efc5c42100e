"""The verbs that look at a data source or rewrite it: `audit` and `prepare`."""

from absl import flags

from bloodcell_jax.cli.verb import Verb, define_skip_bad, parse_crop, required


def define_source(values: flags.FlagValues) -> None:
    """Define the flags of a verb that reads a data source without a configuration; `load_source` takes them."""
    kinds = "npz:PATH, folder:PATH, zip:PATH, medmnist:NAME_OR_PATH, tfds:NAME or synthetic:N"
    flags.DEFINE_string("source", None, kinds, flag_values=values)
    flags.DEFINE_string("data_dir", None, "folder of prepared data sets and local copies", flag_values=values)
    flags.DEFINE_integer("image_size", 96, "pixels, as data.image_size of training", lower_bound=16, flag_values=values)
    flags.DEFINE_string("crop", "200", "pixels of the centre crop of picture files, or none", flag_values=values)
    flags.DEFINE_list("class_names", None, "names in label order; unset: taken from the source", flag_values=values)
    define_skip_bad(values)


def load_source(values: flags.FlagValues):
    from bloodcell_jax.data.sources import load_source

    return load_source(
        required(values, "source"),
        image_size=values["image_size"].value,
        crop=parse_crop(values["crop"].value),
        class_names=tuple(values["class_names"].value or ()),
        skip_bad=values["skip_bad"].value,
        data_dir=values["data_dir"].value,
    )


def _define_prepare(values: flags.FlagValues) -> None:
    define_source(values)
    flags.DEFINE_string("name", None, "what to call it; unset: by the source", flag_values=values)
    flags.DEFINE_string("clean", None, "clean.json of the verb audit; what it names is left out", flag_values=values)


def _prepare(values: flags.FlagValues) -> None:
    from bloodcell_jax.data.cleaning import remove_rows
    from bloodcell_jax.data.dataset import check_learnable
    from bloodcell_jax.data.tfds_sets import default_name, prepare

    data_dir, dataset = required(values, "data_dir"), load_source(values)
    if values["clean"].value:
        dataset = remove_rows(dataset, values["clean"].value)
    check_learnable(dataset)
    name = prepare(dataset, data_dir, values["name"].value or default_name(values["source"].value))
    print(f"{len(dataset):,} pictures of {len(dataset.class_names)} classes; train on them by")
    print(f"  --config.data.source=tfds:{name} --config.data.data_dir={data_dir}")


def _define_audit(values: flags.FlagValues) -> None:
    define_source(values)
    flags.DEFINE_string("output", None, "folder for audit.json, clean.json and index.html", flag_values=values)
    flags.DEFINE_string(
        "predictions", None, "out-of-fold predictions.csv of the source; ranks label errors", flag_values=values
    )


def _audit(values: flags.FlagValues) -> None:
    from bloodcell_jax.data.audit.findings import audit
    from bloodcell_jax.report.audit_page import prepare_output, train_command, write_audit

    source, output = required(values, "source"), required(values, "output")
    folder, crop = prepare_output(output), parse_crop(values["crop"].value)
    dataset = load_source(values)
    found = audit(dataset, crop=crop, predictions=values["predictions"].value)
    data_dir = values["data_dir"].value
    page = write_audit(found, folder, data_dir=data_dir)
    print(f"{source}: {len(dataset):,} pictures, {len(dataset.class_names)} classes")
    print("\n".join(found.summary))
    print(f"page: {page}")
    print(f"removals: {folder / 'clean.json'}; delete an entry to keep its picture, and train by\n")
    print(f"  {train_command(found, folder, data_dir)}")


PREPARE = Verb(
    "write any source as a TFDS data set, which loads faster and holds what was cleaned",
    """
  prepare --source=zip:PBC_dataset_normal_DIB.zip --name=pbc --data_dir=data
  prepare --source=npz:cells.npz --clean=audit/clean.json --data_dir=data
  prepare --source=medmnist:bloodmnist_128 --image_size=128 --data_dir=data""",
    _define_prepare,
    _prepare,
)

AUDIT = Verb(
    "find duplicates, planted pictures, conflicting labels, outliers, leaks and shortcuts in a data set",
    """
  audit --source=folder:cells --output=audit
  audit --source=npz:cells.npz --class_names=basophil,eosinophil,monocyte --output=audit
  train --config=pbc_scratch --config.data.source=folder:cells --config.data.clean=audit/clean.json --workdir=run""",
    _define_audit,
    _audit,
)
