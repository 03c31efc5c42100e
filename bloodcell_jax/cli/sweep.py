"""The verb `sweep`."""

import copy
from typing import Any

from absl import flags
from ml_collections.config_flags import config_path

from bloodcell_jax.cli.config_flags import override
from bloodcell_jax.cli.verb import Verb, required_path, say, value_of
from bloodcell_jax.config import Config
from bloodcell_jax.errors import UsageError
from bloodcell_jax.names import shell_word
from bloodcell_jax.run.watch.preemption import StopSignals


def _define_sweep(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "folder of the trials and of their results; the same command in it resumes", flag_values=values
    )
    flags.DEFINE_multi_string(
        "search",
        None,
        "a field that is searched: PATH:uniform:LOW:HIGH, PATH:loguniform:LOW:HIGH, PATH:int:LOW:HIGH, "
        'PATH:choice:A,B, or PATH:choice:["A","B"] if a choice holds a comma; may be repeated',
        flag_values=values,
    )
    flags.DEFINE_integer(
        "trials",
        20,
        "number of trials, of all processes that share the study together",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "storage",
        None,
        "URL of the study's database, as Optuna takes it; unset: sweep.db in the workdir",
        flag_values=values,
    )


def _sweep(values: flags.FlagValues, config: Config) -> None:
    workdir = required_path(values, "workdir")
    with StopSignals(ends_process=True) as signals:
        from bloodcell_jax.devices.settings import configure_jax

        configure_jax(config.train.deterministic)
        from bloodcell_jax.search.search_space import parse_search
        from bloodcell_jax.search.sweep import sweep

        search = parse_search(value_of(values, "search") or (), lambda path, text: _read_field(config, path, text))
        settings = {"trials": value_of(values, "trials"), "storage": value_of(values, "storage")}
        content = sweep(config, workdir, search, **settings, signals=signals)
    states = [trial["state"] for trial in content["trials"]]
    say("trials: " + ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))))
    if content["best"] is not None:
        best = content["trials"][content["best"]]
        say(f"best: trial {best['number']}, {content['metric']} {best['value']:.4f}")
        say("  " + " ".join(shell_word(f"--config.{path}={value}") for path, value in best["values"].items()))
    say(f"page: {workdir / 'index.html'}")


def _read_field(config: Config, path: str, text: str) -> Any:
    """Return the value that `--config.PATH=TEXT` gives a field."""
    try:
        _, changed = override(copy.deepcopy(config), flags.FlagValues(), ["sweep", f"--config.{path}={text}"])
    except flags.Error as error:
        raise UsageError(" ".join(str(error).removeprefix("flag ").split())) from error
    return config_path.get_value(path, changed)


SWEEP = Verb(
    "search for better values of fields of the configuration; the same command resumes or shares the work",
    """
  sweep --config=pbc_scratch --config.data.source=zip:pbc.zip --workdir=runs/sweep --trials=30 \\
    '--search=stages[0].optimizer.learning_rate:loguniform:1e-5:1e-2' --search=model.drop_path:uniform:0:0.3
  sweep --config=quickstart --workdir=runs/sweep '--search=augment.policy:choice:["d4","d4|brightness:delta=0.2"]'

A trial counts by its best value of config.train.best_metric on val. --search is needed, and may be repeated.""",
    _define_sweep,
    _sweep,
    has_config=True,
    has_source=True,
)
