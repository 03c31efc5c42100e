"""Policies carried out on batches.

What happens to an image depends on the step's key, the image's slot and, for choices among several operations, its
block of slots; never on how the batch is cut over devices, as long as each device holds whole blocks.
"""

import inspect
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bloodcell_jax.augment.assignment import (
    PARTS,
    Group,
    apply_groups,
    assign,
    assign_share,
    block_numbers,
    slot_keys,
    take_in_blocks,
)
from bloodcell_jax.augment.operations import BATCH_OPERATIONS, IMAGE_OPERATIONS, MIXES
from bloodcell_jax.augment.options import Value
from bloodcell_jax.augment.pixels import draw
from bloodcell_jax.augment.policy_strings import Policy, mix_shares

DEFAULT_BLOCK = 32

# Of AugMix's consistency loss: clean, and two mixed ones.
VIEWS = 3

# Folded into a step's key for what is drawn besides an operation's own randomness; operations fold their position.
_CHOICES, _BLOCKS, _PARTNERS, _VIEW = (2**32 - 1 - i for i in range(4))


@dataclass(frozen=True)
class Augmentation:
    """What training images go through.

    Attributes:
      policy: operations on single images.
      mix: operations that mix an image with another of its block.
      block: consecutive slots among which choices across images are made.
      views: an image is shown as `VIEWS` views, for AugMix's consistency loss.
    """

    policy: Policy
    mix: Policy = Policy()
    block: int = DEFAULT_BLOCK
    views: bool = False

    def __str__(self) -> str:
        mixed = f", mixed by {self.mix}" if self.mix.operations else ""
        return f"{self.policy}{mixed}"

    @property
    def needs_blocks(self) -> bool:
        """Whether choices are made inside blocks of slots, so that every device must hold whole ones."""
        if self.mix.operations:
            return True
        return any(_is_dealt_out(name, dict(options)) for name, options in self.policy.operations)


class _Batch(NamedTuple):
    """What the operations of a policy draw from: the step's key, the slots of the images and the size of a block."""

    key: jax.Array
    slots: jax.Array
    block: int


def apply_policy(
    policy: Policy, key: jax.Array, slots: jax.Array, images: jax.Array, *, block: int = DEFAULT_BLOCK
) -> jax.Array:
    """Return the images after all operations of a policy; pure, for use under jit, pmap or shard_map.

    Args:
      key: of this step, (seed, stream, step) folded in.
      slots: int32 [n], the places of the images in the global batch; whole blocks of consecutive ones where
        `Augmentation.needs_blocks`.
      images: float [n, h, w, 3] in [0, 1]; dtype and range are kept.
      block: slots in a block.
    """
    return _apply(policy, _Batch(key, slots, block), images)


def apply_views(
    policy: Policy, key: jax.Array, slots: jax.Array, images: jax.Array, *, block: int = DEFAULT_BLOCK
) -> jax.Array:
    """Return three views [n, 3, h, w, 3] of each image for AugMix's consistency loss: without augmix, and twice with.

    All other operations draw the same for the three.
    """
    first = next(i for i, (name, _) in enumerate(policy.operations) if name == "augmix")
    augmix, following = Policy(policy.operations[first : first + 1]), Policy(policy.operations[first + 1 :])
    batch = _Batch(key, slots, block)
    before = _apply(Policy(policy.operations[:first]), batch, images)
    views = [before]
    for view in range(1, VIEWS):
        view_key = jax.random.fold_in(jax.random.fold_in(key, _VIEW), view)
        views.append(_apply(augmix, batch._replace(key=view_key), before, first=first))
    return jnp.stack([_apply(following, batch, view, first=first + 1) for view in views], axis=1)


