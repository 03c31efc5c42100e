"""The main job: train, evaluate and report, or resume what is unfinished of it."""

import contextlib
import datetime
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from bloodcell_jax.config import Config, to_dict
from bloodcell_jax.devices.processes import check_equal_everywhere, say_place, shared, wait_for_all
from bloodcell_jax.errors import DivergedError, UsageError
from bloodcell_jax.evaluate.fit_calibration import described
from bloodcell_jax.evaluate.metrics import Scores, ranking_of
from bloodcell_jax.evaluate.outputs import write_split
from bloodcell_jax.models.network import Params
from bloodcell_jax.pretrained import check_new_folder
from bloodcell_jax.report import write_report
from bloodcell_jax.run.before_and_after import before_and_after, evaluate_start, start_of
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.data_summary import data_summary, unused_labels
from bloodcell_jax.run.environment import describe_environment
from bloodcell_jax.run.evaluation import OnEvaluation, RunEvaluator
from bloodcell_jax.run.finished_model import calibration_of_model, write_model
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.loop import Loop
from bloodcell_jax.run.preview import write_preview
from bloodcell_jax.run.run import Run
from bloodcell_jax.run.seen_by_start import seen_sentence
from bloodcell_jax.run.tracking.feed import Feed
from bloodcell_jax.run.tracking.sinks import DEFAULT_SINKS, check_sinks
from bloodcell_jax.run.watch.preemption import StopSignals
from bloodcell_jax.train.stages import size_warning
from bloodcell_jax.weights.calibration import Calibration
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints, restore_params
from bloodcell_jax.workdir.json_files import read_json, read_json_if_present, update_json, write_json
from bloodcell_jax.workdir.output_files import check_outside
from bloodcell_jax.workdir.own_files import check_own, check_start_outside, delete_run, delete_temporaries
from bloodcell_jax.workdir.resume import check_resumable, check_same_splits, step_to_resume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a finished run leaves.

    Attributes:
      workdir: its folder.
      step: number of updates.
      best_step: step of the checkpoint that was evaluated.
      metrics: by split, the content of eval/<split>/metrics.json.
      report: the HTML page.
    """

    workdir: Path
    step: int
    best_step: int
    metrics: dict[str, Scores]
    report: Path


def train_and_evaluate(
    config: Config,
    workdir: str | Path,
    *,
    overwrite: bool = False,
    profile_steps: range = range(0),
    signals: StopSignals | None = None,
    on_evaluation: OnEvaluation = lambda step, metrics: None,
    log_to: Sequence[str] = DEFAULT_SINKS,
) -> Result:
    """Train, evaluate and report; a second call with the same arguments resumes what is unfinished.

    Args:
      config: what to do.
      workdir: the run's folder; created if missing.
      overwrite: delete an earlier run in it and start anew.
      profile_steps: a trace of these steps is written to workdir/profile.
      signals: what stops the run; SIGTERM, SIGUSR1 and SIGINT if it is not given, with a StoppedError.
      on_evaluation: is told the step and the metrics of val after each evaluation while the run trains. What it raises
        ends the run; a later call goes on from there.
      log_to: where metrics go besides metrics.jsonl, of `tensorboard`, `wandb` and `mlflow`.

    Raises:
      UserError: what the user or the machine must mend, each kind with its exit code.
    """
    check_sinks(log_to)
    folder = Workdir(workdir)
    folder.check_usable()
    if config.data.source is not None:
        check_outside("workdir", folder.path, config.data.source)
    check_new_folder(folder.path, config.model.weights)
    check_own(folder)
    if overwrite:
        check_start_outside(folder, config.model.weights)
    # The signals come first: one that arrives while the data load or a step compiles is answered all the same.
    with StopSignals() if signals is None else contextlib.nullcontext(signals) as signals:
        run = create_run(config)
        if signals.agreed():
            raise signals.error()
        run.slices  # noqa: B018 - a mistake in them is said now, not after the training
        if profile_steps.stop > run.total_steps:
            asked = f"{profile_steps.start}:{profile_steps.stop}"
            raise UsageError(f"--profile_steps={asked}: the run has {run.total_steps} steps; name a range inside them")
        with _begun(run, folder, overwrite=overwrite):
            return _train(run, folder, signals, profile_steps, on_evaluation, log_to)


@contextlib.contextmanager
def _begun(run: Run, workdir: Workdir, *, overwrite: bool) -> Iterator[None]:
    """Hold the workdir, check that the run may begin or go on in it, and write down what is run."""
    splits = run.splits_record
    check_equal_everywhere(f"{run.config.data.source}: the data", run.data_hash)
    check_equal_everywhere(f"{run.config.data.source}: the splits", splits["sha256"])
    is_main = jax.process_index() == 0
    with workdir.locked() if is_main else contextlib.nullcontext():
        if is_main:
            delete_run(workdir) if overwrite else delete_temporaries(workdir)
        wait_for_all("overwrite")
        check_resumable(workdir, run.config, run.data_hash, run.total_steps)
        check_same_splits(workdir, splits)
        wait_for_all("resume")
        if is_main:
            _describe(run, workdir)
            write_json(workdir.splits, splits)
            logger.info("%s", data_summary(run.dataset, run.splits))
            if unused := unused_labels(run):
                logger.info("%s", unused)
            for warning in filter(None, (size_warning(run.config), seen_sentence(run))):
                logger.warning("%s", warning)
        yield


def _describe(run: Run, workdir: Workdir) -> None:
    """Write what is run, on what, before the first step; a resumed run keeps its start, a trained one all of it."""
    write_json(workdir.config, to_dict(run.config))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    earlier = read_json_if_present(workdir.environment) or {}
    if earlier.get("steps_trained") != run.total_steps:
        write_json(workdir.environment, {"started": earlier.get("started", now)} | describe_environment(run))


def _train(
    run: Run,
    workdir: Workdir,
    signals: StopSignals,
    profile_steps: range,
    on_evaluation: OnEvaluation,
    log_to: Sequence[str],
) -> Result:
    with contextlib.closing(Checkpoints(workdir.checkpoints)) as checkpoints:
        inputs = RunInputs(run)
        evaluator = RunEvaluator(run, inputs)
        first_step = shared("first step", lambda: step_to_resume(checkpoints.folders, run.total_steps))
        names = log_to if jax.process_index() == 0 else ()
        with Feed(workdir, run.config, names, first_step) as feed:
            loop = Loop(
                run, workdir, checkpoints, signals, inputs, evaluator, feed, first_step, profile_steps, on_evaluation
            )
            trained = loop.train()
            feed.commit(trained.step)
        say_place(f"after step {trained.step}, the last one")
        if jax.process_index() == 0:
            update_json(workdir.environment, {"seconds_trained": trained.seconds, "steps_trained": trained.step})
        return _finish(run, workdir, checkpoints, inputs, evaluator, signals, trained.step)


def _finish(
    run: Run,
    workdir: Workdir,
    checkpoints: Checkpoints,
    inputs: RunInputs,
    evaluator: RunEvaluator,
    signals: StopSignals,
    step: int,
) -> Result:
    """Evaluate the best checkpoint on val and test, unless that is done; write its model and the report."""
    folders, ranking = checkpoints.folders, ranking_of(run.config.train.best_metric)
    best = shared("best", lambda: next(folders.usable(folders.best(ranking)), None))
    if best is None:
        raise DivergedError(
            f"{workdir.checkpoints}: no checkpoint is left whose metrics are finite; train anew with a lower "
            "learning_rate or with clip_norm, by --overwrite or in another --workdir"
        )
    splits = [name for name in ("val", "test") if name in run.splits]
    calibration = calibration_of_model(workdir, best)
    missing = [name for name in splits if not _is_evaluated(run, workdir, name, best, calibration)]
    if missing:
        params = restore_params(
            checkpoints, best, run.param_shapes, run.config.train.ema_decay, run.parallel.replicated
        )
        if calibration is None:
            calibration = _calibrate(params, evaluator, signals)
            if jax.process_index() == 0:
                record = {"step": best, "metrics": folders.record(best)["metrics"], "calibration": calibration}
                write_model(workdir, run.config, params, run.weights_info, **record)
        _evaluate(run, workdir, params, evaluator, signals, calibration, step=best, splits=missing)
    _compare_with_start(run, workdir, inputs, signals, splits[-1])
    if jax.process_index() == 0:
        if not workdir.preview.exists():
            write_preview(run, workdir.preview)
        write_report(workdir.path)
    wait_for_all("report")
    return Result(
        workdir=workdir.path,
        step=step,
        best_step=best,
        metrics={split: read_json(workdir.evaluation(split).metrics) for split in splits},
        report=workdir.report,
    )


def _compare_with_start(run: Run, workdir: Workdir, inputs: RunInputs, signals: StopSignals, split: str) -> None:
    """Show what the run gained on the model that it started from, if that was a classifier of such cells."""
    start, folder = start_of(run), workdir.evaluation(split)
    if start is None:
        return
    if not folder.before.exists():
        check = _check_signals(signals, f"while evaluating the start on {split}")
        before = evaluate_start(run, inputs.images, split, start, before_batch=check)
        if jax.process_index() == 0:
            write_json(folder.before, before)
    if jax.process_index() == 0:
        before = read_json(folder.before)
        if kept := before.get("seen_in_training_at_least"):
            logger.warning(
                "at least %d of %d %s images are among those that %s, which this run starts from, learned from: scores "
                "on them say nothing of new cells",
                *(kept, before["n"], split, run.config.model.weights),
            )
        table = before_and_after(before, read_json(folder.metrics))
        logger.info("%s on %s, in percent:\n%s", run.config.model.weights, split, table)


def _check_signals(signals: StopSignals, place: str) -> Callable[[], None]:
    """Return what ends a pass over images if a signal came."""

    def check() -> None:
        if signals.agreed():
            raise signals.error(place)

    return check


def _is_evaluated(run: Run, workdir: Workdir, split: str, step: int, calibration: Calibration | None) -> bool:
    """Return whether a split was evaluated with the checkpoint of a step, as its calibration and the run say."""
    folder = workdir.evaluation(split)
    if calibration is None or not all(path.exists() for path in folder.explanations):
        return False
    metrics = read_json_if_present(folder.metrics)
    if not metrics or (metrics.get("step"), metrics.get("temperature")) != (step, calibration.temperature):
        return False
    explained = len(read_json(folder.explained_cells)["cells"])
    asked = min(run.config.evaluate.explain, len(run.splits[split]))
    return explained == asked and metrics.get("slices", {}).keys() == run.slices.keys()


def _calibrate(params: Params, evaluator: RunEvaluator, signals: StopSignals) -> Calibration:
    """Return what val says of the best checkpoint, and log it."""
    if jax.process_index() == 0:
        logger.info("calibrating on val")
    calibration = evaluator.calibrate(params, before_batch=_check_signals(signals, "while calibrating on val"))
    if jax.process_index() == 0:
        logger.info("val: %s", described(calibration))
    return calibration


def _evaluate(
    run: Run,
    workdir: Workdir,
    params: Params,
    evaluator: RunEvaluator,
    signals: StopSignals,
    calibration: Calibration,
    *,
    step: int,
    splits: list[str],
) -> None:
    """Write the results of the checkpoint of `step` on some splits."""
    for split in splits:
        check = _check_signals(signals, f"while evaluating {split}")
        if jax.process_index() == 0:
            logger.info("evaluating %s and explaining %d of its images", split, run.config.evaluate.explain)
        answers, explanations = evaluator.evaluate(params, split, calibration, before_batch=check)
        if jax.process_index() == 0:
            facts = {"step": step, "calibration": calibration, "holds_val": split == "val", "slices": run.slices}
            facts |= {"explanations": explanations}
            write_split(workdir.evaluation(split), run.dataset, run.splits[split], answers, **facts)
