"""The verb `audit`."""

from typing import Any

from absl import flags

from bloodcell_jax.cli.data_flags import data_config, define_source
from bloodcell_jax.cli.verb import Verb, required_path, say, value_of


def _define_audit(values: flags.FlagValues) -> None:
    define_source(values)
    flags.DEFINE_string("output", None, "folder for audit.json, clean.json and index.html", flag_values=values)
    flags.DEFINE_string(
        "predictions",
        None,
        "predictions.csv of the source, made out of fold; likely label errors are then ranked",
        flag_values=values,
    )


def _audit(values: flags.FlagValues) -> dict[str, Any]:
    from bloodcell_jax.data.audit.findings import audit
    from bloodcell_jax.data.loading import load_data
    from bloodcell_jax.report.audit_page import create_output, train_command, write_audit
    from bloodcell_jax.run.data_summary import data_summary
    from bloodcell_jax.workdir.output_files import check_folder

    config, output, predictions = data_config(values), required_path(values, "output"), value_of(values, "predictions")
    files = [output / name for name in ("audit.json", "clean.json", "index.html")]
    check_folder(output, files, config.source, [predictions] if predictions else [])
    folder = create_output(output)
    dataset = load_data(config).in_memory()
    say(data_summary(dataset, dataset.splits))
    found = audit(dataset, predictions=predictions)
    page = write_audit(found, folder, config)
    say("\n".join(found.summary))
    say(f"page: {page}")
    say(f"removals: {folder / 'clean.json'}; delete an entry to keep its image, and train with\n")
    say(f"  {train_command(config, folder)}")
    return found.to_dict() | {"page": str(page), "clean": str(folder / "clean.json")}


AUDIT = Verb(
    "find duplicates, planted images, conflicting labels, outliers, leaks and shortcuts in a dataset",
    """
  audit --source=folder:cells --output=audit
  audit --source=npz:cells.npz --class_names=basophil,eosinophil,monocyte --output=audit
  train --config=pbc_scratch --config.data.source=folder:cells --config.data.clean=audit/clean.json --workdir=run""",
    _define_audit,
    _audit,
    has_source=True,
    has_json=True,
)
