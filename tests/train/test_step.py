"""One step is the same computation on any number of devices and under either backend."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from bloodcell_jax.augment import apply_mix, parse_mix, parse_policy
from bloodcell_jax.augment.policies import Augmentation
from bloodcell_jax.config import OptimizerConfig
from bloodcell_jax.data.resident_images import ResidentImages
from bloodcell_jax.devices.parallel import AXIS, DataParallel
from bloodcell_jax.models.convnext import ConvNeXt
from bloodcell_jax.models.registry import init_params
from bloodcell_jax.models.variants import Variant
from bloodcell_jax.train.freezing import decay_mask, trainable_mask
from bloodcell_jax.train.guard import Guard
from bloodcell_jax.train.losses import weighted_cross_entropy
from bloodcell_jax.train.optimizers import create_optimizer
from bloodcell_jax.train.packing import Joining
from bloodcell_jax.train.randomness import MIX, step_key
from bloodcell_jax.train.schedules import create_schedule
from bloodcell_jax.train.state import begin_stage, create_ema_decay, create_state
from bloodcell_jax.train.step import images_input, make_gradients, make_train_step
from bloodcell_jax.weights.info import IMAGENET_MEAN, IMAGENET_STD

BATCH, SIZE, CLASSES, SEED = 16, 32, 3, 7
# Each is compared with one device under jit.
SETUPS = [("pmap", 8), ("jit", 8)]

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (64, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = rng.integers(0, CLASSES, 64).astype(np.int32)


def parallel_of(backend, devices):
    return DataParallel(backend, Mesh(np.array(jax.devices()[:devices]), (AXIS,)))


def batch_of(parallel, step):
    indices = np.random.default_rng(step).permutation(len(IMAGES))[:BATCH].astype(np.int32)
    return parallel.shard_batch({"indices": indices, "slots": np.arange(BATCH, dtype=np.int32)})


# Two blocks and small kernels: what is compiled grows with the number of parameters and the side of a kernel.
MODEL = ConvNeXt(Variant((1, 0, 0, 1), (8, 8, 16, 16), 1.0, kernel_sizes=(3, 3, 3, 3)), CLASSES, drop_path=0.5)
STILL = MODEL.clone(drop_path=0.0)
# A warm-up as any recipe has it: Adam divides by the gradient's size, so rounding counts by the rate.
ADAMW = OptimizerConfig(name="adamw", learning_rate=1e-3, warmup_steps=10, weight_decay=0.05, clip_norm=1.0)
LION = OptimizerConfig(name="lion", learning_rate=1e-4, schedule="constant")
RECIPES = {
    "adamw": (MODEL, ADAMW, "d4", (".*",)),
    # What is frozen has no gradient to compile.
    "lion": (MODEL, LION, "d4", ("(head|head_norm)/.*", "!.*")),
    "head": (MODEL, ADAMW, "d4", ("head/.*", "!.*")),
    "frozen by optax": (MODEL, ADAMW, "d4", (".*",)),
    "mixed": (STILL, ADAMW, "none", ("head/.*", "!.*")),
}


@functools.cache
def initial_params():
    drawn = jax.jit(lambda: init_params(MODEL, jax.random.key(0), SIZE))()
    # Ten times the published std: every layer matters to the loss, and no logit is near a tie.
    return jax.device_get(jax.tree.map(lambda p: p * 10 if p.ndim > 1 else p, drawn))


def frozen_by_optax(config, schedule):
    """The head's optimizer on the whole tree: by optax's own parts, which get all gradients and freeze by labels."""
    learns = {path: path.startswith("head/") for path in flatten_dict(initial_params(), sep="/")}
    rule = optax.adamw(schedule, weight_decay=config.weight_decay, mask=decay_mask)
    # A norm over all gradients would clip the head's by what is frozen.
    clip = optax.masked(optax.clip_by_global_norm(config.clip_norm), learns)
    labels = {path: "learns" if learns[path] else "frozen" for path in learns}
    return optax.chain(clip, optax.partition({"learns": rule, "frozen": optax.set_to_zero()}, labels))


OPTIMIZERS = {"frozen by optax": frozen_by_optax}


class Trainer:
    """A step compiled for some devices, and the state it goes on from."""

    def __init__(self, recipe, backend, devices, platform="cpu", accumulate=1):
        self._platform = platform
        model, optimizer, policy, trainable = RECIPES[recipe]
        self.parallel = parallel_of(backend, devices)
        schedule = create_schedule(optimizer, steps=5, steps_per_epoch=5)
        self._optimizer = OPTIMIZERS.get(recipe, create_optimizer)(optimizer, schedule)
        self._mask = trainable_mask(initial_params(), trainable)
        mix = parse_mix("mixup:alpha=2" if recipe == "mixed" else "none")
        augmentation = Augmentation(parse_policy(policy), mix, block=2)
        gradients_of = make_gradients(
            images_input(
                model, augmentation, image_size=SIZE, mean=IMAGENET_MEAN, std=IMAGENET_STD, label_smoothing=0.1
            ),
            batch_size=BATCH,
            accumulate=accumulate,
            jsd=None,
            loss=weighted_cross_entropy,
            axis_name=AXIS,
        )
        step = make_train_step(
            gradients_of,
            self._optimizer,
            schedule,
            batch_size=BATCH,
            guard=Guard(max_bad_steps=10),
            ema_decay=create_ema_decay(0.9, warmup=False),
        )
        self._data = self.parallel.place_state({"images": ResidentImages.of(IMAGES), "labels": LABELS})
        self._seed = self.parallel.place_state(np.uint32(SEED))
        batch = batch_of(self.parallel, 0)
        self.compiled = self.parallel.compile_step(step, self.start(), self._data, batch, self._seed)

    def start(self, params=None):
        state = create_state(initial_params() if params is None else params, Guard(10), with_ema=True)
        return self.parallel.place_state(begin_stage(state, self._optimizer, self._mask, Joining(self._platform)))

    def run(self, steps, state=None):
        """Return the state and the last metrics after some steps."""
        state = self.start() if state is None else state
        for step in range(steps):
            batch = batch_of(self.parallel, step)
            with jax.transfer_guard("disallow"):
                state, metrics = self.compiled(state, self._data, batch, self._seed)
            jax.block_until_ready(state)
        return jax.device_get((state, metrics))


@functools.cache
def trainer(recipe, backend, devices, platform="cpu", accumulate=1):
    return Trainer(recipe, backend, devices, platform, accumulate)


def test_five_steps_of_adamw_agree_on_every_parameter():
    expected, expected_metrics = trainer("adamw", "jit", 1).run(5)
    before = jax.tree.leaves(initial_params())
    moved = [abs(a - b).max() for a, b in zip(jax.tree.leaves(expected.params), before, strict=True)]
    assert min(moved) > 1e-5, "every parameter learns"
    for backend, devices in SETUPS:
        state, metrics = trainer("adamw", backend, devices).run(5)
        assert state.step == 5
        for ours, theirs in ((state.params, expected.params), (state.ema, expected.ema)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), ours, theirs)
        for name, value in expected_metrics.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_a_step_is_one_all_reduce_and_no_other_collective(backend):
    program = trainer("adamw", backend, 8).compiled.as_text()
    collectives = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
    assert re.findall(rf" ({collectives})(?:-start)?\(", program) == ["all-reduce"]


def test_five_steps_of_lion_agree_but_for_single_signs():
    def all_params(state):
        return np.concatenate([np.ravel(p) for p in jax.tree.leaves(state.params)])

    steps = 5
    expected = all_params(trainer("lion", "jit", 1).run(steps)[0])
    # Eight devices under either backend are compared with AdamW, step by step.
    difference = abs(all_params(trainer("lion", "pmap", 8).run(steps)[0]) - expected)
    # A gradient of 0 to rounding may take either sign; the parameter then moves by two rates.
    assert (difference <= 1e-6).mean() >= 0.99999
    assert difference.max() <= 2 * LION.learning_rate * steps + 1e-6


def test_frozen_parameters_have_no_gradient_no_moments_and_do_not_move():
    everything, head_only = trainer("adamw", "pmap", 8), trainer("head", "pmap", 8)
    before = head_only.start()
    adam = before.opt_state[1]
    assert set(adam.mu) == set(adam.nu) == {"head/kernel", "head/bias"}
    after = flatten_dict(head_only.run(2)[0].params, sep="/")
    for path, value in flatten_dict(initial_params(), sep="/").items():
        assert np.array_equal(after[path], value) != path.startswith("head/"), path
    # No backward pass: the compiler counts about a third of the work, and none of the memory for its activations.
    flops = [trained.compiled.cost_analysis()["flops"] for trained in (everything, head_only)]
    assert flops[1] < 0.45 * flops[0]
    memory = [trained.compiled.memory_analysis() for trained in (everything, head_only)]
    assert memory[1].temp_size_in_bytes < 0.5 * memory[0].temp_size_in_bytes
    assert memory[1].argument_size_in_bytes < memory[0].argument_size_in_bytes


def test_frozen_training_is_that_of_optax_on_the_whole_tree():
    """A backward pass through everything, whose updates optax sets to zero where it is frozen."""
    (expected, _), (state, _) = trainer("frozen by optax", "jit", 1).run(3), trainer("head", "pmap", 8).run(3)
    assert np.abs(state.params["head"]["kernel"] - initial_params()["head"]["kernel"]).max() > 1e-4
    for part in ("params", "ema"):
        ours, theirs = (flatten_dict(getattr(each, part), sep="/") for each in (state, expected))
        for path, value in theirs.items():
            np.testing.assert_allclose(ours[path], value, rtol=0, atol=1e-6 if path.startswith("head/") else 0)
            if not path.startswith("head/"):
                np.testing.assert_array_equal(ours[path], flatten_dict(initial_params(), sep="/")[path])


@pytest.mark.parametrize("backend", ["pmap", "jit"])
def test_the_state_is_donated(backend):
    trained = trainer("adamw", backend, 8)
    before = trained.start()
    trained.run(1, before)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.params, before.opt_state, before.ema)))


def test_a_step_with_a_non_finite_gradient_is_skipped_and_counted():
    head = {**initial_params()["head"], "bias": np.full(CLASSES, np.nan, np.float32)}
    trained = trainer("adamw", "pmap", 8)
    start = trained.start({**initial_params(), "head": head})
    before = jax.device_get(start)
    after, metrics = trained.run(2, start)
    assert (after.step, metrics["bad_steps"], metrics["skipped_steps"]) == (2, 2, 2)
    for part in ("params", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, part), getattr(before, part))


def test_the_loss_is_the_cross_entropy_of_smoothed_and_mixed_targets_over_the_whole_batch():
    _, metrics = trainer("mixed", "pmap", 8).run(1)
    indices = np.random.default_rng(0).permutation(len(IMAGES))[:BATCH]
    images = jnp.asarray(IMAGES[indices] / 255, jnp.float32)
    targets = 0.9 * np.eye(CLASSES)[LABELS[indices]] + 0.1 / CLASSES
    slots, key = jnp.arange(BATCH, dtype=jnp.int32), step_key(SEED, MIX, 0)
    images, targets = apply_mix(parse_mix("mixup:alpha=2"), key, slots, images, jnp.asarray(targets), block=2)
    images = (images - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    logits, _ = jax.jit(STILL.apply)({"params": initial_params()}, jnp.asarray(images, jnp.float32))
    logits = np.asarray(logits, np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(metrics["train/loss"], -(targets * log_probabilities).sum(1).mean(), rtol=1e-5)
    assert metrics["train/accuracy"] == (logits.argmax(1) == np.asarray(targets).argmax(1)).mean()


def test_steps_agree_however_their_parameters_are_packed():
    """The packing of a GPU, run on a CPU."""
    expected, expected_metrics = trainer("adamw", "jit", 1).run(3)
    state, metrics = trainer("adamw", "jit", 1, "gpu").run(3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), state.params, expected.params)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("recipe", "backend", "devices"), [("adamw", "jit", 1), ("mixed", "pmap", 2)])
def test_accumulated_gradients_are_those_of_the_whole_batch(recipe, backend, devices):
    whole, parted = trainer(recipe, backend, devices), trainer(recipe, backend, devices, "cpu", 4)
    expected, expected_metrics = whole.run(1)
    state, metrics = parted.run(1)
    for name in ("train/loss", "train/accuracy", "norm/gradient"):
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-5, err_msg=name)
    # The first moment after one step is a tenth of the gradient.
    ours, theirs = (jax.tree.leaves(state.opt_state[-3].mu) for state in (state, expected))
    difference = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(ours, theirs, strict=True)))
    assert difference <= 1e-5 * np.sqrt(sum((b**2).sum() for b in theirs))


def test_accumulation_needs_less_memory():
    memory = [trainer("adamw", "jit", 1, "cpu", parts).compiled.memory_analysis() for parts in (1, 4)]
    assert memory[1].temp_size_in_bytes < 0.6 * memory[0].temp_size_in_bytes
