"""The whole benchmark: what it measures, in which order, and the results."""

import contextlib
import gc
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from bloodcell_jax.benchmark.checkpoint_pause import measure_checkpoint
from bloodcell_jax.benchmark.peers.process import PeerProcess
from bloodcell_jax.benchmark.peers.task import CannotError, Task
from bloodcell_jax.benchmark.programs import (
    BatchAugmentation,
    Compiled,
    Inference,
    TrainingStep,
    endless_batches,
    random_run,
)
from bloodcell_jax.benchmark.roofline import Rates, split_step, time_blocks
from bloodcell_jax.benchmark.startup import measure_startup
from bloodcell_jax.benchmark.timing import Program, dispatch_seconds, repeated, time_interleaved, time_program
from bloodcell_jax.config import Config, to_dict
from bloodcell_jax.devices.allocator import allocator_environment
from bloodcell_jax.devices.host import usable_cores
from bloodcell_jax.errors import MachineError, UsageError, is_out_of_memory
from bloodcell_jax.models.convnext import ConvNeXt
from bloodcell_jax.models.flops import forward_flops
from bloodcell_jax.models.registry import count_parameters
from bloodcell_jax.run.environment import describe_machine
from bloodcell_jax.run.run import Run
from bloodcell_jax.run.watch.utilization import measure_copy_rate, measure_matrix_rate

_WINDOW_SECONDS = 0.25
_OURS = "bloodcell_jax"
# The end of the names of peers that have no allocator setting.
_AS_STARTED = ", as started"

_log = logging.getLogger(__name__)


def run_benchmark(config: Config, *, peers: list[str], parts: list[str], windows: int) -> dict[str, Any]:
    """Measure the last stage of a configuration on random pixels, from random weights.

    Args:
      config: gives the model, batch, precision, augmentation and optimizer. Its source is not read.
      peers: keys of `peers.PEERS` that `check_peers` accepts.
      parts: the parts of `benchmark.PARTS` to measure. The others are None in the results.
      windows: number of timed windows of each program.

    Returns:
      The results, ready for JSON.

    Raises:
      UsageError: there are peers and more than one device.
      MachineError: no batch fits into the memory.
    """
    if peers and jax.device_count() > 1:
        raise UsageError(
            f"--peers: peers need exactly one device and {jax.device_count()} are visible; hide the others, for "
            "example with CUDA_VISIBLE_DEVICES=0"
        )
    start = _measure_start(config) if "start" in parts else None
    run, step, inference = compile_programs(config)
    matrix, copy = measure_matrix_rate(jnp.dtype(run.config.model.dtype)), measure_copy_rate()
    rates = Rates(matrix, copy)
    results: dict[str, Any] = {
        "environment": describe_machine(),
        "model": run.config.model.variant,
        "parameters": count_parameters(run.param_shapes),
        "image_size": run.config.data.image_size,
        "batch_size": run.config.train.batch_size,
        "batch_size_asked": config.train.batch_size,
        "precision": run.config.model.dtype,
        "augmentation": str(run.augmentation),
        "optimizer": run.config.stages[0].optimizer.name,
        "stage": run.config.stages[0].name,
        "matrix_rate": matrix,
        "copy_rate": copy,
    }
    results |= _measure_steps(run, step, inference, rates, peers, windows)
    train_seconds = results["train"]["step_ms"] / 1e3
    measure = {
        "augment": lambda: _measure_augmentation(run, train_seconds, windows),
        "input": lambda: _measure_input(run, train_seconds, windows),
        "blocks": lambda: time_blocks(run, windows=windows),
        "roofline": lambda: _measure_roofline(run, rates, train_seconds, windows),
        "checkpoint": lambda: measure_checkpoint(step),
    }
    for part, function in measure.items():
        if part in parts:
            _log.info("measuring: %s", part)
        results[part] = function() if part in parts else None
    return results | {"start": start, "config": to_dict(run.config)}


def _measure_start(config: Config) -> dict | None:
    _log.info("measuring: launch to first step, twice")
    try:
        return measure_startup(config)
    except RuntimeError as error:
        _log.info("launch to first step: not measured (%s)", error)
        return None


