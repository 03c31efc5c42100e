"""A search for better values of fields of the configuration, by Optuna (T. Akiba et al., KDD 2019)."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bloodcell_jax.config import Config, from_dict, to_dict
from bloodcell_jax.data.launch_cache import cached_sha256
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.errors import (
    DataError,
    DivergedError,
    MachineError,
    MemoryFullError,
    StoppedError,
    UsageError,
    UserError,
    is_out_of_memory,
    memory_error,
)
from bloodcell_jax.evaluate.metrics import ranking_of
from bloodcell_jax.extras import check_extra
from bloodcell_jax.report.sweep_page import write_sweep_page
from bloodcell_jax.run.job import train_and_evaluate
from bloodcell_jax.run.watch.preemption import StopSignals
from bloodcell_jax.search.results import results_of, write_table
from bloodcell_jax.search.search_space import Dimension, check_values, with_values
from bloodcell_jax.search.trials import REASON, SharedStudy, folder_in, next_trial
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.json_files import write_json
from bloodcell_jax.workdir.own_files import check_results
from bloodcell_jax.workdir.resume import differences

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

_NAME = "sweep"
# How a trial is run, not what it learns: all else must be equal, or its score says nothing of the others'.
_HOW = frozenset(
    f"{group}.{name}"
    for group, names in {
        "data": ("feed", "workers"),
        "evaluate": ("batch_size", "explain"),
        "train": ("backend", "shard_state", "log_every", "checkpoint_every", "keep_last", "keep_best", "keep_every"),
    }.items()
    for name in names
)


def sweep(
    config: Config,
    workdir: str | Path,
    search: Sequence[Dimension],
    *,
    trials: int,
    storage: str | None = None,
    signals: StopSignals | None = None,
) -> dict[str, Any]:
    """Train trials until the study has so many; a second call resumes, and several processes share the work.

    A trial is pruned after an evaluation on val if its best value of `train.best_metric` is worse than the median of
    the other trials at that evaluation; the first five trials never are (`optuna.pruners.MedianPruner`). Values are
    suggested by `TPESampler`, seeded by `config.seed` and the number of the trial.

    Args:
      config: of each trial, except for what is searched.
      workdir: holds `trials/<number>`, `sweep.json`, `sweep.csv`, `index.html`, and `sweep.db` by default.
      search: the fields.
      trials: number of trials, of all processes together and with those that failed.
      storage: URL of Optuna's database; None: `sweep.db` in the workdir.
      signals: as of `train_and_evaluate`.

    Returns:
      The content of `sweep.json`.

    Raises:
      UserError: as `train_and_evaluate`. A trial that diverges or fills the memory is marked as failed, and the next
        one begins; any other error marks its trial as failed and ends the sweep.
      UsageError: the study has another configuration, search or data, or optuna is not installed.
    """
    check_extra("sweep", "optuna", "sweep")
    check_values(config, search)
    workdir = Path(workdir)
    Workdir(workdir).check_usable()
    check_results(workdir, ("sweep.json", "sweep.csv", "index.html"), begun=["trials", "sweep.db"])
    shared = _open_study(config, workdir, search, storage)
    while True:
        with next_trial(shared, trials, lambda number: _sampler(config, number)) as trial:
            if trial is None:
                return _write_results(shared, config, search)
            _train(shared.study, trial, config, workdir, search, signals)
        _write_results(shared, config, search)


def _sampler(config: Config, number: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.TPESampler(seed=(config.seed + number) % 2**32)


def _open_study(config: Config, workdir: Path, search: Sequence[Dimension], storage: str | None) -> SharedStudy:
    """Return the study, created if there is none.

    Raises:
      UsageError: it has another configuration, search or data.
      DataError: the data cannot be read.
      MachineError: the database cannot be opened.
    """
    import optuna

    # It logs each trial in its own words; the pruner and the results are told in ours.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    workdir.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{workdir.absolute() / 'sweep.db'}"
    higher, hashes = ranking_of(config.train.best_metric).higher_is_better, _data_hashes(config, search)
    try:
        database = optuna.storages.get_storage(url)
        study = optuna.create_study(
            storage=database,
            study_name=_NAME,
            direction="maximize" if higher else "minimize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
    except Exception as error:  # Each database has errors of its own.
        raise MachineError(f"{url}: cannot be opened ({type(error).__name__}: {error})") from error
    texts = sorted(dimension.text for dimension in search)
    if "search" not in study.user_attrs:
        study.set_user_attr("config", json.dumps(to_dict(config)))
        study.set_user_attr("data_sha256", hashes)
        study.set_user_attr("search", texts)
    _check_same(study, config, texts, hashes, url)
    return SharedStudy(study, database, workdir, is_own=storage is None)


def _data_hashes(config: Config, search: Sequence[Dimension]) -> dict[str, str]:
    """Return the hash of each source that a trial may learn from."""
    sources = [source for field in search if field.path == "data.source" for source in field.choices.values()]
    configs = [with_values(config, {"data.source": source}) for source in sources] or [config]
    return {str(each.data.source): cached_sha256(load_data(each.data)) for each in configs}


def _check_same(study: "optuna.Study", config: Config, texts: list[str], hashes: dict[str, str], url: str) -> None:
    known = study.user_attrs
    if known.get("search") != texts:
        old = " ".join(f"--search={text}" for text in known.get("search", ()))
        raise UsageError(f"{url}: holds a study of another search ({old}); give the same, or use another --workdir")
    if changed := differences(from_dict(json.loads(known["config"])), config, free=_HOW):
        raise UsageError(f"{url}: holds a study of another configuration ({'; '.join(changed)}); use another --workdir")
    for source, data_hash in known.get("data_sha256", {}).items():
        if (now := hashes.get(source)) != data_hash:
            raise UsageError(
                f"{url}: holds a study of other data: {source} had sha256 {data_hash} and has {now}; put the "
                "data back, or use another --workdir"
            )


def _train(
    study: "optuna.Study",
    trial: "optuna.trial.Trial",
    config: Config,
    workdir: Path,
    search: Sequence[Dimension],
    signals: StopSignals | None,
) -> None:
    """Train a trial to its end, and tell the study; a trial that a signal stops stays as it is."""
    import optuna

    values = {dimension.path: dimension.suggest(trial) for dimension in search}
    folder = Workdir(folder_in(workdir, trial.number))
    shown = ", ".join(
        f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}" for path, value in values.items()
    )
    logger.info("trial %d: %s", trial.number, shown)
    metric = config.train.best_metric

    def report(step: int, metrics: Any) -> None:
        _report(trial, folder, metric)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        train_and_evaluate(_trial_config(config, values), folder.path, signals=signals, on_evaluation=report)
        _report(trial, folder, metric)
    except optuna.TrialPruned:
        logger.info("trial %d: pruned, worse than the median of the others", trial.number)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except StoppedError:
        raise
    except (UserError, MemoryError, RuntimeError) as error:
        full = is_out_of_memory(error)
        if not full and not isinstance(error, UserError):
            raise
        reason = str(memory_error(error) if full else error)
        trial.set_user_attr(REASON, reason)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if not full and not isinstance(error, DivergedError | MemoryFullError):
            raise
        logger.warning("trial %d: failed: %s", trial.number, reason)
    else:
        best = _best(folder, metric)
        logger.info("trial %d: %s %.4f", trial.number, metric, best)
        study.tell(trial, best)


def _trial_config(config: Config, values: dict[str, Any]) -> Config:
    """Return the configuration of a trial; a seed that is searched changes what is drawn, but not the splits."""
    if "seed" in values:
        config = replace(config, data=replace(config.data, split_seed=config.split_seed))
    return with_values(config, values)


def _values(workdir: Workdir, metric: str) -> dict[int, float]:
    """Return the metric of each evaluation of a run where it is finite; the first evaluation has number 1."""
    evaluated = [line[metric] for line in workdir.read_metrics() if metric in line]
    return {number: value for number, value in enumerate(evaluated, start=1) if value is not None}


def _report(trial: "optuna.trial.Trial", workdir: Workdir, metric: str) -> None:
    """Tell the study the metric of each evaluation that it does not know yet."""
    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    for number, value in _values(workdir, metric).items():
        if number not in known:
            trial.report(value, number)


def _best(workdir: Workdir, metric: str) -> float:
    values = _values(workdir, metric).values()
    if not values:
        raise DataError(f"{workdir.metrics}: holds no {metric}; begin the sweep anew in another --workdir")
    return max(values) if ranking_of(metric).higher_is_better else min(values)


def _write_results(shared: SharedStudy, config: Config, search: Sequence[Dimension]) -> dict[str, Any]:
    content, workdir = results_of(shared, config, search), shared.workdir
    write_json(workdir / "sweep.json", content)
    write_table(workdir / "sweep.csv", content)
    write_sweep_page(workdir / "index.html", content)
    return content
