"""Losses of single examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bloodcell_jax.augment.policies import VIEWS


def classification_losses(
    logits: jax.Array,
    targets: jax.Array,
    jsd: float | None,
    *,
    class_weights: np.ndarray | None = None,
    logit_offset: jax.Array | float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Return each example's loss [n] and the logits [n, classes] that its prediction is taken from.

    Args:
      logits: float32 [n, classes], or [3 * n, classes] if `jsd` is set: the views of an example are neighbors.
      targets: [n, classes], probabilities.
      jsd: weight of the consistency of the three views; the cross-entropy is the first's, the clean one's, alone.
      class_weights: weights in the cross-entropy, [classes]; None weighs all alike.
      logit_offset: [n, classes], added to the logits in the cross-entropy alone.
    """
    if jsd is None:
        return weighted_cross_entropy(logits + logit_offset, targets, class_weights), logits
    views = logits.reshape(-1, VIEWS, logits.shape[-1])
    clean = views[:, 0]
    losses = weighted_cross_entropy(clean + logit_offset, targets, class_weights)
    return losses + jsd * jensen_shannon(views), clean


def weighted_cross_entropy(logits: jax.Array, targets: jax.Array, weights: np.ndarray | None) -> jax.Array:
    """Return the cross-entropy of each example, [n], in which the part of each class counts by its weight.

    Args:
      logits: [n, classes].
      targets: probabilities, [n, classes]: one-hot, smoothed or mixed.
      weights: [classes], or None for 1 each.
    """
    return optax.softmax_cross_entropy(logits, targets if weights is None else targets * jnp.asarray(weights))


def jensen_shannon(logits: jax.Array) -> jax.Array:
    """Return the Jensen-Shannon divergence [n] of the views' predictions, logits [n, views, classes].

    The mean Kullback-Leibler divergence of each prediction from their mean (AugMix, arXiv:1912.02781, section 3); the
    mean is clipped at 1e-7, as in the published training script.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    probabilities = jnp.exp(log_probabilities)
    mean = jnp.clip(probabilities.mean(1, keepdims=True), 1e-7, 1)
    return (probabilities * (log_probabilities - jnp.log(mean))).sum(-1).mean(-1)
