"""The forms of the 7x7 depthwise convolution on the shape of every stage: forward pass and kernel gradient.

    python benchmarks/depthwise.py --output=benchmarks/results/depthwise-cpu.json

Each form is a program of its own. All forms of a shape run in turn, window by window, and the median is the result.
`with norm` is the forward pass and a LayerNorm after it, as in the network. There, a compiler may tear the convolution
apart. The input gradient is not measured, because it is a forward pass with the filter turned by 180 degrees.
"""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from bloodcell_jax.benchmark.timing import Program, repeated, time_interleaved
from bloodcell_jax.models import depthwise
from bloodcell_jax.run.environment import describe_machine

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 32, "images in a batch", lower_bound=1)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "precision of images and filters")
flags.DEFINE_multi_string("shape", None, "SIDExCHANNELS, repeatable; unset: the stages of Tiny and Base at 96 pixels")
flags.DEFINE_integer("windows", 5, "timed repetitions", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write")

# A forward pass or a gradient.
Form = Callable[..., jax.Array]

SHAPES = [f"{side}x{width << i}" for width in (96, 128) for i, side in enumerate((24, 12, 6, 3))]
CONVOLUTIONS = {"grouped": depthwise.grouped_conv, "shifted": depthwise.shifted_sum, "dense": depthwise.dense_conv}
GRADIENTS = {
    "grouped": depthwise.grouped_gradient,
    "accumulated": depthwise.accumulated_gradient,
    "dense": depthwise.dense_gradient,
}
# The dense form has a matrix for each channel, with a row and a column for each pixel.
LARGEST_DENSE_SIDE = 12


def normed(convolution: Form) -> Form:
    """Return the convolution with a norm without parameters after it."""

    def run(images: jax.Array, kernel: jax.Array) -> jax.Array:
        outputs = convolution(images, kernel).astype(jnp.float32)
        return jax.nn.standardize(outputs, axis=-1, epsilon=1e-6).astype(images.dtype)

    return run


def measure_shape(side: int, channels: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each form, by computation and form."""
    rng, shape = np.random.default_rng(0), (FLAGS.batch_size, side, side, channels)
    images, cotangent, kernel = (
        jnp.asarray(rng.standard_normal(size), FLAGS.dtype) for size in (shape, shape, (7, 7, 1, channels))
    )
    forms = {name: form for name, form in CONVOLUTIONS.items() if name != "dense" or side <= LARGEST_DENSE_SIDE}
    gradients = {name: form for name, form in GRADIENTS.items() if name != "dense" or side <= LARGEST_DENSE_SIDE}
    programs: dict[tuple[str, str], tuple[Form, tuple[jax.Array, ...]]] = {}
    programs |= {("forward", name): (form, (images, kernel)) for name, form in forms.items()}
    programs |= {("with norm", name): (normed(form), (images, kernel)) for name, form in forms.items()}
    programs |= {("kernel gradient", name): (form, (images, cotangent, kernel)) for name, form in gradients.items()}
    timings = time_interleaved(
        {key: _compiled(*program) for key, program in programs.items()}, windows=FLAGS.windows, window_seconds=0.1
    )
    results: dict[str, dict[str, float]] = {}
    for (what, name), timing in timings.items():
        results.setdefault(what, {})[name] = 1e3 * timing.seconds
    return results


def _compiled(function: Form, arguments: tuple[jax.Array, ...]) -> Program:
    program = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))
    return repeated(lambda: program(*arguments))


def main(_) -> None:
    results = {}
    for shape in FLAGS.shape or SHAPES:
        results[shape] = measure_shape(*map(int, shape.split("x")))
        for what, forms in results[shape].items():
            print(f"{shape:10}{what:18}" + "".join(f"{name} {ms:8.2f}  " for name, ms in forms.items()), flush=True)
    if FLAGS.output:
        settings = {"batch_size": FLAGS.batch_size, "dtype": FLAGS.dtype, "windows": FLAGS.windows}
        results = {"environment": describe_machine() | settings, "ms": results}
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