def apply_mix(
    mix: Policy,
    key: jax.Array,
    slots: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    *,
    block: int = DEFAULT_BLOCK,
) -> tuple[jax.Array, jax.Array]:
    """Mix each image with another of its block, and their targets in the same proportion.

    Args:
      key, slots, images, block: as in `apply_policy`.
      targets: float32 [n, classes], probabilities.

    Returns:
      Images and targets.
    """
    if not mix.operations:
        return images, targets
    partners = _draw_partners(jax.random.fold_in(key, _PARTNERS), slots, block)
    others, other_targets = (take_in_blocks(values, partners) for values in (images, targets))
    ends = [round(share * PARTS) for share in itertools.accumulate(mix_shares(mix), initial=0.0)]
    parts = [end - start for start, end in itertools.pairwise([*ends, PARTS])]
    assignment = assign(jax.random.fold_in(key, _BLOCKS), block_numbers(slots, block), block, parts)

    def group(position: int, name: str, options: dict[str, Value]) -> Group:
        def apply(images_and_shares: tuple, details: tuple) -> tuple:
            (images, _), (slots, others) = images_and_shares, details
            keys = slot_keys(jax.random.fold_in(key, position), slots)
            return jax.vmap(lambda *pair: MIXES[name].function(*pair, **options))(keys, images, others)

        return Group(position, position, apply)

    groups = [
        group(position, name, {key: value for key, value in options if key != "p"})
        for position, (name, options) in enumerate(mix.operations)
    ]
    mixed, share = apply_groups(assignment, groups, (images, jnp.ones(len(slots))), (slots, others))
    return mixed, share[:, None] * targets + (1 - share[:, None]) * other_targets


def _apply(policy: Policy, batch: _Batch, images: jax.Array, *, first: int = 0) -> jax.Array:
    """Carry out the operations of a policy, the first of which draws as the one at position `first`."""
    for position, (name, options) in enumerate(policy.operations, first):
        images = _apply_operation(batch, position, name, dict(options), images)
    return images


def _apply_operation(
    batch: _Batch, position: int, name: str, options: dict[str, Value], images: jax.Array
) -> jax.Array:
    dealt_out = _is_dealt_out(name, options)
    probability = options.pop("p", 1.0)
    key, slots, block = jax.random.fold_in(batch.key, position), batch.slots, batch.block
    choice_key, block_key = (
        jax.random.fold_in(jax.random.fold_in(batch.key, use), position) for use in (_CHOICES, _BLOCKS)
    )

    if name in IMAGE_OPERATIONS and dealt_out:

        def apply(images: jax.Array, slots: jax.Array) -> jax.Array:
            return _apply_to_each(name, options, slot_keys(key, slots), images)

        return apply_groups(
            assign_share(choice_key, block_numbers(slots, block), block, probability),
            [Group(0, 0, apply)],
            images,
            slots,
        )
    if name in IMAGE_OPERATIONS:
        changed = _apply_to_each(name, options, slot_keys(key, slots), images)
    else:
        changed = BATCH_OPERATIONS[name].function(key, block_key, slots, images, block=block, **options)
    if probability == 1:
        return changed
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(slot_keys(choice_key, slots))
    return jnp.where(chosen[:, None, None, None], changed, images)


def _is_dealt_out(name: str, options: dict[str, Value]) -> bool:
    """Return whether an operation is run on the images that it is meant for alone, which takes whole blocks."""
    return name in BATCH_OPERATIONS or (not IMAGE_OPERATIONS[name].cheap and options.get("p", 1.0) < 1)


def _apply_to_each(name: str, options: dict[str, Value], keys: jax.Array, images: jax.Array) -> jax.Array:
    """Run an operation on images [n, h, w, c], each with its key.

    A random operation draws from its ranges by itself; for one that is not random each range is drawn from here.
    """
    function = IMAGE_OPERATIONS[name].function
    if "key" in inspect.signature(function).parameters:
        return jax.vmap(lambda key, image: function(key, image, **options))(keys, images)

    def apply_drawn(key: jax.Array, image: jax.Array) -> jax.Array:
        drawn = {
            option: draw(jax.random.fold_in(key, i), value) if isinstance(value, tuple) else value
            for i, (option, value) in enumerate(options.items())
        }
        return function(image, **drawn)

    return jax.vmap(apply_drawn)(keys, images)


def _draw_partners(key: jax.Array, slots: jax.Array, block: int) -> jax.Array:
    """Return for each slot another of its block, each equally likely, as places in the block [blocks, block]."""

    def draw_block(number: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(key, number), block)
        return jnp.zeros(block, jnp.int32).at[order].set(jnp.roll(order, 1))

    return jax.vmap(draw_block)(block_numbers(slots, block))
