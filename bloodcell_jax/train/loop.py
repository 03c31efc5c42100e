"""The training loop."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bloodcell_jax.data.stored_pictures import StoredPictures
from bloodcell_jax.errors import DivergedError
from bloodcell_jax.evaluate.evaluator import Evaluator
from bloodcell_jax.evaluate.metrics import quick_metrics
from bloodcell_jax.train.checkpoints import Checkpoints, restore_params
from bloodcell_jax.train.feature_cache import FeatureCache
from bloodcell_jax.train.feed import open_batches, place_data
from bloodcell_jax.train.logging import MetricsLog
from bloodcell_jax.train.preemption import StopSignals
from bloodcell_jax.train.profiling import StepProfiler
from bloodcell_jax.train.progress import Progress, TrainingClock
from bloodcell_jax.train.setup import Run
from bloodcell_jax.train.stages import Stage, stage_of_step
from bloodcell_jax.train.state import TrainState, begin_stage
from bloodcell_jax.train.utilization import Utilization


class Loop:
    """The loop of one run. Its order is fixed: step, log, evaluate, begin the next stage, save.

    So a checkpoint of step s is always the state before step s, with the optimizer of the stage that runs it.
    """

    def __init__(
        self,
        run: Run,
        workdir: Path,
        checkpoints: Checkpoints,
        signals: StopSignals,
        profile_steps: range = range(0),
    ):
        self._run, self._workdir, self._checkpoints, self._signals = run, workdir, checkpoints, signals
        self._is_main = jax.process_index() == 0
        self._profiler = StepProfiler(workdir / "profile", profile_steps)
        self._data = place_data(run)
        self._evaluator = Evaluator(
            run.model,
            mean=run.config.model.mean,
            std=run.config.model.std,
            batch_size=run.config.evaluate.batch_size,
            parallel=run.parallel,
        )
        # Virtual CPU devices share their threads: steps dispatched ahead starve the all-reduce of the step before,
        # and XLA aborts after 40 s ("rendezvous may be stuck"). Waiting is free where host and device are one.
        self._synchronous = jax.default_backend() == "cpu"
        self._pending: tuple[int, dict] | None = None

    def train(self) -> float:
        """Run every step that is left; returns the seconds all steps took."""
        run = self._run
        state, step, seconds = self._restore()
        self._clock, self._measured_step = TrainingClock(seconds), step
        self._progress = Progress(step, run.total_steps, quiet=not self._is_main)
        if step == run.total_steps:
            self._progress.note(f"{self._workdir}: already trained for all {step} steps")
            return seconds
        self._progress.note(f"augmentation: {run.augmentation}")
        self._profiler.begin(step)
        self._log = MetricsLog(self._workdir, first_step=step) if self._is_main else None
        try:
            with self._progress, open_batches(run, step) as batches:
                while step < run.total_steps:
                    stage = stage_of_step(run.stages, step)
                    state = self._run_stage(stage, state, step, batches)
                    step = stage.stop
        finally:
            self._profiler.close()
            if self._log:
                self._log.close()
        self._checkpoints.wait()
        self._prune()
        return self._clock.seconds

    def restore_evaluated(self, step: int) -> Any:
        """Return the parameters of a checkpoint that evaluation uses: the average where it is on."""
        run = self._run
        ema_decay, sharding = run.config.train.ema_decay, run.parallel.replicated
        return restore_params(self._checkpoints, step, run.param_shapes, ema_decay, sharding)

    def predict(self, params: Any, indices: np.ndarray, stop: Callable[[], bool] = lambda: False) -> np.ndarray | None:
        """Return probabilities [len(indices), classes] of pictures of the dataset; None where `stop` said yes."""
        # Several processes must run the same batches, so one of them alone cannot stop.
        stop = stop if jax.process_count() == 1 else lambda: False
        return self._evaluator.predict(params, self._pictures(), indices, stop=stop)

    def _restore(self) -> tuple[TrainState, int, float]:
        run, steps = self._run, self._checkpoints.steps()
        if not steps:
            return run.initial_state(), 0, 0.0
        step = steps[-1]
        shapes = run.state_shapes(stage_of_step(run.stages, step))
        trees = self._checkpoints.restore(step, shapes.to_trees(), run.parallel.replicated)
        return (
            run.parallel.local_view(TrainState.from_trees(trees)),
            step,
            self._checkpoints.record(step)["seconds"],
        )

    def _run_stage(self, stage: Stage, state: TrainState, step: int, batches: Iterator[dict]) -> TrainState:
        run = self._run
        data, seed, batch = self._stage_data(stage, state, step), run.place_seed(), next(batches)
        self._progress.note(
            f"stage {stage.config.name}: steps {step} to {stage.stop} of {run.total_steps}; compiling the step"
        )
        train_step = run.parallel.compile_step(run.train_step(stage), state, data, batch, seed)
        self._utilization = Utilization.of_stage(run, stage)
        self._clock.start()
        self._waited = 0.0
        while True:
            self._profiler.before_step(step)
            with jax.transfer_guard("disallow"), jax.profiler.StepTraceAnnotation("train_step", step_num=step):
                state, metrics = train_step(state, data, batch, seed)
            step += 1
            if self._synchronous:
                jax.block_until_ready(metrics)
            self._profiler.after_step(step, metrics)
            state = self._after_step(stage, state, step, metrics)
            if step == stage.stop:
                return state
            batch = self._next(batches)

    def _stage_data(self, stage: Stage, state: TrainState, step: int) -> dict[str, jax.Array]:
        """Return what the steps of a stage take as `data`: the pictures, or the features that it keeps of them."""
        if stage.config.cached_views is None:
            return self._data
        run, name = self._run, stage.config.name
        cache, params = FeatureCache.of_stage(run, stage), run.parallel.global_view(state.params)
        shown = self._progress.open_pass(f"stage {name}: {cache}", cache.shape[0])

        def report(done: int) -> None:
            shown(done)
            if self._signals.agreed():
                raise self._signals.error(f"while computing the features of stage {name}, at step {step}")

        # They stand for the stage's forward passes, so their time counts as training.
        self._clock.start()
        features = cache.compute(run, params, self._pictures(), report)
        self._clock.lap()
        return run.parallel.place_state({"features": features})

    def _pictures(self) -> jax.Array | np.ndarray | StoredPictures:
        """Return all pictures of the dataset as passes over them take them."""
        return self._run.parallel.global_view(self._data["images"]) if self._data else self._run.dataset.images

    def _next(self, batches: Iterator[dict]) -> dict:
        start = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - start
        return batch

    def _after_step(self, stage: Stage, state: TrainState, step: int, metrics: dict) -> TrainState:
        train = self._run.config.train
        evaluate_every = train.evaluate_every or self._run.steps_per_epoch
        evaluate = step % evaluate_every == 0 or step == stage.stop
        log = evaluate or step % train.log_every == 0
        stop = self._stop_now(log)
        save = evaluate or stop or (train.checkpoint_every > 0 and step % train.checkpoint_every == 0)
        self._progress.advance(step)
        if log:
            self._write_pending()
            self._pending = (step, metrics)
        if not save:
            if self._synchronous:
                self._write_pending()
            return state
        pending = self._fetch_pending()
        jax.block_until_ready(state)
        self._clock.lap()
        val = self._evaluate(state) if evaluate else {}
        self._write(pending, val)
        if step == stage.stop and step < self._run.total_steps:
            state = self._next_stage(state, step)
        self._save(state, step, val)
        if stop:
            self._checkpoints.wait()
            raise self._signals.error(f"at step {step} of {self._run.total_steps}")
        self._measured_step = step
        self._clock.start()
        return state

    def _stop_now(self, at_log_step: bool) -> bool:
        """Return whether to stop; several processes agree at logged steps, one looks at every step."""
        if jax.process_count() > 1:
            return at_log_step and self._signals.agreed()
        return self._signals.received()

    def _next_stage(self, state: TrainState, step: int) -> TrainState:
        following = stage_of_step(self._run.stages, step)
        begin = jax.jit(
            lambda state: begin_stage(state, following.optimizer, following.mask),
            out_shardings=self._run.parallel.state_sharding,
        )
        return begin(state)

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        indices = self._run.splits["val"]
        probabilities = self.predict(self._run.parallel.global_view(state.evaluated_params), indices)
        metrics = quick_metrics(self._run.dataset.labels[indices], probabilities)
        return {f"val/{name}": value for name, value in metrics.items()}

    def _write_pending(self) -> None:
        self._write(self._fetch_pending(), {})

    def _fetch_pending(self) -> dict | None:
        """Return the line of the pending step, waiting for that step; None where no step is pending."""
        if self._pending is None:
            return None
        (step, metrics), self._pending = self._pending, None
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        run, seconds = self._run, self._clock.lap()
        bad_steps = values.pop("bad_steps")
        if bad_steps > run.config.train.max_bad_steps:
            raise DivergedError(
                f"step {step}: {bad_steps} steps in a row had non-finite gradients; lower learning_rate or set "
                "clip_norm. The last checkpoint holds the state before"
            )
        images = (step - self._measured_step) * run.config.train.batch_size
        self._measured_step = step
        waited, self._waited = self._waited, 0.0
        return {
            "step": step,
            "stage": stage_of_step(run.stages, step - 1).config.name,
            "epoch": step * run.config.train.batch_size / run.sampler.epoch_size,
            **values,
            "perf/images_per_second": images / seconds,
            "perf/mfu": self._utilization.mfu(images / seconds),
            "perf/data_wait": waited / seconds,
        }

    def _write(self, line: dict | None, val: dict[str, float]) -> None:
        if line is None or not self._is_main:
            return
        self._log.write(line | val)
        self._progress.show(line, self._run.config.train.batch_size)
        if val:
            values = "  ".join(f"{name} {value:.4f}" for name, value in val.items())
            self._progress.note(f"step {line['step']}/{self._run.total_steps}  {values}")

    def _save(self, state: TrainState, step: int, val: dict[str, float]) -> None:
        if self._log:
            self._log.sync()
        self._checkpoints.wait()
        self._prune()
        trees = self._run.parallel.global_view(state.to_trees())
        self._checkpoints.save(step, trees, {"metrics": val, "seconds": self._clock.seconds})

    def _prune(self) -> None:
        train = self._run.config.train
        self._checkpoints.prune(keep_last=train.keep_last, keep_best=train.keep_best, metric=train.best_metric)
