"""Time and memory of every augmentation, beside the same operation of dm-pix if it exists.

    python benchmarks/augmentation.py --output=benchmarks/results/augmentation-cpu.json

Each operation runs jitted on a batch with a key for each image. Our program and that of dm-pix run in turn after a
warm-up, and the median is the result. Temporary memory is that of the compiled program over the size of the batch.
`--model` adds a training step of a network and shows the time of each policy as a share of this step.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from bloodcell_jax import augment
from bloodcell_jax.augment.operations import IMAGE_OPERATIONS
from bloodcell_jax.data.synthetic import draw_cells
from bloodcell_jax.run.environment import describe_machine

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 256, "images in a batch", lower_bound=32)
flags.DEFINE_integer("image_size", 96, "side of the images in pixels")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "precision of the images")
flags.DEFINE_integer("windows", 7, "timed repetitions", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write")
flags.DEFINE_string(
    "model", None, "network for the comparison of each policy with a training step, such as convnext_base"
)
flags.DEFINE_integer("model_batch_size", 32, "images in the training step")

POLICIES = {
    "default": "d4|brightness:delta=0.2|contrast:delta=0.2|saturation:delta=0.2|hue:delta=0.02",
    "randaugment n=2": "randaugment:n=2,m=9",
    "randaugment timm": "randaugment:timm=rand-m9-mstd0.5-inc1",
    "randaugment kerascv": "randaugment:preset=kerascv",
    "trivialaugment": "trivialaugment",
    "augmix": "augmix",
}
MIXES = ("mixup", "cutmix", "fmix")


def dm_pix_peers(size: int) -> dict[str, Callable]:
    """Return `(key, image) -> image` of dm-pix for each of our operations that dm-pix has, by our name."""

    def rotated(key: jax.Array, image: jax.Array) -> Any:
        angle = jax.random.uniform(key, minval=-jnp.pi, maxval=jnp.pi)
        # dm-pix declares a float and takes a scalar of JAX as well.
        return pix.rotate(image, angle, mode="nearest")  # pyright: ignore[reportArgumentType]

    peers: dict[str, Callable] = {
        "affine": rotated,
        "brightness": lambda key, image: pix.random_brightness(key, image, 0.2),
        "contrast": lambda key, image: pix.random_contrast(key, image, 0.8, 1.2),
        "saturation": lambda key, image: pix.random_saturation(key, image, 0.8, 1.2),
        "hue": lambda key, image: pix.random_hue(key, image, 0.02),
        "gamma": lambda key, image: pix.random_gamma(key, image, 0.8, 1.25),
        "solarize": lambda key, image: pix.solarize(image, 0.5),
        "random_resized_crop": lambda key, image: jax.image.resize(
            pix.random_crop(key, image, (size * 9 // 10, size * 9 // 10, 3)), image.shape, "bilinear"
        ),
    }
    if FLAGS.dtype == "float32":  # In bfloat16, the convolution of dm-pix raises TypeError.
        peers["gaussian_blur"] = lambda key, image: pix.gaussian_blur(image, 1.5, 9)
    return peers


def measure(programs: dict[str, Callable], images: jax.Array) -> dict[str, dict]:
    """Return the cost of each program on the images. The programs run in turn, so a slow moment affects all of them."""
    compiled = {name: jax.jit(program).lower(images).compile() for name, program in programs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for program in compiled.values():
        jax.block_until_ready(program(images))
    for _ in range(FLAGS.windows):
        for name, program in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(images))
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "ms": 1e3 * statistics.median(seconds[name]),
            "images_per_second": len(images) / statistics.median(seconds[name]),
            "temporary_bytes": _temporary_bytes(program),
        }
        for name, program in compiled.items()
    }


def _temporary_bytes(program: jax.stages.Compiled) -> int:
    memory = program.memory_analysis()
    if memory is None:
        raise RuntimeError(f"the backend {jax.default_backend()} does not report the memory of a program")
    return memory.temp_size_in_bytes


def measure_operations(images: jax.Array) -> dict[str, dict]:
    """Return the cost of each operation, ours and that of dm-pix."""
    key, slots = jax.random.key(0), jnp.arange(len(images), dtype=jnp.int32)
    keys, peers = jax.random.split(key, len(images)), dm_pix_peers(images.shape[1])
    results = {}
    for name in IMAGE_OPERATIONS:
        policy = augment.parse_policy(name)
        programs: dict[str, Callable] = {
            "ours": lambda images, policy=policy: augment.apply_policy(policy, key, slots, images)
        }
        if name in peers:
            programs["dm_pix"] = lambda images, peer=peers[name]: jax.vmap(peer)(keys, images)
        results[name] = measure(programs, images)
    return results


def measure_policies(images: jax.Array) -> dict[str, dict]:
    """Return the cost of each policy and mix, also in units of the affine map."""
    key, slots = jax.random.key(0), jnp.arange(len(images), dtype=jnp.int32)
    targets = jnp.eye(8)[slots % 8]
    programs: dict[str, Callable] = {}
    for name, text in ({"affine": "affine"} | POLICIES).items():
        policy = augment.parse_policy(text)
        programs[name] = lambda images, policy=policy: augment.apply_policy(policy, key, slots, images)
    for name in MIXES:
        mix = augment.parse_mix(name)
        programs[name] = lambda images, mix=mix: augment.apply_mix(mix, key, slots, images, targets)
    results = measure(programs, images)
    for cost in results.values():
        cost["affines"] = cost["ms"] / results["affine"]["ms"]
    return results


def measure_model_step(images: jax.Array) -> dict:
    """Return the cost of a forward and a backward pass of the network `--model` on images of this size."""
    from bloodcell_jax.models import create_model

    model = create_model(FLAGS.model, num_classes=8, dtype=jnp.dtype(FLAGS.dtype))
    images = images[: FLAGS.model_batch_size]
    params = jax.jit(lambda: model.init(jax.random.key(0), images[:1])["params"])()
    gradient = jax.grad(lambda params, images: model.apply({"params": params}, images)[0].sum())
    cost = measure({"step": lambda images: gradient(params, images)}, images)["step"]
    return {"model": FLAGS.model, "batch_size": len(images)} | cost


def table(operations: dict, policies: dict, batch_bytes: int) -> str:
    """Return the results as a text table."""
    lines = [f"{'operation':22}{'ms':>9}{'images/s':>11}{'temp/batch':>12}{'dm-pix ms':>11}{'ratio':>8}"]
    for name, costs in operations.items():
        ours, theirs = costs["ours"], costs.get("dm_pix")
        line = f"{name:22}{_numbers(ours, batch_bytes)}"
        lines.append(line + (f"{theirs['ms']:11.1f}{theirs['ms'] / ours['ms']:7.1f}x" if theirs else ""))
    lines += ["", f"{'policy':22}{'ms':>9}{'images/s':>11}{'temp/batch':>12}{'affines':>11}"]
    lines += [f"{name:22}{_numbers(cost, batch_bytes)}{cost['affines']:11.1f}" for name, cost in policies.items()]
    return "\n".join(lines)


def _numbers(cost: dict, batch_bytes: int) -> str:
    return f"{cost['ms']:9.1f}{cost['images_per_second']:11,.0f}{cost['temporary_bytes'] / batch_bytes:11.1f}x"


def main(_) -> None:
    cells, _ = draw_cells(FLAGS.batch_size, size=FLAGS.image_size)
    images = jnp.asarray(cells / np.float32(255), FLAGS.dtype)
    operations, policies = measure_operations(images), measure_policies(images)
    print(table(operations, policies, images.nbytes))
    settings = {name: FLAGS[name].value for name in ("batch_size", "image_size", "dtype", "windows")}
    results = {"environment": describe_machine() | settings, "operations": operations, "policies": policies}
    if FLAGS.model:
        step = results["step"] = measure_model_step(images)
        print(f"\n{step['model']}, batch {step['batch_size']}: {step['ms']:.0f} ms per step without augmentation")
        print(f"{'policy':22}{'of a step':>9}")
        for name, cost in policies.items():
            part = cost["ms"] / len(images) / (step["ms"] / step["batch_size"])
            print(f"{name:22}{part:9.2%}")
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
