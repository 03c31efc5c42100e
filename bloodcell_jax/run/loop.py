"""The training loop."""

import contextlib
from typing import NamedTuple

import jax
import numpy as np

from bloodcell_jax.devices.processes import say_place, shared
from bloodcell_jax.evaluate.metrics import ranking_of
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.divergence import StepChecks
from bloodcell_jax.run.evaluation import OnEvaluation, RunEvaluator
from bloodcell_jax.run.inputs import RunInputs, StageInput
from bloodcell_jax.run.journal import Journal
from bloodcell_jax.run.patience import Patience
from bloodcell_jax.run.run import Run
from bloodcell_jax.run.step_memory import check_memory
from bloodcell_jax.run.tracking.feed import Feed
from bloodcell_jax.run.watch.meter import Line, StageMeter, TrainingClock
from bloodcell_jax.run.watch.preemption import StopSignals
from bloodcell_jax.run.watch.profiling import StepProfiler
from bloodcell_jax.train.stages import TrainingStage, stage_of_step
from bloodcell_jax.train.state import TrainState
from bloodcell_jax.train.step import Data
from bloodcell_jax.workdir import Workdir
from bloodcell_jax.workdir.checkpoints import Checkpoints


class Trained(NamedTuple):
    """Where training ended.

    Attributes:
      step: the last one; less than the run's total if it ended early.
      seconds: that all steps took.
    """

    step: int
    seconds: float


class _Due(NamedTuple):
    """What is to be done after a step."""

    log: bool
    evaluate: bool
    stop: bool
    save: bool


