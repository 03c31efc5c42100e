"""Losses of single examples."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bloodcell_jax.augment.policies import VIEWS
from bloodcell_jax.config import TrainConfig

# (logits float32 [n, classes], targets [n, classes], class weights [classes] or None) -> the loss of each example, [n].
Loss = Callable[[jax.Array, jax.Array, np.ndarray | None], jax.Array]


def classification_losses(
    logits: jax.Array,
    targets: jax.Array,
    jsd: float | None,
    loss: Loss,
    *,
    class_weights: np.ndarray | None = None,
    logit_offset: jax.Array | float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Return each example's loss [n] and the logits [n, classes] that its prediction is taken from.

    Args:
      logits: float32 [n, classes], or [3 * n, classes] if `jsd` is set: the views of an example are neighbors.
      targets: [n, classes], probabilities.
      jsd: weight of the consistency of the three views; the loss is the first's, the clean one's, alone.
      loss: as `create_loss` returns it.
      class_weights: weights in the loss, [classes]; None weighs all alike.
      logit_offset: [n, classes], added to the logits in the loss alone.
    """
    if jsd is None:
        return loss(logits + logit_offset, targets, class_weights), logits
    views = logits.reshape(-1, VIEWS, logits.shape[-1])
    clean = views[:, 0]
    losses = loss(clean + logit_offset, targets, class_weights)
    return losses + jsd * jensen_shannon(views), clean


def weighted_cross_entropy(logits: jax.Array, targets: jax.Array, weights: np.ndarray | None) -> jax.Array:
    """Return the cross-entropy of each example, [n], in which the part of each class counts by its weight.

    Args:
      logits: [n, classes].
      targets: probabilities, [n, classes]: one-hot, smoothed or mixed.
      weights: [classes], or None for 1 each.
    """
    return optax.softmax_cross_entropy(logits, targets if weights is None else targets * jnp.asarray(weights))


def focal_loss(logits: jax.Array, targets: jax.Array, weights: np.ndarray | None, *, gamma: float) -> jax.Array:
    """Return the focal loss of each example, [n]: the cross-entropy, each class by (1 - its probability) ** gamma.

    T.-Y. Lin et al., ICCV 2017 (arXiv:1708.02002, equation 4), for several classes and soft targets. The arguments are
    those of `weighted_cross_entropy`.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    # 1 - p by expm1 keeps its digits where p is near 1, and its derivative where p is 1.
    doubt = jnp.maximum(-jnp.expm1(log_probabilities), jnp.finfo(logits.dtype).tiny) ** gamma
    weighted = targets if weights is None else targets * jnp.asarray(weights)
    return -(weighted * doubt * log_probabilities).sum(-1)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array, weights: np.ndarray | None) -> jax.Array:
    """Return the mean over the classes of the binary cross-entropy of each example, [n].

    R. Wightman et al. 2021 (arXiv:2110.00476, section 2.1): every class is a question of its own, so a mixed image may
    be both. The arguments are those of `weighted_cross_entropy`; a weight counts for its class's yes and no.
    """
    losses = optax.sigmoid_binary_cross_entropy(logits, targets)
    return (losses if weights is None else losses * jnp.asarray(weights)).mean(-1)


def create_loss(config: TrainConfig) -> Loss:
    """Return the loss that a configuration names."""
    losses: dict[str, Loss] = {
        "cross_entropy": weighted_cross_entropy,
        "focal": partial(focal_loss, gamma=config.focal_gamma),
        "binary": binary_cross_entropy,
    }
    return losses[config.loss]


def jensen_shannon(logits: jax.Array) -> jax.Array:
    """Return the Jensen-Shannon divergence [n] of the views' predictions, logits [n, views, classes].

    The mean Kullback-Leibler divergence of each prediction from their mean (AugMix, arXiv:1912.02781, section 3); the
    mean is clipped at 1e-7, as in the published training script.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    probabilities = jnp.exp(log_probabilities)
    mean = jnp.clip(probabilities.mean(1, keepdims=True), 1e-7, 1)
    return (probabilities * (log_probabilities - jnp.log(mean))).sum(-1).mean(-1)
