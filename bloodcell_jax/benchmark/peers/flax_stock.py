"""The peer `flax_stock`: the network in plain Flax, with Flax's own layers and a plain jitted step."""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from bloodcell_jax.benchmark.peers.task import CannotError, PeerPrograms, Task
from bloodcell_jax.train.optimizers import OPTIMIZERS, create_optimizer
from bloodcell_jax.train.schedules import create_schedule

_ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "silu": nn.silu,
}


class Block(nn.Module):
    """A block with `nn.Conv(feature_group_count=channels)` and `nn.LayerNorm`, on maps [n, h, w, c]."""

    task: Task
    kernel_size: int
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        variant, channels = self.task.variant, x.shape[-1]
        size = (self.kernel_size, self.kernel_size)
        y = nn.Conv(channels, size, feature_group_count=channels, dtype=self.dtype)(x)
        y = nn.LayerNorm(variant.norm_eps, dtype=self.dtype)(y)
        y = _ACTIVATIONS[variant.activation](nn.Dense(4 * channels, dtype=self.dtype)(y))
        if variant.grn:
            y = self._global_response_norm(y)
        y = nn.Dense(channels, dtype=self.dtype)(y)
        if variant.layer_scale is not None:
            y = y * self.param("layer_scale", nn.initializers.constant(variant.layer_scale), (channels,)).astype(
                y.dtype
            )
        return x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3))(y, deterministic=not train)

    def _global_response_norm(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],)).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(x.dtype)
        response = jnp.sqrt(jnp.square(x).sum((1, 2), keepdims=True) + 1e-12)
        return x + bias + scale * (x * (response / (response.mean(-1, keepdims=True) + 1e-6)))


class ConvNeXt(nn.Module):
    """The classifier: images [n, h, w, 3] to logits [n, num_classes]."""

    task: Task
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        task, variant = self.task, self.task.variant
        conv = functools.partial(nn.Conv, dtype=self.dtype)
        norm = functools.partial(nn.LayerNorm, variant.norm_eps, dtype=self.dtype)
        padding = 0 if task.stem_stride == 4 else 1
        x = norm()(conv(variant.dims[0], (4, 4), task.stem_stride, padding)(x))
        block, last = 0, sum(variant.depths) - 1
        for i, (depth, channels) in enumerate(zip(variant.depths, variant.dims, strict=True)):
            if i > 0:
                x = conv(channels, (2, 2), 2)(norm()(x))
            for _ in range(depth):
                x = Block(task, variant.kernel_sizes[i], task.drop_path * block / last, self.dtype)(x, train)
                block += 1
        x = norm()(x).mean((1, 2)) if variant.norm_before_pool else norm()(x.mean((1, 2)))
        return nn.Dense(task.num_classes, dtype=self.dtype)(x)


def build(task: Task) -> PeerPrograms:
    """Return the programs of this peer.

    Raises:
      CannotError: it does not have the stem or the optimizer of the task.
    """
    if task.variant.stem != "patch":
        raise CannotError(f"{task.name} has an overlapping stem, and this peer has a patch stem only")
    others = [name for name in OPTIMIZERS if name != "muon"]
    if task.optimizer.name not in others:
        # Ours tells the matrices between stem and head from the rest by the paths of our own network.
        raise CannotError(f"it has no optimizer {task.optimizer.name}; choose one of {', '.join(others)}")
    model = ConvNeXt(task, jnp.dtype(task.dtype))
    images = jax.random.normal(jax.random.key(task.seed), (task.batch_size, task.image_size, task.image_size, 3))
    labels = jax.nn.one_hot(jnp.arange(task.batch_size) % task.num_classes, task.num_classes)
    targets = optax.smooth_labels(labels, task.label_smoothing)
    schedule = create_schedule(task.optimizer, steps=10_000, steps_per_epoch=100)
    params = jax.jit(model.init, static_argnums=2)(jax.random.key(task.seed), images, False)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=create_optimizer(task.optimizer, schedule))

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, images, targets, key):
        def loss(params):
            rngs = {"dropout": jax.random.fold_in(key, state.step)}
            logits = state.apply_fn({"params": params}, images, True, rngs=rngs)
            return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean()

        value, gradients = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradients), value

    forward = jax.jit(lambda params, images: model.apply({"params": params}, images, False))
    key = jax.random.key(task.seed)

    def train(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, value = train_step(state, images, targets, key)
        jax.block_until_ready(value)

    def inference(steps: int) -> None:
        for _ in range(steps):
            logits = forward(state.params, images)
        jax.block_until_ready(logits)

    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return PeerPrograms(parameters, {"jax": jax.__version__}, train, inference)
