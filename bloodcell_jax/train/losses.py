"""Losses of single examples."""

import jax
import jax.numpy as jnp
import optax

from bloodcell_jax.augment.policies import VIEWS


def classification_losses(logits: jax.Array, targets: jax.Array, jsd: float | None) -> tuple[jax.Array, jax.Array]:
    """Return each example's loss [n] and the logits [n, classes] that its prediction is taken from.

    Args:
      logits: float32 [n, classes], or [3 * n, classes] where `jsd` is set: the views of an example are neighbours.
      targets: [n, classes], probabilities.
      jsd: weight of the consistency of the three views; the cross-entropy is the first's, the clean one's, alone.
    """
    if jsd is None:
        return optax.softmax_cross_entropy(logits, targets), logits
    views = logits.reshape(-1, VIEWS, logits.shape[-1])
    clean = views[:, 0]
    return optax.softmax_cross_entropy(clean, targets) + jsd * jensen_shannon(views), clean


def jensen_shannon(logits: jax.Array) -> jax.Array:
    """Return the Jensen-Shannon divergence [n] of the views' predictions, logits [n, views, classes].

    The mean Kullback-Leibler divergence of each prediction from their mean (AugMix, arXiv:1912.02781, section 3); the
    mean is clipped at 1e-7, as in the published training script.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    probabilities = jnp.exp(log_probabilities)
    mean = jnp.clip(probabilities.mean(1, keepdims=True), 1e-7, 1)
    return (probabilities * (log_probabilities - jnp.log(mean))).sum(-1).mean(-1)