def compile_programs(config: Config) -> tuple[Run, TrainingStep, Inference]:
    """Return the run, its step and its inference at the first batch that fits; the batch is halved until it does.

    Step and inference have run once.

    Raises:
      MachineError: no batch fits into the memory.
    """
    while True:
        size = config.train.batch_size
        _log.info("compiling: %s, batch %d", config.model.variant, size)
        try:
            run = random_run(config)
            step, inference = TrainingStep(run), Inference(run)
            jax.block_until_ready((step(), inference()))
            return run, step, inference
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # The next try is made after the handler, because only then the memory of this one is free.
        run = step = inference = None
        gc.collect()
        config = _halved(config)
        _log.info("out of memory with batch %d; continuing with %d", size, config.train.batch_size)


def _halved(config: Config) -> Config:
    size = config.train.batch_size
    smaller = size // 2
    if smaller == 0 or smaller % jax.device_count():
        raise MachineError(f"out of memory with batch {size}, which cannot be halved; take smaller images")
    return replace(config, train=replace(config.train, batch_size=smaller))


def _measure_steps(
    run: Run, step: TrainingStep, inference: Inference, rates: Rates, peers: list[str], windows: int
) -> dict[str, Any]:
    """Return the results `train`, `inference`, `peers`, `ratios` and `peers_left_out`; the programs run in turn.

    A peer has the allocator of this process. On a CPU, where that matters, each runs once more as its users start it.
    """
    left_out: dict[str, str] = {}
    trains_all = all(jax.tree.leaves(run.stages[0].mask))
    forward = forward_flops(run.model, run.config.data.image_size)
    trained = 3 * forward * run.augmentation.images_seen if trains_all else None
    measured = {"train": (step, trained), "inference": (inference, forward)}
    with _started(peers, run, left_out) as processes:
        results: dict[str, Any] = {}
        results["peers"] = {name: {"first_call_s": p.first_call_s} | p.description for name, p in processes.items()}
        for kind, (ours, flops) in measured.items():
            _log.info("measuring: %s", kind)
            programs = {_OURS: repeated(ours)}
            programs |= {name: _until_it_ends(name, p, kind, left_out) for name, p in processes.items()}
            timings = time_interleaved(programs, windows=windows, window_seconds=_WINDOW_SECONDS)
            rate = rates.matrix * run.parallel.mesh.size
            results[kind] = _cost(timings[_OURS].seconds, run, ours.compiled, flops, rate) | {
                "dispatch_ms": 1e3 * dispatch_seconds(ours, windows=windows),
                "windows_ms": [1e3 * seconds for seconds in timings[_OURS].windows],
            }
            for name in processes:
                peer = _rate(timings[name].seconds, run.config.train.batch_size)
                results["peers"][name][kind] = peer | {"ours_per_peer": peer["step_ms"] / results[kind]["step_ms"]}
    results |= _peer_results({name: peer for name, peer in results["peers"].items() if name not in left_out})
    stats = jax.local_devices()[0].memory_stats() or {}
    results["train"]["device_peak_bytes"] = stats.get("peak_bytes_in_use")
    return results | {"peers_left_out": left_out}


def _peer_results(measured: dict[str, Any]) -> dict[str, Any]:
    """Return the results `peers` and `ratios` of what was measured; a peer as its users start it stands in its own."""
    as_started = {name: peer for name, peer in measured.items() if name.endswith(_AS_STARTED)}
    peers = {name: dict(peer) for name, peer in measured.items() if name not in as_started}
    for name, peer in peers.items():
        plain = as_started.get(f"{name}{_AS_STARTED}")
        peer["as_started"] = plain and {kind: plain[kind] for kind in ("train", "inference")}
    ratios = {
        name: {kind: peer[kind]["ours_per_peer"] for kind in ("train", "inference")} for name, peer in peers.items()
    }
    return {"peers": peers, "ratios": ratios}


@contextlib.contextmanager
def _started(names: list[str], run: Run, left_out: dict[str, str]) -> Iterator[dict[str, PeerProcess]]:
    """Start the peers. If a peer cannot run, its reason goes to `left_out`."""
    tuned = allocator_environment() if jax.default_backend() == "cpu" else {}
    environments = dict.fromkeys(names, tuned)
    environments |= {f"{name}{_AS_STARTED}": {} for name in names} if tuned else {}
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, environment in environments.items():
            _log.info("starting the peer %s", name)
            try:
                peer = PeerProcess(name.removesuffix(_AS_STARTED), _task(run), environment)
                processes[name] = stack.enter_context(peer)
            except CannotError as error:
                left_out[name] = str(error)
                _log.info("%s is left out: %s", name, error)
        yield processes


