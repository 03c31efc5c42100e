"""Is it faster to train several seeds of a small model as a batch axis of one program than one after the other?

    python benchmarks/batched_seeds.py --output=benchmarks/results/batched_seeds.json

For each model: the training step of one seed, called once for each seed, against `jax.vmap` of that step over the
seeds. Both steps are forward, backward and AdamW in float32 on images that lie on the device. The two are measured in
turn, and the median over the rounds is reported.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bloodcell_jax.models import create_model

# Image size and batch size of each model.
CASES = {"test_convnext": (32, 32), "convnext_atto": (48, 32)}
CLASSES = 8


def make_step(variant):
    """Return (the initial state of a seed, the step of a state on a batch) of a model."""
    model = create_model(variant, num_classes=CLASSES, dtype="float32")
    optimizer = optax.adamw(1e-3)

    def begin(seed, size):
        params = model.init(jax.random.key(seed), jnp.zeros((1, size, size, 3)), train=False)["params"]
        return params, optimizer.init(params)

    def loss_of(params, images, labels):
        logits, _ = model.apply({"params": params}, images, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(state, images, labels):
        params, moments = state
        gradients = jax.grad(loss_of)(params, images, labels)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments

    return begin, step


def seconds_of(run):
    """Return how long a call takes."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def measure(variant, size, batch, seeds, rounds):
    """Return the time of one step of all seeds, one after the other and as one program, and the ratio of the two."""
    begin, step = make_step(variant)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((seeds, batch, size, size, 3), np.float32))
    labels = jnp.asarray(rng.integers(0, CLASSES, (seeds, batch)))
    states = [begin(seed, size) for seed in range(seeds)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    one = jax.jit(step).lower(states[0], images[0], labels[0]).compile()
    batched = jax.jit(jax.vmap(step)).lower(stacked, images, labels).compile()
    rows = [(images[i], labels[i]) for i in range(seeds)]

    def in_turn():
        # The host waits for each seed, as the loop of a run does on a CPU.
        return [jax.block_until_ready(one(state, *row)) for state, row in zip(states, rows, strict=True)]

    for run in (in_turn, lambda: batched(stacked, images, labels)):
        seconds_of(run)
    pairs = [(seconds_of(in_turn), seconds_of(lambda: batched(stacked, images, labels))) for _ in range(rounds)]
    apart, together = (statistics.median(times) for times in zip(*pairs, strict=True))
    facts = {"model": variant, "image_size": size, "batch_size": batch, "seeds": seeds, "rounds": rounds}
    return facts | {"apart_ms": 1e3 * apart, "together_ms": 1e3 * together, "ratio": apart / together}


def main():
    parser = argparse.ArgumentParser(description="Measure seeds as a batch axis of one program.")
    parser.add_argument("--model", action="append", choices=CASES, help="unset: all; may be repeated")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    device, results = jax.devices()[0], []
    environment = {"jax": jax.__version__, "device": f"{device.platform} {device.device_kind}"}
    environment |= {"cores": len(os.sched_getaffinity(0))}
    for variant in arguments.model or CASES:
        size, batch = CASES[variant]
        result = measure(variant, size, batch, arguments.seeds, arguments.rounds)
        results.append(result)
        print(
            f"{variant} at {size} px: one program is {result['ratio']:.2f} times as fast as one seed after the other",
            flush=True,
        )
        arguments.output.write_text(json.dumps({"environment": environment, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
