"""Policies and mixes applied to batches.

The change of an image depends only on the step's key and on the image's slot, its place in the global batch. A choice
among several operations depends on the block of slots too. The change does not depend on the devices if each device
holds whole blocks.
"""

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
from bloodcell_jax.augment.declaration import Operation
from bloodcell_jax.augment.operations import MIXES, OPERATIONS
from bloodcell_jax.augment.options import Value
from bloodcell_jax.augment.pixels import draw
from bloodcell_jax.augment.policy_strings import Policy, mix_shares, share_of

DEFAULT_BLOCK = 32

# AugMix's consistency loss compares three views of an image: a clean one and two mixed ones.
VIEWS = 3

# These numbers are folded into a step's key for draws outside the operations. Operations fold their position in.
_CHOICES, _BLOCKS, _PARTNERS, _VIEW = (2**32 - 1 - i for i in range(4))


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of training images.

    Attributes:
      policy: operations on single images.
      mix: operations that mix an image with another one of its block.
      block: number of consecutive slots in a block. Choices among operations and partners are made inside a block.
      views: the network sees each image as `VIEWS` views, for AugMix's consistency loss.
    """

    policy: Policy
    mix: Policy = Policy()
    block: int = DEFAULT_BLOCK
    views: bool = False

    @property
    def images_seen(self) -> int:
        """How many images the network sees of each example in a step."""
        return VIEWS if self.views else 1

    def __str__(self) -> str:
        mixed = f", mixed by {self.mix}" if self.mix.operations else ""
        return f"{self.policy}{mixed}"

    @property
    def needs_blocks(self) -> bool:
        """Whether choices are made inside blocks of slots, so that every device must hold whole blocks."""
        if self.mix.operations:
            return True
        return any(_is_assigned(OPERATIONS[name], share_of(dict(options))) for name, options in self.policy.operations)


class _Batch(NamedTuple):
    """The source of a policy's draws: the step's key, the slots of the images and the number of slots in a block."""

    key: jax.Array
    slots: jax.Array
    block: int


def apply_policy(
    policy: Policy, key: jax.Array, slots: jax.Array, images: jax.Array, *, block: int = DEFAULT_BLOCK
) -> jax.Array:
    """Apply all operations of a policy to a batch. The function is pure and runs under jit, pmap or shard_map.

    Args:
      policy: the operations, from `parse_policy`.
      key: random key of this step.
      slots: places of the images in the global batch, int32 [n]. If `Augmentation.needs_blocks`, they must be whole
        blocks of consecutive slots.
      images: float [n, h, w, 3] in [0, 1]. Dtype and range are kept.
      block: number of slots in a block.
    """
    return _apply(policy, _Batch(key, slots, block), images)


def apply_views(
    policy: Policy, key: jax.Array, slots: jax.Array, images: jax.Array, *, block: int = DEFAULT_BLOCK
) -> jax.Array:
    """Return three views [n, 3, h, w, 3] of each image, for AugMix's consistency loss.

    The first view is without augmix, and the other two are with augmix. All other operations draw the same for the
    three views. The arguments are those of `apply_policy`.
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
    """Mix each image with another one of its block, and their targets in the same proportion.

    Args:
      mix: the mixes, from `parse_mix`.
      key, slots, images, block: as in `apply_policy`.
      targets: probabilities, float32 [n, classes].

    Returns:
      The mixed images and the mixed targets.
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
    """Apply the operations of a policy. Its first operation draws as the operation at position `first` would."""
    for position, (name, options) in enumerate(policy.operations, first):
        images = _apply_operation(batch, position, OPERATIONS[name], dict(options), images)
    return images


def _apply_operation(
    batch: _Batch, position: int, operation: Operation, options: dict[str, Value], images: jax.Array
) -> jax.Array:
    """Apply an operation to its share `p` of the images."""
    probability = share_of(options)
    options.pop("p", None)
    key, slots, block = jax.random.fold_in(batch.key, position), batch.slots, batch.block
    choice_key, block_key = (
        jax.random.fold_in(jax.random.fold_in(batch.key, use), position) for use in (_CHOICES, _BLOCKS)
    )

    def apply_to_each(images: jax.Array, slots: jax.Array) -> jax.Array:
        return _apply_to_each(operation, options, slot_keys(key, slots), images)

    if operation.kind == "image" and _is_assigned(operation, probability):
        return apply_groups(
            assign_share(choice_key, block_numbers(slots, block), block, probability),
            [Group(0, 0, apply_to_each)],
            images,
            slots,
        )
    if operation.kind == "image":
        changed = apply_to_each(images, slots)
    else:
        changed = operation.function(key, block_key, slots, images, block=block, **options)
    if probability == 1:
        return changed
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(slot_keys(choice_key, slots))
    return jnp.where(chosen[:, None, None, None], changed, images)


def _is_assigned(operation: Operation, probability: float) -> bool:
    """Return whether an operation runs only on the images that go through it, which needs whole blocks."""
    return operation.kind == "batch" or (not operation.cheap and probability < 1)


def _apply_to_each(operation: Operation, options: dict[str, Value], keys: jax.Array, images: jax.Array) -> jax.Array:
    """Apply an operation to images [n, h, w, c], each with its key.

    A random operation draws from its ranges itself. For any other operation this function draws from them.
    """
    function = operation.function
    if operation.random:
        return jax.vmap(lambda key, image: function(key, image, **options))(keys, images)

    def apply_drawn(key: jax.Array, image: jax.Array) -> jax.Array:
        drawn = {
            option: draw(jax.random.fold_in(key, i), value) if isinstance(value, tuple) else value
            for i, (option, value) in enumerate(options.items())
        }
        return function(image, **drawn)

    return jax.vmap(apply_drawn)(keys, images)


def _draw_partners(key: jax.Array, slots: jax.Array, block: int) -> jax.Array:
    """Return a partner for each slot, any other slot of its block, as places in the block, int32 [blocks, block]."""

    def draw_block(number: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(key, number), block)
        return jnp.zeros(block, jnp.int32).at[order].set(jnp.roll(order, 1))

    return jax.vmap(draw_block)(block_numbers(slots, block))