class Loop:
    """The loop of one run, from its last checkpoint to its last step.

    A checkpoint of step s always is the state before step s, with the optimizer of the stage that runs it.
    """

    def __init__(
        self,
        run: Run,
        workdir: Workdir,
        checkpoints: Checkpoints,
        signals: StopSignals,
        inputs: RunInputs,
        evaluator: RunEvaluator,
        feed: Feed,
        first_step: int,
        profile_steps: range = range(0),
        on_evaluation: OnEvaluation = lambda step, metrics: None,
    ):
        self._run, self._workdir, self._checkpoints, self._signals = run, workdir, checkpoints, signals
        self._inputs, self._evaluator, self._on_evaluation = inputs, evaluator, on_evaluation
        self._first_step = first_step
        self._record = checkpoints.folders.record(first_step) if first_step else {}
        self._clock = TrainingClock(self._record.get("seconds", 0.0))
        self._patience = Patience(run, self._record.get("stage_values", []))
        self._journal = Journal(
            workdir,
            feed,
            first_step=first_step,
            total_steps=run.total_steps,
            batch_size=run.config.train.batch_size,
            is_main=jax.process_index() == 0,
        )
        # Checkpoints of earlier versions do not have it.
        skipped = self._record.get("skipped_steps", 0)
        self._checks = StepChecks(run, workdir, checkpoints, self._journal, skipped)
        self._profiler = StepProfiler(workdir.profile, profile_steps)
        # Virtual CPU devices share their threads: steps dispatched ahead starve the all-reduce of the step before,
        # and XLA aborts after 40 s ("rendezvous may be stuck"). Waiting is free if host and device are one.
        self._waits = jax.default_backend() == "cpu"
        self._trained = self._saved = first_step
        signals.is_saved = lambda: self._trained == self._saved and not checkpoints.is_saving

    def train(self) -> Trained:
        """Run every step that is left."""
        step, total, note = self._first_step, self._run.total_steps, self._journal.progress.note
        state = self._restore()
        if self._is_over(step) and not self._is_unevaluated:
            self._prune()
            early = f"already ended early at step {step} of {total}: {self._patience}"
            note(f"{self._workdir}: {f'already trained for all {total} steps' if step == total else early}")
            return Trained(step, self._clock.seconds)
        note(f"augmentation: {self._run.augmentation}")
        self._profiler.begin(step)
        with contextlib.closing(self._profiler), self._journal:
            if self._is_unevaluated:
                state = self._evaluate_again(state, step)
            while not self._is_over(step):
                state, step = self._run_stage(stage_of_step(self._run.stages, step), state, step)
            if step < total:
                note(f"step {step}/{total}  ends early: {self._patience}")
        self._checkpoints.wait()
        self._prune()
        return Trained(step, self._clock.seconds)

    def _is_over(self, step: int) -> bool:
        return step == self._run.total_steps or self._patience.ends_run(step)

    def _run_stage(self, stage: TrainingStage, state: TrainState, step: int) -> tuple[TrainState, int]:
        """Run a stage from a step on; returns the state after its last step, and that step."""
        run, journal, stage_input = self._run, self._journal, self._inputs.of_stage(stage)
        data, seed = self._place_data(stage, stage_input, state, step), run.place_seed()
        with stage_input.open_batches(step) as batches:
            journal.progress.note(
                f"stage {stage.name}: steps {step} to {stage.stop} of {run.total_steps}; compiling the step"
            )
            train_step = compile_stage(run, stage, stage_input)
            check_memory(run, stage, train_step)
            meter = StageMeter(run, stage, self._clock, step)
            while step < stage.stop and not self._is_over(step):
                batch = meter.next_of(batches)
                self._profiler.before_step(step)
                self._trained = step + 1
                with jax.transfer_guard("disallow"), jax.profiler.StepTraceAnnotation("train_step", step_num=step):
                    state, metrics = train_step(state, data, batch, seed)
                step += 1
                say_place(f"at step {step} of {run.total_steps}")
                self._checks.note(step, metrics)
                if self._waits:
                    jax.block_until_ready(metrics)
                self._profiler.after_step(step, metrics)
                journal.progress.advance(step)

                due = self._due(stage, step)
                lines = meter.lines(step, metrics, log=due.log, now=due.save or self._waits)
                self._checks.check_skipped(step if due.save else lines[-1]["step"] if lines else 0, lines)
                if due.save:
                    self._checks.check_parameters(step, metrics)
                with meter.paused(step, state) if due.save else contextlib.nullcontext():
                    val = self._evaluate(state, step) if due.evaluate else {}
                    # The line of a step that could not be evaluated is written when it is.
                    unwritten = lines.pop() if val is None else None
                    journal.write(lines, val or {})
                    if val:
                        state = self._learn_of(val, stage, state)
                    if step == stage.stop < run.total_steps:
                        state = self._begin_stage(state, step)
                    if due.save:
                        self._save(state, step, val or {}, unwritten)
                if val:
                    self._on_evaluation(step, val)
                if due.stop or val is None:
                    self._commit()
                    raise self._signals.error()
        return state, step

    def _due(self, stage: TrainingStage, step: int) -> _Due:
        """Return what is to be done after `step` finished steps; all processes of a run agree on it."""
        train = self._run.config.train
        evaluate = step % (train.evaluate_every or self._run.steps_per_epoch) == 0 or step == stage.stop
        log = evaluate or step % train.log_every == 0
        stop = self._signals.agreed()
        save = evaluate or stop or (train.checkpoint_every > 0 and step % train.checkpoint_every == 0)
        return _Due(log, evaluate, stop, save)

    def _restore(self) -> TrainState:
        """Return the state of the last checkpoint, or the initial one."""
        run, step = self._run, self._first_step
        if step == 0:
            return run.initial_state()
        stage = stage_of_step(run.stages, step)
        trees = run.parallel.local_view(self._checkpoints.restore(step, run.tree_shapes(stage)))
        skipped = run.parallel.place_state(np.int32(self._checks.skipped))
        state = TrainState.from_trees(trees, skipped, stage.mask, stage.joining(run.parallel.platform))
        return jax.device_put(state, run.state_shardings(stage))

    def _place_data(self, stage: TrainingStage, stage_input: StageInput, state: TrainState, step: int) -> Data:
        """Return what the stage's steps take as `data`; features that are computed for it count as training."""
        if stage_input.note:
            self._journal.progress.note(f"stage {stage.name}: {stage_input.note}")
        show = self._journal.progress.open_pass()

        def on_progress(done: int, total: int) -> None:
            show(done, total)
            if self._signals.agreed():
                raise self._signals.error(f"at step {step}, in the features of stage {stage.name}")

        with self._clock.counting():
            return stage_input.place_data(state.params, on_progress)

    def _begin_stage(self, state: TrainState, step: int) -> TrainState:
        self._patience.begin_stage()
        return self._run.begin_stage(state, stage_of_step(self._run.stages, step))

    def _evaluate(self, state: TrainState, step: int) -> dict[str, float | None] | None:
        """Return the metrics of val, the same in every process; None if a signal came before they were there."""

        def check() -> None:
            if self._signals.agreed():
                raise InterruptedError

        try:
            metrics = self._evaluator.val_metrics(state, before_batch=check)
        except InterruptedError:
            return None
        # Hosts of two kinds could differ in the last bit, and one of them would end the run alone.
        return shared(f"val {step}", lambda: metrics)

    def _learn_of(self, val: dict[str, float | None], stage: TrainingStage, state: TrainState) -> TrainState:
        """Take in an evaluation of a stage: its learning rate may fall."""
        self._patience.add(val)
        state, line = self._patience.lower_rate(stage, state)
        if line:
            self._journal.progress.note(line)
        return state

    @property
    def _is_unevaluated(self) -> bool:
        return self._record.get("unwritten") is not None

    def _evaluate_again(self, state: TrainState, step: int) -> TrainState:
        """Evaluate the state that the run begins with, of a checkpoint that a signal left unevaluated."""
        val = self._evaluate(state, step)
        if val is None:
            raise self._signals.error()
        self._journal.write([self._record["unwritten"]], val)
        stage = stage_of_step(self._run.stages, step)
        if step > stage.start:  # else it is the last evaluation of the stage before
            state = self._learn_of(val, stage, state)
        self._save(state, step, val)
        self._on_evaluation(step, val)
        return state

    def _save(self, state: TrainState, step: int, val: dict[str, float | None], unwritten: Line | None = None) -> None:
        self._journal.sync()
        self._commit()
        self._prune()
        trees = self._run.parallel.global_view(state.to_trees())
        record = {
            "metrics": val,
            "seconds": self._clock.seconds,
            "skipped_steps": self._checks.skipped,
            "stage_values": self._patience.values,
            "splits": self._run.splits_record["sha256"],
        }
        self._checkpoints.save(step, trees, record | ({"unwritten": unwritten} if unwritten else {}))
        self._saved = step

    def _commit(self) -> None:
        """Wait for the save under way; what was logged up to its step then counts."""
        self._checkpoints.wait()
        self._journal.commit(self._saved)

    def _prune(self) -> None:
        train = self._run.config.train
        self._checkpoints.prune(
            keep_last=train.keep_last,
            keep_best=train.keep_best,
            keep_every=train.keep_every,
            ranking=ranking_of(train.best_metric),
        )
