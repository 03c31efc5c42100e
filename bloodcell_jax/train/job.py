"""The main job: train, evaluate and report, or go on where it was left."""

import contextlib
import datetime
from dataclasses import dataclass
from pathlib import Path

import jax

from bloodcell_jax import workdir as workdirs
from bloodcell_jax.config import Config, to_dict
from bloodcell_jax.data.splits import describe_splits
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.report import PREVIEW, write_report
from bloodcell_jax.train.checkpoints import Checkpoints
from bloodcell_jax.train.distributed import check_equal_everywhere
from bloodcell_jax.train.environment import describe_environment
from bloodcell_jax.train.loop import Loop
from bloodcell_jax.train.preemption import StopSignals
from bloodcell_jax.train.prepare import prepare_run
from bloodcell_jax.train.preview import write_preview
from bloodcell_jax.train.setup import Run


@dataclass(frozen=True)
class Result:
    """What a finished run leaves.

    Attributes:
      workdir: its folder.
      step: of the last update.
      best_step: of the checkpoint that was evaluated.
      metrics: by split, the content of eval/<split>/metrics.json.
      report: the HTML page.
    """

    workdir: Path
    step: int
    best_step: int
    metrics: dict[str, dict]
    report: Path


def train_and_evaluate(
    config: Config, workdir: str | Path, *, overwrite: bool = False, profile_steps: range = range(0)
) -> Result:
    """Train, evaluate and report; called again with the same arguments it goes on where it was left.

    Args:
      config: what to do.
      workdir: the run's folder; created where missing.
      overwrite: delete an earlier run in it and start anew.
      profile_steps: a trace of these steps is written to workdir/profile.

    Raises:
      UserError: what the user or the machine must mend, each kind with its exit code.
    """
    workdir = Path(workdir)
    workdirs.check_usable(workdir)
    # The signals come first: one that arrives while the data load or a step compiles is answered all the same.
    with StopSignals() as signals:
        run = prepare_run(config)
        if signals.agreed():
            raise signals.error("before the first step")
        if profile_steps.stop > run.total_steps:
            asked = f"{profile_steps.start}:{profile_steps.stop}"
            raise UsageError(f"--profile_steps={asked}: the run has {run.total_steps} steps; name a range inside them")
        return _run(run, workdir, signals, overwrite=overwrite, profile_steps=profile_steps)


def _run(run: Run, workdir: Path, signals: StopSignals, *, overwrite: bool, profile_steps: range) -> Result:
    splits = describe_splits(run.splits, run.data_hash)
    check_equal_everywhere(f"{run.config.data.source}: the data", run.data_hash)
    check_equal_everywhere(f"{run.config.data.source}: the splits", splits["sha256"])
    is_main = jax.process_index() == 0
    with workdirs.owned(workdir) if is_main else contextlib.nullcontext():
        if is_main and overwrite:
            workdirs.delete_run(workdir)
        _wait_for_all("overwrite")
        workdirs.check_resumable(workdir, run.config, run.data_hash, run.total_steps)
        _check_splits(splits, workdir)
        _wait_for_all("resume")
        if is_main:
            _describe(run, workdir)
            workdirs.write_json(workdir / "splits.json", splits)
        with contextlib.closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
            loop = Loop(run, workdir, checkpoints, signals, profile_steps)
            seconds = loop.train()
            if is_main:
                workdirs.update_json(workdir / "environment.json", {"seconds_trained": seconds})
            return _finish(run, workdir, checkpoints, loop, signals)


def _wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def _check_splits(splits: dict, workdir: Path) -> None:
    """Refuse to go on with other splits than the run began with: what it learned from would be tested on."""
    path = workdir / "splits.json"
    if path.exists() and workdirs.read_json(path)["sha256"] != splits["sha256"]:
        raise UsageError(
            f"{path}: the run's splits are not those that its configuration gives now (another version of the "
            "library?); use another --workdir, or --overwrite"
        )


def _describe(run: Run, workdir: Path) -> None:
    """Write what is run, on what, before the first step; a resumed run keeps its start."""
    workdirs.write_json(workdir / "config.json", to_dict(run.config))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path = workdir / "environment.json"
    started = workdirs.read_json(path)["started"] if path.exists() else now
    workdirs.write_json(path, {"started": started} | describe_environment(run))


def _finish(run: Run, workdir: Path, checkpoints: Checkpoints, loop: Loop, signals: StopSignals) -> Result:
    """Evaluate the best checkpoint on val and test where that is missing, and write the report."""
    best = checkpoints.best(run.config.train.best_metric)
    if not best:
        raise DataError(f"{workdir / 'checkpoints'}: no evaluated checkpoint is left; run again with --overwrite")
    splits, params = [name for name in ("val", "test") if name in run.splits], None
    paths = {split: workdir / "eval" / split / "metrics.json" for split in splits}
    for split, path in paths.items():
        if path.exists() and workdirs.read_json(path).get("step") == best[0]:
            continue
        params = loop.restore_evaluated(best[0]) if params is None else params
        probabilities = loop.predict(params, run.splits[split], stop=signals.received)
        if probabilities is None:
            raise signals.error(f"while evaluating {split}")
        if jax.process_index() == 0:
            write_split(path.parent, run.dataset, run.splits[split], probabilities, step=best[0])
    if jax.process_index() == 0:
        preview = workdir / PREVIEW
        if not preview.exists():
            write_preview(run, preview)
        write_report(workdir)
    _wait_for_all("report")
    return Result(
        workdir=workdir,
        step=run.total_steps,
        best_step=best[0],
        metrics={split: workdirs.read_json(path) for split, path in paths.items()},
        report=workdir / "report" / "index.html",
    )
