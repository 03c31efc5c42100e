"""The verbs that use a trained model: `evaluate`, `predict` and `report`."""

from absl import flags

from bloodcell_jax.cli.verb import Verb, define_skip_bad, parse_crop, required_path
from bloodcell_jax.errors import UsageError


def _define_model(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_string("checkpoint", "best", "best, last or a step", flag_values=values)
    flags.DEFINE_string(
        "crop", None, "pixels of the centre crop of picture files, or none; unset: as trained", flag_values=values
    )


def _classifier(values: flags.FlagValues):
    from bloodcell_jax.evaluate.classifier import Classifier
    from bloodcell_jax.train.platform import prepare_platform

    prepare_platform()
    classifier = Classifier.from_workdir(required_path(values, "workdir"), checkpoint=values["checkpoint"].value)
    if values["crop"].value is not None:
        classifier.config.data.crop = parse_crop(values["crop"].value)
    return classifier


def _define_evaluate(values: flags.FlagValues) -> None:
    _define_model(values)
    flags.DEFINE_string(
        "source", None, "data to evaluate on; unset: the run's own, with its splits", flag_values=values
    )
    flags.DEFINE_string(
        "split", None, "train, val, test or all; unset: test, or val where there is none", flag_values=values
    )
    flags.DEFINE_string("output", None, "folder for the results; unset: eval/SPLIT of the workdir", flag_values=values)
    define_skip_bad(values)


def _evaluate(values: flags.FlagValues) -> None:
    from bloodcell_jax.evaluate.command import evaluate_source

    classifier = _classifier(values)
    folder, metrics = evaluate_source(
        classifier,
        values["source"].value,
        values["split"].value,
        values["output"].value,
        skip_bad=values["skip_bad"].value,
    )
    print(f"{folder}: accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['f1_macro']:.4f}, n {metrics['n']}")


def _define_predict(values: flags.FlagValues) -> None:
    _define_model(values)
    flags.DEFINE_multi_string(
        "input", [], "a picture, folder, zip or glob pattern; may be given several times", flag_values=values
    )
    flags.DEFINE_string("output", None, "the CSV file to write", flag_values=values)
    flags.DEFINE_bool("strict", False, "end with exit code 3 if any picture cannot be read", flag_values=values)


def _predict(values: flags.FlagValues) -> None:
    from bloodcell_jax.evaluate.command import predict_files

    inputs, output = values["input"].value, required_path(values, "output")
    if not inputs:
        raise UsageError("--input: missing; a picture, folder, zip or glob pattern")
    count = predict_files(lambda: _classifier(values), inputs, output, strict=values["strict"].value)
    print(f"{output}: {count} pictures")


def _define_report(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a run", flag_values=values)


def _report(values: flags.FlagValues) -> None:
    from bloodcell_jax.report import write_report

    print(f"report: {write_report(required_path(values, 'workdir'))}")


EVALUATE = Verb(
    "metrics of a trained model on a split or another source",
    """
  evaluate --workdir=runs/first --split=test
  evaluate --workdir=runs/first --source=folder:other_lab --output=results""",
    _define_evaluate,
    _evaluate,
)

PREDICT = Verb(
    "classify pictures into a CSV file",
    """
  predict --workdir=runs/first --input=slides/ --output=cells.csv
  predict --workdir=runs/first --input='new/*.png' --input=more.zip --output=cells.csv""",
    _define_predict,
    _predict,
)

REPORT = Verb(
    "rebuild a run's HTML report",
    """
  report --workdir=runs/first""",
    _define_report,
    _report,
)