def _until_it_ends(name: str, process: PeerProcess, kind: str, left_out: dict[str, str]) -> Program:
    """Return the program of a peer. If its process ends, the peer is left out and a step takes infinite time."""

    def program(steps: int) -> float:
        if name in left_out:
            return float("inf")
        try:
            return process.run(kind, steps)
        except CannotError as error:
            left_out[name] = str(error)
            _log.info("%s is left out: %s", name, error)
            return float("inf")

    return program


def _task(run: Run) -> Task:
    """Return the task for the peers.

    Raises:
      CannotError: no peer can run it.
    """
    config = run.config
    if not isinstance(run.model, ConvNeXt):
        raise CannotError(f"only this library has {config.model.variant}; choose a ConvNeXt")
    if not all(jax.tree.leaves(run.stages[0].mask)):
        raise CannotError(f"the stage {config.stages[0].name} freezes parameters; measure one that trains all of them")
    if config.train.loss != "cross_entropy":
        raise CannotError(f"peers have no train.loss={config.train.loss}; set train.loss=cross_entropy")
    if (decay := config.stages[0].optimizer.layer_decay) is not None:
        raise CannotError(f"peers have no layer_decay={decay:g}; set config.stages[-1].optimizer.layer_decay=none")
    if config.train.jsd is not None:
        raise CannotError(f"peers have no consistency loss, as train.jsd={config.train.jsd:g} asks; set train.jsd=none")
    return Task(
        name=config.model.variant,
        variant=run.model.variant,
        num_classes=run.model.num_classes,
        image_size=config.data.image_size,
        batch_size=config.train.batch_size,
        stem_stride=config.model.stem_stride,
        drop_path=config.model.drop_path,
        label_smoothing=config.train.label_smoothing,
        dtype=config.model.dtype,
        optimizer=config.stages[0].optimizer,
        parameters=count_parameters(run.param_shapes),
        threads=usable_cores(),
        seed=config.seed,
    )


def _rate(seconds: float, batch_size: int) -> dict[str, float]:
    return {"images_per_second": batch_size / seconds, "step_ms": 1e3 * seconds}


def _cost(seconds: float, run: Run, compiled: Compiled, flops_per_image: int | None, matrix_rate: float) -> dict:
    """Return the entry of a program in the results."""
    size, devices = run.config.train.batch_size, run.parallel.mesh.size
    flops = None if flops_per_image is None else flops_per_image * size
    return _rate(seconds, size) | {
        "mfu": None if flops is None else flops / seconds / matrix_rate,
        "peak_bytes": compiled.peak_bytes,
        "compile_s": compiled.seconds,
        "model_flops": flops,
        "compiled_flops": None if compiled.flops is None else compiled.flops * devices,
    }


def _measure_augmentation(run: Run, train_seconds: float, windows: int) -> dict:
    augmentation = BatchAugmentation(run)
    jax.block_until_ready(augmentation())
    seconds = time_program(repeated(augmentation), windows=windows, window_seconds=_WINDOW_SECONDS).seconds
    return _rate(seconds, run.config.train.batch_size) | {
        "share": seconds / train_seconds,
        "mfu": None,
        "peak_bytes": augmentation.compiled.peak_bytes,
        "compile_s": augmentation.compiled.seconds,
    }


def _measure_input(run: Run, train_seconds: float, windows: int) -> dict:
    """Return the cost of the host's work for a batch: it computes the indices and brings them to the devices."""
    batches = endless_batches(run)
    seconds = time_program(repeated(lambda: next(batches)), windows=windows, window_seconds=0.05).seconds
    return _rate(seconds, run.config.train.batch_size) | {"share": seconds / train_seconds, "feed": "resident"}


def _measure_roofline(run: Run, rates: Rates, train_seconds: float, windows: int) -> dict:
    return {
        name: {"ms": 1e3 * part.seconds, "limit_ms": 1e3 * part.limit, "share": part.seconds / train_seconds}
        for name, part in split_step(run, rates, windows=windows).items()
    }
