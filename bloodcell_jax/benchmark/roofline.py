"""The kinds of work in a step, each timed as a program of its own on the shapes of the network.

The parts need not add up to the whole step. Inside the step, the compiler fuses neighbors. Alone, a part reads its
operands from another level of the memory. Each part has a limit, the longer of two times: its products at the measured
matrix rate, and its arguments and results, moved once, at the measured copy rate (Williams et al. 2009, "Roofline").
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bloodcell_jax.benchmark.programs import BatchAugmentation
from bloodcell_jax.benchmark.timing import repeated, time_program
from bloodcell_jax.models.activations import ACTIVATIONS
from bloodcell_jax.models.layers import BLOCK, DEPTHWISE, MATRIX, NORM, Layer, layers_of
from bloodcell_jax.run.run import Run
from bloodcell_jax.train.state import apply_gradients

ELEMENTWISE, AUGMENTATION, OPTIMIZER = "activation and residual", "augmentation", "optimizer"

# Single layers take milliseconds. Longer windows would only delay the table.
_WINDOW_SECONDS = 0.05


@dataclass(frozen=True)
class Rates:
    """Measured rates of one device.

    Attributes:
      matrix: FLOP/s of a dense product.
      copy: bytes/s of a copy.
    """

    matrix: float
    copy: float

    def limit(self, flops: float, moved_bytes: float) -> float:
        """Return the least seconds that this work can take."""
        return max(flops / self.matrix, moved_bytes / self.copy)


@dataclass(frozen=True)
class Part:
    """The cost of one kind of work in a step, on one device.

    Attributes:
      seconds: measured time.
      limit: least possible seconds at the measured rates.
    """

    seconds: float
    limit: float

    def __add__(self, other: "Part") -> "Part":
        return Part(self.seconds + other.seconds, self.limit + other.limit)


def split_step(run: Run, rates: Rates, *, windows: int) -> dict[str, Part]:
    """Return the parts of a training step on one device, by kind of work, gradients included."""
    nothing = Part(0.0, 0.0)
    parts: dict[str, Part] = dict.fromkeys((MATRIX, DEPTHWISE, NORM, ELEMENTWISE), nothing)
    for layer in layers_of(run.model, run.config.data.image_size, _local_batch(run)):
        if layer.kind == BLOCK:
            parts[ELEMENTWISE] += _timed(_activation_and_residual, _elementwise_operands(layer), rates, layer, windows)
        else:
            parts[layer.kind] += _timed(layer.forward, (layer.params, layer.images), rates, layer, windows)
    if parts[ELEMENTWISE] == nothing:  # A network without blocks has activations all the same: they are not measured.
        del parts[ELEMENTWISE]
    return parts | {AUGMENTATION: _augmentation(run, rates, windows), OPTIMIZER: _optimizer(run, rates, windows)}


def time_blocks(run: Run, *, windows: int) -> list[dict[str, Any]]:
    """Return shape, count, and milliseconds forward and with gradients of each kind of block, on one device."""
    layers = layers_of(run.model, run.config.data.image_size, _local_batch(run))
    rows: list[dict[str, Any]] = []
    for layer in layers:
        if layer.kind != BLOCK:
            continue
        operands = _random((layer.params, layer.images))
        seconds = {
            name: _seconds(program, operands, windows)
            for name, program in (("forward_ms", layer.forward), ("train_ms", _with_gradients(layer.forward)))
        }
        shape = list(layer.images.shape)
        rows.append({"shape": shape, "count": layer.count} | {name: 1e3 * s for name, s in seconds.items()})
    return rows


def _local_batch(run: Run) -> int:
    return run.config.train.batch_size // run.parallel.mesh.size


def _timed(forward: Callable, shapes: tuple, rates: Rates, layer: Layer, windows: int) -> Part:
    """Return the cost of `layer.count` forward and backward passes."""
    operands, program = _random(shapes), _with_gradients(forward)
    moved = _bytes(shapes) + _bytes(jax.eval_shape(program, *shapes))
    seconds = _seconds(program, operands, windows)
    return Part(layer.count * seconds, layer.count * rates.limit(3 * layer.flops, moved))


def _with_gradients(forward: Callable) -> Callable:
    """Return the program of a forward and a backward pass. The output serves as its own cotangent."""

    def run(*operands):
        output, pull = jax.vjp(forward, *operands)
        return output, pull(output)

    return run


def _elementwise_operands(block: Layer) -> tuple:
    hidden = (*block.images.shape[:-1], 4 * block.images.shape[-1])
    scale = jax.ShapeDtypeStruct(block.images.shape[-1:], jnp.float32)
    activation = jax.tree_util.Partial(ACTIVATIONS[block.module.variant.activation])
    return activation, jax.ShapeDtypeStruct(hidden, block.images.dtype), block.images, block.images, scale


def _activation_and_residual(activation: Callable, hidden, branch, images, scale):
    """Compute what a block does between its layers: the activation, the layer scale and the residual sum."""
    return activation(hidden), (images + branch.astype(jnp.float32) * scale).astype(images.dtype)


def _augmentation(run: Run, rates: Rates, windows: int) -> Part:
    augmentation = BatchAugmentation(run)
    seconds = time_program(repeated(augmentation), windows=windows, window_seconds=_WINDOW_SECONDS).seconds
    return Part(seconds, rates.limit(0, 2 * _bytes(jax.eval_shape(augmentation)[0])))


def _optimizer(run: Run, rates: Rates, windows: int) -> Part:
    stage, device = run.stages[0], jax.devices()[0]
    update = jax.jit(
        lambda state, gradients: apply_gradients(
            state, jnp.zeros(()), gradients, stage.optimizer, run.guard, run.ema_decay
        ),
        donate_argnums=0,
    )
    state = jax.device_put(jax.device_get(run.initial_state()), device)
    gradients = jax.device_put(_random(state.packed.trainable), device)
    # The update reads the state and the gradients, and writes the state.
    moved = 2 * _bytes(state) + _bytes(gradients)

    def call():
        nonlocal state
        state, norms = update(state, gradients)
        return norms

    jax.block_until_ready(call())
    seconds = time_program(repeated(call), windows=windows, window_seconds=_WINDOW_SECONDS).seconds
    return Part(seconds, rates.limit(0, moved))


def _seconds(function: Callable, operands: tuple, windows: int) -> float:
    program = jax.jit(function)
    jax.block_until_ready(program(*operands))
    timing = time_program(repeated(lambda: program(*operands)), windows=windows, window_seconds=_WINDOW_SECONDS)
    return timing.seconds


def _random(shapes: Any) -> Any:
    """Return random arrays for a tree of shapes. The host draws them, because the device would compile each shape."""
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(generator.standard_normal(x.shape, np.float32), x.dtype), shapes)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
