"""The peer `keras_jax`: the ConvNeXt of keras.applications on Keras's JAX backend, trained with stateless calls.

Keras's guide shows this loop for JAX: one jitted function that donates the state. It is the fastest loop that Keras
has.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras  # pyright: ignore[reportMissingImports]  # an extra of the installation
import optax

from bloodcell_jax.benchmark.peers.task import CannotError, PeerPrograms, Task
from bloodcell_jax.config import OptimizerConfig

_MODELS = {
    "convnext_tiny": "ConvNeXtTiny",
    "convnext_small": "ConvNeXtSmall",
    "convnext_base": "ConvNeXtBase",
    "convnext_large": "ConvNeXtLarge",
    "convnext_xlarge": "ConvNeXtXLarge",
}


def build(task: Task) -> PeerPrograms:
    """Return the programs of this peer.

    Raises:
      CannotError: Keras does not have the network or the optimizer of the task.
    """
    if task.name not in _MODELS or task.stem_stride != 4:
        raise CannotError(
            f"keras.applications lacks {task.name} with a stem of stride {task.stem_stride}; choose one of "
            f"{', '.join(_MODELS)} with stride 4"
        )
    keras.utils.set_random_seed(task.seed)
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if task.dtype == "bfloat16" else "float32")
    model = getattr(keras.applications, _MODELS[task.name])(
        include_preprocessing=False,
        weights=None,
        input_shape=(task.image_size, task.image_size, 3),
        classes=task.num_classes,
        classifier_activation=None,
    )
    optimizer = _create_optimizer(task.optimizer)
    optimizer.build(model.trainable_variables)
    images = jax.random.normal(jax.random.key(task.seed), (task.batch_size, task.image_size, task.image_size, 3))
    labels = jax.nn.one_hot(jnp.arange(task.batch_size) % task.num_classes, task.num_classes)
    targets = optax.smooth_labels(labels, task.label_smoothing)

    def loss(trainable, others):
        logits, others = model.stateless_call(trainable, others, images, training=True)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean(), others

    def train_step(trainable, others, moments):
        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(trainable, others)
        trainable, moments = optimizer.stateless_apply(moments, gradients, trainable)
        return trainable, others, moments, value

    jitted = jax.jit(train_step, donate_argnums=(0, 1, 2))
    forward = jax.jit(lambda trainable, others: model.stateless_call(trainable, others, images, training=False)[0])
    state = [[variable.value for variable in group] for group in _groups(model, optimizer)]
    # A step donates its state. The copies leave the arrays of Keras's variables valid.
    state = jax.tree.map(jnp.copy, state)

    def train(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            *state, value = jitted(*state)
        jax.block_until_ready(value)

    def inference(steps: int) -> None:
        for _ in range(steps):
            logits = forward(*state[:2])
        jax.block_until_ready(logits)

    notes = ["keras.applications has no drop path"] if task.drop_path else []
    versions = {"keras": keras.__version__, "jax": jax.__version__}
    return PeerPrograms(model.count_params(), versions, train, inference, notes)


def _groups(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> tuple[list, list, list]:
    return model.trainable_variables, model.non_trainable_variables, optimizer.variables


def _adamw(config: OptimizerConfig, common: dict[str, Any]) -> keras.optimizers.Optimizer:
    b1, b2 = config.betas
    # AdamW refuses None, which means no decay for the other optimizers.
    common = common | {"weight_decay": config.weight_decay}
    return keras.optimizers.AdamW(config.learning_rate, beta_1=b1, beta_2=b2, **common)


def _lion(config: OptimizerConfig, common: dict[str, Any]) -> keras.optimizers.Optimizer:
    b1, b2 = config.betas
    return keras.optimizers.Lion(config.learning_rate, beta_1=b1, beta_2=b2, **common)


def _sgd(config: OptimizerConfig, common: dict[str, Any]) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(config.learning_rate, momentum=config.momentum, **common)


# The names of `OptimizerConfig.name` that Keras has. `adam` has no weight decay, and AdamW without decay is Adam.
OPTIMIZERS: dict[str, Callable[[OptimizerConfig, dict[str, Any]], keras.optimizers.Optimizer]] = {
    "adamw": _adamw,
    "adam": _adamw,
    "lion": _lion,
    "sgd": _sgd,
}


def _create_optimizer(config: OptimizerConfig) -> keras.optimizers.Optimizer:
    """Return the optimizer of the task.

    Raises:
      CannotError: this peer does not have the optimizer.
    """
    if config.name not in OPTIMIZERS:
        raise CannotError(f"it has no optimizer {config.name}; choose one of {', '.join(OPTIMIZERS)}")
    common: dict[str, Any] = {"weight_decay": config.weight_decay or None, "global_clipnorm": config.clip_norm}
    return OPTIMIZERS[config.name](config, common)
