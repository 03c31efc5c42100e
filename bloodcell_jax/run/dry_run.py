"""What `--dry_run` says of a run without training it: the data, how long its steps take, what they cost, parameters."""

from dataclasses import asdict, dataclass
from typing import Any

import jax

from bloodcell_jax.config import Config
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import count_parameters
from bloodcell_jax.report.rendering import duration_text
from bloodcell_jax.report.text_table import aligned
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.data_summary import data_summary, unused_labels
from bloodcell_jax.run.run import Run
from bloodcell_jax.run.stage_costs import StageCost, stage_costs
from bloodcell_jax.train.freezing import decay_mask, partition
from bloodcell_jax.train.stages import TrainingStage, size_warning


@dataclass(frozen=True)
class DryRun:
    """What is known of a run before it trains.

    Attributes:
      run: the run.
      costs: of its stages, in order.
    """

    run: Run
    costs: list[StageCost]

    @property
    def seconds(self) -> float | None:
        """How long the steps of all stages take; None if that was not measured."""
        known = [cost.seconds for cost in self.costs if cost.seconds is not None]
        return sum(known) if len(known) == len(self.costs) else None

    def __str__(self) -> str:
        """The data, the time, the cost of each stage, and the long table of parameters last."""
        run = self.run
        data = data_summary(run.dataset, run.splits)
        warning = size_warning(run.config)
        parts = [data, unused_labels(run), warning and f"warning: {warning}"]
        parts += [self._time(), _cost_table(self.costs), parameter_table(run)]
        return "\n\n".join(filter(None, parts))

    def to_dict(self) -> dict[str, Any]:
        """Return the same as values for JSON: sizes in bytes, times in seconds."""
        run, names = self.run, self.run.dataset.class_names
        shapes = leaves_by_path(run.param_shapes)
        return {
            "source": run.dataset.source,
            "examples": len(run.dataset),
            "splits": {
                split: dict(zip(names, run.dataset.class_counts(indices).tolist(), strict=True))
                for split, indices in run.splits.items()
            },
            "devices": jax.device_count(),
            "device_kind": jax.devices()[0].device_kind,
            "seconds": self.seconds,
            "stages": [asdict(cost) for cost in self.costs],
            "parameters": count_parameters(shapes),
            "trainable": {stage.name: _count_trainable(run, stage) for stage in run.stages},
        }

    def _time(self) -> str:
        steps, devices = self.run.total_steps, f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        if self.seconds is None:
            return f"time: not known for all of the {steps:,} steps, see below"
        text = f"about {duration_text(self.seconds)} for {steps:,} steps on {devices}, as measured now"
        return f"time: {text}; reading images, compiling, evaluating and saving come on top"


def dry_run(config: Config) -> DryRun:
    """Return what is known of a run before it trains; writes nothing."""
    run = create_run(config)
    return DryRun(run, stage_costs(run))


_COST_COLUMNS = (
    "stage",
    "steps",
    "batch",
    "image size",
    "GFLOP/step/device",
    "arguments MiB",
    "temporary MiB",
    "ms/step",
    "time",
)


def _cost_table(costs: list[StageCost]) -> str:
    rows: list[tuple[str, ...]] = [_COST_COLUMNS]
    for cost in costs:
        figures = (
            _shown(cost.flops, 1e9, ".2f"),
            _shown(cost.argument_bytes, 2**20, ",.0f"),
            _shown(cost.temporary_bytes, 2**20, ",.0f"),
            _shown(cost.seconds_per_step, 1e-3, ",.1f"),
            "-" if cost.seconds is None else duration_text(cost.seconds),
        )
        rows.append((cost.stage, str(cost.steps), str(cost.batch_size), str(cost.image_size), *figures))
    return "\n".join([aligned(rows), *(note for cost in costs for note in cost.notes)])


def _shown(value: float | None, unit: float, form: str) -> str:
    return "-" if value is None else format(value / unit, form)


def parameter_table(run: Run) -> str:
    """Return one line per parameter: path, shape, whether it decays, and the stages in which it is trainable.

    Beside a stage's word stands the fraction of the learning rate that the parameter has in it, if that is not all.
    """
    decays = leaves_by_path(decay_mask(run.param_shapes))
    shapes = leaves_by_path(run.param_shapes)
    rows = [("parameter", "shape", "decay", *(stage.name for stage in run.stages))]
    for path, leaf in shapes.items():
        states = [_learning(stage, path) for stage in run.stages]
        rows.append((path, "x".join(map(str, leaf.shape)), "yes" if decays[path] else "no", *states))
    counts = [f"{_count_trainable(run, stage):,}" for stage in run.stages]
    rows.append((f"trainable of {count_parameters(shapes):,}", "", "", *counts))
    return aligned(rows)


def _count_trainable(run: Run, stage: TrainingStage) -> int:
    return count_parameters(partition(run.param_shapes, stage.mask)[0])


def _learning(stage: TrainingStage, path: str) -> str:
    """Return whether a stage trains a parameter, and at which fraction of its learning rate."""
    if not leaves_by_path(stage.mask)[path]:
        return "frozen"
    decay, distances = stage.config.optimizer.layer_decay, stage.distances
    scale = 1.0 if decay is None or distances is None else decay ** distances[path]
    return "trainable" if scale == 1 else f"trainable x {scale:.3g}"
