"""The verb `table1`."""

from absl import flags

from bloodcell_jax.cli.data_flags import define_fields, fields_of
from bloodcell_jax.cli.verb import Verb, required, required_path, say, value_of
from bloodcell_jax.config import DataConfig
from bloodcell_jax.run.watch.preemption import StopSignals

_READING = ("data_dir", "class_names")


def _define_table1(values: flags.FlagValues) -> None:
    define_fields(values, ("source", *_READING))
    flags.DEFINE_string(
        "workdir", None, "folder of the runs and of the table; the same command in it resumes", flag_values=values
    )
    flags.DEFINE_bool(
        "quick",
        False,
        "ConvNeXt-Atto, 48 px, at most 3 epochs a stage, raw data (and the base row on cleaned data), one corruption "
        "for each test image; unset: ConvNeXt-Base, 96 px, the report's stages, raw and cleaned data, five corruptions",
        flag_values=values,
    )
    flags.DEFINE_string(
        "weights",
        None,
        "what the ConvNeXt rows start from, as config.model.weights: a file, a published name, or none for random "
        "weights; unset: ImageNet weights of the network, downloaded once. If --quick cannot have them, it says so and "
        "begins from random weights",
        flag_values=values,
    )


def _table1(values: flags.FlagValues) -> None:
    data = DataConfig(source=required(values, "source"), **fields_of(values, _READING))
    workdir, quick, weights = required_path(values, "workdir"), value_of(values, "quick"), value_of(values, "weights")
    with StopSignals(ends_process=True) as signals:
        from bloodcell_jax.devices.settings import configure_jax

        configure_jax()
        from bloodcell_jax.report.text_table import aligned
        from bloodcell_jax.table1.rows import entries
        from bloodcell_jax.table1.settings import FULL, QUICK
        from bloodcell_jax.table1.table import train_table

        content = train_table(
            data,
            workdir,
            QUICK if quick else FULL,
            entries(quick=quick),
            weights=weights,
            random_if_none=quick,
            signals=signals,
        )
    rows = [[run["name"], *(_accuracy(run[on]) for on in ("clean", "corrupted"))] for run in content["runs"]]
    say(aligned([["accuracy (95 %)", "clean", "corrupted"], *rows]))
    say("\n" + "\n".join(content["findings"]))
    say(f"\npage: {workdir / 'index.html'}")


def _accuracy(scores: dict | None) -> str:
    if scores is None:
        return "diverged"
    low, high = scores["accuracy_ci95"]
    return f"{100 * scores['accuracy']:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


TABLE1 = Verb(
    "train the table of the student report that this library grew out of, with rows of ours",
    """
  table1 --source=npz:training_set.npz --workdir=runs/table1 --quick
  table1 --source=npz:training_set.npz --workdir=runs/table1 --weights=convnext_base.safetensors
  table1 --source=folder:cells --workdir=runs/table1 --weights=none

Each row is a run of its own in the workdir. docs/table1.md lists the rows, and says what is compared with what.""",
    _define_table1,
    _table1,
    has_source=True,
)
