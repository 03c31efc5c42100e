"""What `--dry_run` prints: parameters, data and the cost of a step, without training it."""

from bloodcell_jax.config import Config
from bloodcell_jax.models.network import leaves_by_path
from bloodcell_jax.models.registry import count_parameters
from bloodcell_jax.report.text_table import aligned
from bloodcell_jax.run.compilation import compile_stage
from bloodcell_jax.run.create import create_run
from bloodcell_jax.run.data_summary import data_summary, unused_labels
from bloodcell_jax.run.inputs import RunInputs
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.freezing import decay_mask, partition
from bloodcell_jax.train.stages import TrainingStage, size_warning


def describe_run(config: Config) -> str:
    """Return the parameter table, the data summary and each stage's compiled cost as text; writes nothing."""
    run = create_run(config)
    data = data_summary(run.dataset, run.splits, crop=run.config.data.crop)
    warning = size_warning(run.config)
    sizes = warning and f"warning: {warning}"
    return "\n\n".join(filter(None, [parameter_table(run), data, unused_labels(run), sizes, stage_costs(run)]))


def parameter_table(run: Run) -> str:
    """Return one line per parameter: path, shape, whether it decays, and the stages in which it is trainable.

    Beside a stage's word stands the fraction of the learning rate that the parameter has in it, if that is not all.
    """
    decays = leaves_by_path(decay_mask(run.param_shapes))
    shapes = leaves_by_path(run.param_shapes)
    rows = [("parameter", "shape", "decay", *(stage.config.name for stage in run.stages))]
    for path, leaf in shapes.items():
        states = [_learning(stage, path) for stage in run.stages]
        rows.append((path, "x".join(map(str, leaf.shape)), "yes" if decays[path] else "no", *states))
    counts = [f"{count_parameters(partition(run.param_shapes, stage.mask)[0]):,}" for stage in run.stages]
    rows.append((f"trainable of {count_parameters(shapes):,}", "", "", *counts))
    return aligned(rows)


def _learning(stage: TrainingStage, path: str) -> str:
    """Return whether a stage trains a parameter, and at which fraction of its learning rate."""
    if not leaves_by_path(stage.mask)[path]:
        return "frozen"
    decay, distances = stage.config.optimizer.layer_decay, stage.distances
    scale = 1.0 if decay is None or distances is None else decay ** distances[path]
    return "trainable" if scale == 1 else f"trainable x {scale:.3g}"


def stage_costs(run: Run) -> str:
    """Return, per stage, its steps and what XLA says of its compiled step: FLOPs and memory on one device.

    What a stage computes before its first step is named after the table; it is not computed.
    """
    rows: list[tuple[str, ...]] = [
        ("stage", "steps", "batch", "image size", "GFLOP/step/device", "arguments MiB", "temporary MiB"),
    ]
    inputs, notes = RunInputs(run), []
    for stage in run.stages:
        stage_input, name = inputs.of_stage(stage), stage.config.name
        if stage_input.note:
            notes.append(f"{name} runs the backbone once for each view and keeps {stage_input.note}")
        compiled = compile_stage(run, stage, stage_input)
        costs = ("-", "-", "-")
        if hasattr(compiled, "cost_analysis"):
            cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
            costs = (
                f"{cost.get('flops', float('nan')) / 1e9:.2f}",
                f"{memory.argument_size_in_bytes / 2**20:,.0f}",
                f"{memory.temp_size_in_bytes / 2**20:,.0f}",
            )
        else:  # see `DataParallel.compile_step`
            notes.append(f"{name} is compiled at its first step; --config.train.backend=jit would compile it now")
        facts = stage.stop - stage.start, run.config.train.batch_size, stage.image_size
        rows.append((name, *map(str, facts), *costs))
    return "\n".join([aligned(rows), *notes])
