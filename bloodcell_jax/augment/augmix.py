"""AugMix (Hendrycks et al. 2019, arXiv:1912.02781): chains of operations, mixed with each other and the image."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from bloodcell_jax.augment import search_spaces
from bloodcell_jax.augment.assignment import Group, apply_groups, assign, block_numbers, slot_keys
from bloodcell_jax.augment.declaration import operation, without_effect
from bloodcell_jax.augment.geometry import FILLS
from bloodcell_jax.augment.options import COMPAT, Number, Word
from bloodcell_jax.augment.randaugment import LayerPlan, apply_operations, assign_operation

MAX_DEPTH = 3


@operation(
    check=without_effect({"compat=kerascv": ("ops",)}),
    severity=Number(0.1, 10),
    width=Number(1, 10, whole=True),
    depth=Number(0, 3, whole=True),
    alpha=Number(0.01, 100),
    ops=Word(("augmix", "all")),
    compat=COMPAT,
    fill=Word(FILLS),
)
def augmix(
    key: jax.Array,
    block_key: jax.Array,
    slots: jax.Array,
    images: jax.Array,
    *,
    block: int,
    severity: float = 3.0,
    width: float = 3.0,
    depth: float = 0.0,
    alpha: float = 1.0,
    ops: str = "augmix",
    compat: str = "none",
    fill: str = "reflect",
) -> jax.Array:
    """Mix each image with chains of 1 to 3 operations, all drawn for it alone (AugMix).

    Algorithm 1 of the paper: chain i has 1 to 3 operations, each at a level U(0.1, severity) of 10. The result is
    `(1 - m) * image + m * sum_i w_i * chain_i` with w ~ Dirichlet(alpha, ..., alpha) and m ~ Beta(alpha, alpha).

    Args:
      key: random key of this step and this operation. Each image folds its slot in.
      block_key: another such key. Each block folds its number in.
      slots: int32 [k], whole blocks of consecutive slots of the global batch.
      images: [k, h, w, 3].
      block: slots in a block.
      severity: highest level, 0.1 to 10.
      width: number of chains.
      depth: number of operations in a chain, 1 to 3. If it is 0, each chain draws its number.
      alpha: parameter of both distributions.
      ops: `augmix`, or `all`, which adds four operations that overlap with the corruptions of ImageNet-C.
      compat: `kerascv` repeats the faults of KerasCV 0.9 (docs/augmentation.md), to replicate the report.
      fill: content outside the image, see `warp`.
    """
    plan, width = _plan(severity, ops, compat), int(width)
    numbers = block_numbers(slots, block)
    weights_key, level_key = (jax.random.fold_in(key, use) for use in range(2))
    chain_weights, mixed_part = jax.vmap(lambda key: _draw_weights(key, width, alpha))(slot_keys(weights_key, slots))
    layer = partial(_layer, plan, level_key, block_key, numbers, fill)

    def chain(mix: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        """Add one chain to the mix. An operation runs only on the images whose chain is long enough."""
        first = number * MAX_DEPTH
        changed = layer(first)(images, slots)
        if depth:
            for position in range(1, int(depth)):
                changed = layer(first + position)(changed, slots)
        else:
            depth_key = jax.random.fold_in(block_key, width * MAX_DEPTH + number)
            depths = assign(depth_key, numbers, block, (1,) * MAX_DEPTH)
            for position in range(1, MAX_DEPTH):
                # Choice 0 is the deepest chain.
                deep_enough = Group(0, MAX_DEPTH - 1 - position, layer(first + position))
                changed = apply_groups(depths, [deep_enough], changed, slots)
        return mix + _per_image(chain_weights[:, number] * mixed_part) * changed, None

    # The loop is not unrolled, because a chain has three layers of five kernels to compile.
    mix, _ = jax.lax.scan(chain, _per_image(1 - mixed_part) * images.astype(jnp.float32), jnp.arange(width))
    return jnp.clip(mix, 0, 1).astype(images.dtype)


def _layer(
    plan: LayerPlan, level_key: jax.Array, block_key: jax.Array, numbers: jax.Array, fill: str, number: jax.Array
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return a function (images, slots) -> images that applies one operation to each image; `number` is the layer's.

    Its images are as many from each block.
    """

    def apply(images: jax.Array, slots: jax.Array) -> jax.Array:
        keys = slot_keys(jax.random.fold_in(level_key, number), slots)
        operation_key = jax.random.fold_in(block_key, number)
        assignment = assign_operation(plan, operation_key, numbers, len(slots) // len(numbers))
        return apply_operations(plan, assignment, keys, images, fill=fill)

    return apply


def _plan(severity: float, ops: str, compat: str) -> LayerPlan:
    if compat == "kerascv":
        # The severity of KerasCV is a part of 1, and its levels begin at 0.01.
        def draw_level(key: jax.Array) -> jax.Array:
            return jax.random.uniform(key, minval=0.01, maxval=severity / 10)

        return LayerPlan(search_spaces.augmix_keras_cv(), 1.0, draw_level, layers=MAX_DEPTH)

    def draw_level(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, minval=0.1, maxval=severity) / 10

    space = search_spaces.augmix_all() if ops == "all" else search_spaces.augmix()
    return LayerPlan(space, 1.0, draw_level, layers=MAX_DEPTH)


def _draw_weights(key: jax.Array, width: int, alpha: float) -> tuple[jax.Array, jax.Array]:
    chains, whole = jax.random.split(key)
    return jax.random.dirichlet(chains, jnp.full(width, alpha)), jax.random.beta(whole, alpha, alpha)


def _per_image(values: jax.Array) -> jax.Array:
    return values[:, None, None, None]
