"""The assignment of images to operations. Each operation then runs only on its own images.

Under vmap, a choice between operations runs all of them on every image. Here each image is assigned to one operation
instead. The global batch is cut into blocks of consecutive slots, and a slot is an image's place in the global batch.
Inside a block each operation gets its share of a random order. An operation runs once, on its rows of all blocks
together. Fourteen operations on a block of 32 cost at most 42 rows and not 448.

The choice depends only on the key and the block's number. It does not depend on the devices if each device holds whole
blocks. Each slot gets each operation with exactly the right probability, even if the shares do not divide the block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

# A share that is given as a probability is rounded to a multiple of 1 / PARTS.
PARTS = 10_000


@dataclass(frozen=True)
class Assignment:
    """A choice of one operation for each slot of some blocks.

    The operations share a circle of `total` parts, and operation o holds `weights[o]` of them. Rank r of a block's
    random order gets the operation at place floor((r * total + u) / block) mod total. Each block draws one u uniformly
    from [0, total * block).

    Attributes:
      weights: number of parts that each operation holds.
      order: int32 [blocks, block], the slot of each rank.
      offset: int32 [blocks], u.
    """

    weights: tuple[int, ...]
    order: jax.Array
    offset: jax.Array

    @property
    def block(self) -> int:
        """The number of slots in a block."""
        return self.order.shape[1]

    @property
    def choice(self) -> jax.Array:
        """The operation of each slot, int32 [n]."""
        total = sum(self.weights)
        places = (self.ranks * total + self.offset[:, None]) // self.block % total
        starts = jnp.cumsum(jnp.array(self.weights))
        return jnp.searchsorted(starts, places, side="right").astype(jnp.int32).reshape(-1)

    @property
    def ranks(self) -> jax.Array:
        """The rank of each slot in its block's order, int32 [blocks, block]."""
        return jnp.argsort(self.order, axis=1).astype(jnp.int32)

    def most(self, first: int, last: int) -> int:
        """Return the largest number of slots that operations first..last can get together in a block."""
        parts = sum(self.weights[first : last + 1])
        return min(self.block, -(-self.block * parts // sum(self.weights)))

    def ranks_of(self, first: int, last: int) -> tuple[jax.Array, jax.Array]:
        """Return (first rank, count) of the slots of operations first..last, int32 [blocks] each.

        The ranks may pass the end of the block and go on from rank 0.
        """
        total = sum(self.weights)
        # The ranks from ceil((p * block - u) / total) on lie at or past place p.
        below, above = (sum(self.weights[:end]) * self.block - self.offset for end in (first, last + 1))
        start, stop = -(-below // total), -(-above // total)
        return start % self.block, stop - start


def slot_keys(key: jax.Array, slots: jax.Array) -> jax.Array:
    """Return a key for each slot [n]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, slots)


def block_numbers(slots: jax.Array, block: int) -> jax.Array:
    """Return the numbers, int32 [blocks], of the blocks that slots, int32 [n], belong to. They must be whole blocks."""
    return slots[::block] // block


def assign(key: jax.Array, numbers: jax.Array, block: int, weights: Sequence[int]) -> Assignment:
    """Draw the operation of each slot of some blocks.

    Args:
      key: random key of this step and this choice. Each block folds its number in.
      numbers: numbers of the blocks, int32 [blocks].
      block: slots in a block.
      weights: weight of each operation, a whole number.
    """

    def draw(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        order_key, offset_key = jax.random.split(jax.random.fold_in(key, number))
        offset = jax.random.randint(offset_key, (), 0, sum(weights) * block)
        return jax.random.permutation(order_key, block), offset

    return Assignment(tuple(weights), *jax.vmap(draw)(numbers))


def assign_share(key: jax.Array, numbers: jax.Array, block: int, share: float) -> Assignment:
    """Draw the slots that go through one operation, a share of 0 to 1. Their choice is 0."""
    parts = round(share * PARTS)
    return assign(key, numbers, block, (parts, PARTS - parts))


@dataclass(frozen=True)
class Group:
    """Neighboring operations of an assignment that one function applies.

    Attributes:
      first, last: the first and the last operation.
      apply: function (images [m, ...], details [m, ...]) -> images. It runs on the images of these operations.
    """

    first: int
    last: int
    apply: Callable[[Any, Any], Any]


def apply_groups(assignment: Assignment, groups: Sequence[Group], images: Any, details: Any) -> Any:
    """Return the images, each after the function of the group that contains its operation.

    The rows of a group are padded to the largest number that it can get. An image in no group stays as it is.

    Args:
      assignment: the operation of each image.
      groups: groups of operations.
      images: [n, h, w, c], or a tree of arrays [n, ...], which the functions take and return.
      details: a tree of arrays [n, ...], which the functions also take.
    """
    blocks, block = assignment.order.shape
    place, filled = jnp.broadcast_to(jnp.arange(block), (blocks, block)), block
    pieces = [images]
    for group in groups:
        most = assignment.most(group.first, group.last)
        start, count = assignment.ranks_of(group.first, group.last)
        ranks = (start[:, None] + jnp.arange(most)) % block
        members = jnp.take_along_axis(assignment.order, ranks, axis=1)
        taken = jax.tree.map(lambda x, members=members: take_in_blocks(x, members), (images, details))
        pieces.append(group.apply(*taken))
        inside = (assignment.ranks - start[:, None]) % block
        place = jnp.where(inside < count[:, None], filled + inside, place)
        filled += most

    def put_back(*parts: jax.Array) -> jax.Array:
        shape = parts[0].shape[1:]
        buffer = jnp.concatenate([part.reshape(blocks, -1, *shape) for part in parts], axis=1)
        return take_in_blocks(buffer.reshape(-1, *shape), place)

    return jax.tree.map(put_back, *pieces)


def take_in_blocks(values: jax.Array, places: jax.Array) -> jax.Array:
    """Return the values at given places of each block. Devices that hold whole blocks do not communicate for it.

    Args:
      values: [blocks * k, ...].
      places: places in a block, int32 [blocks, m].

    Returns:
      The values, [blocks * m, ...].
    """
    blocked = values.reshape(places.shape[0], -1, *values.shape[1:])
    taken = jax.vmap(lambda block, index: block.at[index].get(mode="promise_in_bounds"))(blocked, places)
    return taken.reshape(-1, *values.shape[1:])
