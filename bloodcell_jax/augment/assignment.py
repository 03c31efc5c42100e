"""Which operation each image gets, so that an operation runs on its own images alone.

Under vmap a choice between operations runs all of them on every image. Here images are dealt out instead: the
global batch is cut into blocks of consecutive slots, inside a block each operation gets its share of a random order,
and it runs once on the rows of all blocks together. Fourteen operations on a block of 32 cost at most 42 rows, not 448.

The choice depends on (key, block number) alone, never on how a batch is cut over devices, as long as each device holds
whole blocks. The marginal of every slot is exact, whether or not the shares divide the block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

# Shares that are given as probabilities are rounded to this many parts.
PARTS = 10_000


@dataclass(frozen=True)
class Assignment:
    """A choice of one operation for each slot of some blocks.

    Rank r of a block's random order gets the operation at place floor((r * total + u) / block) mod total on a circle
    of `total` parts, of which operation o holds `weights[o]`; one u per block is uniform in [0, total * block).

    Attributes:
      weights: how many parts each operation holds.
      order: int32 [blocks, block], the slot of each rank.
      offset: int32 [blocks], u.
    """

    weights: tuple[int, ...]
    order: jax.Array
    offset: jax.Array

    @property
    def block(self) -> int:
        """Slots in a block."""
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
        """Return how many slots of a block operations first..last can get together at most."""
        parts = sum(self.weights[first : last + 1])
        return min(self.block, -(-self.block * parts // sum(self.weights)))

    def ranks_of(self, first: int, last: int) -> tuple[jax.Array, jax.Array]:
        """Return (first rank, count) of the slots of operations first..last, int32 [blocks] each; ranks go round."""
        total = sum(self.weights)
        # Rank r lies at or past place p from ceil((p * block - u) / total) on.
        below, above = (sum(self.weights[:end]) * self.block - self.offset for end in (first, last + 1))
        start, stop = -(-below // total), -(-above // total)
        return start % self.block, stop - start


def slot_keys(key: jax.Array, slots: jax.Array) -> jax.Array:
    """Return a key for each slot [n]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, slots)


def block_numbers(slots: jax.Array, block: int) -> jax.Array:
    """Return the numbers int32 [blocks] of the blocks that slots int32 [n], whole blocks of consecutive ones, make."""
    return slots[::block] // block


def assign(key: jax.Array, numbers: jax.Array, block: int, weights: Sequence[int]) -> Assignment:
    """Draw which operation each slot of some blocks gets.

    Args:
      key: of this step and use; it is folded with each block's number.
      numbers: int32 [blocks].
      block: slots in a block.
      weights: of the operations, whole numbers.
    """

    def draw(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        order_key, offset_key = jax.random.split(jax.random.fold_in(key, number))
        offset = jax.random.randint(offset_key, (), 0, sum(weights) * block)
        return jax.random.permutation(order_key, block), offset

    return Assignment(tuple(weights), *jax.vmap(draw)(numbers))


def assign_share(key: jax.Array, numbers: jax.Array, block: int, share: float) -> Assignment:
    """Draw which slots go through an operation (choice 0) that takes a share of them, 0 to 1."""
    parts = round(share * PARTS)
    return assign(key, numbers, block, (parts, PARTS - parts))


@dataclass(frozen=True)
class Group:
    """Neighboring operations of an assignment that one function carries out.

    Attributes:
      first, last: the operations.
      apply: (images [m, ...], details [m, ...]) -> images, on those that got one of the operations.
    """

    first: int
    last: int
    apply: Callable[[Any, Any], Any]


def apply_groups(assignment: Assignment, groups: Sequence[Group], images: Any, details: Any) -> Any:
    """Return the images, each after the function of the group that its operation is in.

    A group's rows are padded to the most it can get; images in no group stay as they are.

    Args:
      images: [n, h, w, c], or a tree of arrays [n, ...] that functions take and return.
      details: a tree of arrays [n, ...] that functions take besides.
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
    """Return values [blocks * k, ...] at places in their block, int32 [blocks, m], as [blocks * m, ...].

    Each block is gathered by itself, so devices that hold whole blocks need not speak.
    """
    blocked = values.reshape(places.shape[0], -1, *values.shape[1:])
    taken = jax.vmap(lambda block, index: block.at[index].get(mode="promise_in_bounds"))(blocked, places)
    return taken.reshape(-1, *values.shape[1:])
