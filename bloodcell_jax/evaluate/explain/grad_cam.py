"""Grad-CAM: which positions of the last map speak for a class."""

import jax
import jax.numpy as jnp

from bloodcell_jax.models.network import Network, Params


def grad_cam(model: Network, params: Params, last_map: jax.Array, classes: jax.Array) -> jax.Array:
    """Return what each position of the last map adds to the logit of a class, float32 [n, h, w].

    Every channel is weighted by its mean gradient (R. Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2). The values
    keep their sign: the paper's map is their positive part, which is what pages show.

    A network whose final norm follows the mean over the map forgets its scale. So the values of such a map add up to
    nearly 0: they say which positions speak more for the class than the average position does.

    Args:
      last_map: `features["stage_3"]` of the network, [n, h, w, c].
      classes: whose logit is explained, int [n].
    """
    precise, last_map = model.clone(dtype=jnp.dtype(jnp.float32)), last_map.astype(jnp.float32)

    def summed_logits(last_map: jax.Array) -> jax.Array:
        pooled = precise.apply({"params": params}, last_map, method="pool")
        logits, _ = precise.apply({"params": params}, pooled, method="classify")
        return jnp.take_along_axis(logits, classes[:, None], axis=1).sum()

    weights = jax.grad(summed_logits)(last_map).mean((1, 2), keepdims=True)
    return (weights * last_map).sum(-1)
