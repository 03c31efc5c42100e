"""The verb `crossval`."""

from typing import Any

from absl import flags

from bloodcell_jax.cli.verb import Verb, required_path, say, value_of
from bloodcell_jax.config import Config
from bloodcell_jax.run.watch.preemption import StopSignals


def _define_crossval(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "folder of the runs and of their results; the same command in it resumes", flag_values=values
    )
    flags.DEFINE_integer("folds", 5, "number of folds", lower_bound=2, flag_values=values)
    flags.DEFINE_integer(
        "seeds", 1, "number of seeds, from config.seed on; each trains every fold", lower_bound=1, flag_values=values
    )


def _crossval(values: flags.FlagValues, config: Config) -> None:
    workdir, folds, seeds = required_path(values, "workdir"), value_of(values, "folds"), value_of(values, "seeds")
    with StopSignals(ends_process=True) as signals:
        from bloodcell_jax.devices.settings import configure_jax

        configure_jax(config.train.deterministic)
        from bloodcell_jax.search.cross_validation import cross_validate

        content = cross_validate(config, workdir, folds=folds, seeds=seeds, signals=signals)
    for split, spread in content["metrics"].items():
        say(f"{split}, mean and standard deviation of {len(content['runs'])} runs: {_summary(spread)}")
    for name, scores in (("out of fold", content["out_of_fold"]), ("ensemble on test", content.get("ensemble"))):
        if scores is not None:
            say(f"{name}: accuracy {scores['accuracy']:.4f}, macro F1 {scores['f1_macro']:.4f}, n {scores['n']}")
    for soup in content["soup"]["seeds"]:
        scores = soup["test"]
        on_test = f"accuracy {scores['accuracy']:.4f}" if scores else "no test split to score it on"
        say(f"soup of seed {soup['seed']} on test: {on_test}; {workdir / soup['path']}")
    if content["soup"]["reason"]:
        say(f"no soup: {content['soup']['reason']}")
    say(f"page: {workdir / 'index.html'}")


def _summary(spread: dict[str, dict[str, Any]]) -> str:
    shown = (("accuracy", "accuracy"), ("macro F1", "f1_macro"))
    return ", ".join(f"{title} {spread[key]['mean']:.4f} ± {spread[key]['std']:.4f}" for title, key in shown)


CROSSVAL = Verb(
    "train k folds with one or more seeds, and score them together; the same command resumes",
    """
  crossval --config=pbc_scratch --config.data.source=zip:pbc.zip --workdir=runs/folds
  crossval --config=pbc_scratch --config.data.source=folder:cells --folds=10 --seeds=3 --workdir=runs/folds
  audit --source=folder:cells --predictions=runs/folds/out_of_fold.csv --output=audit""",
    _define_crossval,
    _crossval,
    has_config=True,
    has_source=True,
)
