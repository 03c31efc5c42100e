"""The verb `prepare`."""

from absl import flags

from bloodcell_jax.cli.data_flags import data_config, define_source, help_of
from bloodcell_jax.cli.verb import Verb, required, say, value_of
from bloodcell_jax.config import DataConfig, as_text
from bloodcell_jax.config.data import SCALE


def _define_prepare(values: flags.FlagValues) -> None:
    define_source(values)
    flags.DEFINE_string("name", None, "name of the prepared dataset; unset: named after the source", flag_values=values)
    flags.DEFINE_string("clean", None, help_of("clean"), flag_values=values)


def _prepare(values: flags.FlagValues) -> None:
    from bloodcell_jax.data.dataset import check_learnable
    from bloodcell_jax.data.loading import load_data
    from bloodcell_jax.data.tfds_sets import default_name, prepare

    data_dir, config = required(values, "data_dir"), data_config(values)
    config.clean = value_of(values, "clean")
    dataset = load_data(config).in_memory()
    check_learnable(dataset)
    name = prepare(dataset, data_dir, value_of(values, "name") or default_name(dataset.source))
    if dataset.columns:
        say(f"not kept, because a prepared dataset has no columns but the group: {', '.join(dataset.columns)}")
    say(f"{len(dataset):,} images of {len(dataset.class_names)} classes; train on them with")
    say(f"  --config.data.source=tfds:{name} --config.data.data_dir={data_dir}{_geometry_flags(config)}")
    if dataset.groups is not None:
        say(f"{len(set(dataset.groups)):,} groups are kept; leave data.group_regex unset")


def _geometry_flags(config: DataConfig) -> str:
    """Return the flags of what was looked at of image files, which the models of a prepared dataset keep."""
    fields = {name: getattr(config, name) for name in SCALE}
    given = {name: value for name, value in fields.items() if value != getattr(DataConfig, name)}
    return "".join(f" --config.data.{name}={as_text(value)}" for name, value in given.items())


PREPARE = Verb(
    "write any source as a TFDS dataset, which loads faster and holds the cleaned data",
    """
  prepare --source=zip:PBC_dataset_normal_DIB.zip --name=pbc --data_dir=data
  prepare --source=npz:cells.npz --clean=audit/clean.json --data_dir=data
  prepare --source=medmnist:bloodmnist_128 --image_size=128 --data_dir=data""",
    _define_prepare,
    _prepare,
    has_source=True,
)
