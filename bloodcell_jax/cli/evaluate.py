"""The verb `evaluate`."""

from absl import flags

from bloodcell_jax.cli.data_flags import define_finding, finding
from bloodcell_jax.cli.model_flags import define_model, load_classifier
from bloodcell_jax.cli.verb import Verb, value_of


def _define_evaluate(values: flags.FlagValues) -> None:
    define_model(values)
    flags.DEFINE_string("source", None, "data to evaluate on; unset: the run's own data and splits", flag_values=values)
    flags.DEFINE_string(
        "split", None, "train, val, test or all; unset: test, or val if there is no test", flag_values=values
    )
    flags.DEFINE_string("output", None, "folder for the results; unset: eval/SPLIT of the workdir", flag_values=values)
    define_finding(values)


def _evaluate(values: flags.FlagValues) -> None:
    from bloodcell_jax.evaluate.evaluate_source import evaluate_source

    source, split, output = (value_of(values, name) for name in ("source", "split", "output"))
    folder, metrics = evaluate_source(load_classifier(values), source, split, output, **finding(values))
    print(f"{folder}: accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['f1_macro']:.4f}, n {metrics['n']}")


EVALUATE = Verb(
    "compute a trained model's metrics on a split or on another source",
    """
  evaluate --workdir=runs/first --split=test
  evaluate --workdir=runs/first --source=folder:other_lab --output=results""",
    _define_evaluate,
    _evaluate,
    has_source=True,
)
