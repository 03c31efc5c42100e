"""Trainable parameters in few arrays, so that the update of a step is few operations.

An update reads and writes every leaf by operations of its own: its norms, its moments, its new value. An accelerator
takes longer to launch such an operation than to do it, for the hundred leaves of a ConvNeXt that are vectors. So leaves
are joined, each kind to one vector (as apex's multi-tensor operations and FSDP's flat parameters do). What the network
reads are slices of it, which XLA fuses into the conversion to the network's precision.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from bloodcell_jax.models.network import Params
from bloodcell_jax.train.freezing import Mask, decay_mask, merge, partition
from bloodcell_jax.train.layer_decay import Distances, name_of_distance

Leaves = dict[str, Any]

# Platform -> whether a leaf with so many axes is joined to others. A GPU launches every operation. A TPU would have to
# lay out a matrix anew for it, and launches for nothing. A CPU gains nothing (docs/plan.md has the counts).
_JOINS: dict[str, Callable[[int], bool]] = {
    "gpu": lambda axes: True,
    "tpu": lambda axes: axes == 1,
    "cpu": lambda axes: False,
}

# The length of a joined array is a multiple of it, so that most numbers of devices can share it.
_MULTIPLE = 1024


@dataclass(frozen=True)
class Packing:
    """How leaves lie in arrays.

    Attributes:
      groups: (name of the array, ((path of a leaf, its shape), ...)); an array of one leaf is that leaf, under its
        path. Names of joined arrays end in `kernel` if their leaves decay, as the paths of such leaves do.
    """

    groups: tuple[tuple[str, tuple[tuple[str, tuple[int, ...]], ...]], ...] = ()

    def pack(self, leaves: Leaves) -> Leaves:
        """Return the arrays by name that hold leaves by path."""
        return {
            name: leaves[name] if _is_alone(name, members) else _joined([leaves[path] for path, _ in members])
            for name, members in self.groups
        }

    def unpack(self, arrays: Leaves) -> Leaves:
        """Return the leaves by path that `pack` was given."""
        leaves = {}
        for name, members in self.groups:
            if _is_alone(name, members):
                leaves[name] = arrays[name]
                continue
            if isinstance(arrays[name], optax.MaskedNode):
                leaves |= {path: arrays[name] for path, _ in members}
                continue
            start = 0
            for path, shape in members:
                stop = start + math.prod(shape)
                leaves[path] = arrays[name][start:stop].reshape(shape)
                start = stop
        return leaves

    def pack_within(self, tree: Any) -> Any:
        """Return a tree, such as an optimizer's state, in which every dict of all leaves is packed."""
        paths = {path for _, members in self.groups for path, _ in members}
        return _map_dicts(self.pack, paths, tree)

    def unpack_within(self, tree: Any) -> Any:
        """Return the tree that `pack_within` was given."""
        return _map_dicts(self.unpack, {name for name, _ in self.groups}, tree)


@dataclass(frozen=True)
class Joining:
    """Which leaves are joined.

    Attributes:
      platform: name of JAX.
      distances: if the learning rate decays by layer; leaves at different distances from the head are not joined.
      matrices_apart: the optimizer asks for matrices as they are.
    """

    platform: str
    distances: Distances | None = None
    matrices_apart: bool = False

    def pack(self, leaves: Leaves) -> Packing:
        """Return the packing of leaves by path, arrays or shapes."""
        decays, groups = decay_mask(leaves), {}
        # The order is that of JAX's trees, whichever way the leaves came: initialized, restored or traced.
        for path, leaf in sorted(leaves.items()):
            name = self._joined_name(path, leaf, decays[path]) if self._joins(len(leaf.shape)) else path
            groups.setdefault(name, []).append((path, tuple(leaf.shape)))
        return Packing(tuple((name, tuple(members)) for name, members in groups.items()))

    def _joins(self, axes: int) -> bool:
        if self.matrices_apart and axes > 1:
            return False
        return _JOINS.get(self.platform, _JOINS["cpu"])(axes)

    def _joined_name(self, path: str, leaf: Any, decays: bool) -> str:
        layer = [] if self.distances is None else [name_of_distance(self.distances[path])]
        return "/".join([str(leaf.dtype), *layer, "kernel" if decays else "rest"])


def _is_alone(name: str, members: tuple) -> bool:
    return len(members) == 1 and members[0][0] == name


def _joined(leaves: list[Any]) -> jax.Array | optax.MaskedNode:
    """Return leaves as one vector; zeros fill it up, and stay zeros in every update.

    An optimizer of several parts, each for some leaves, has a mark in place of the others.
    """
    if isinstance(leaves[0], optax.MaskedNode):
        return leaves[0]
    filling = jnp.zeros(-sum(leaf.size for leaf in leaves) % _MULTIPLE, leaves[0].dtype)
    return jnp.concatenate([*(leaf.ravel() for leaf in leaves), filling])


def _map_dicts(function: Callable[[Leaves], Leaves], keys: set[str], tree: Any) -> Any:
    def is_found(x: Any) -> bool:
        return isinstance(x, dict) and x.keys() == keys

    return jax.tree.map(lambda x: function(x) if is_found(x) else x, tree, is_leaf=is_found)


@flax.struct.dataclass
class PackedParams:
    """Parameters as a step carries them.

    Attributes:
      trainable: arrays by name, as `packing` lays them out.
      frozen: leaves by path.
    """

    trainable: Leaves
    frozen: Leaves
    packing: Packing = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, params: Params, mask: Mask, joining: Joining) -> "PackedParams":
        """Return the parameters of a stage whose trainable ones `mask` names."""
        trainable, frozen = partition(params, mask)
        packing = joining.pack(trainable)
        return cls(packing.pack(trainable), frozen, packing)

    def unpack(self) -> Params:
        """Return all parameters as a tree; no copy is made of what is not joined."""
        return merge(self.packing.unpack(self.trainable), self.frozen)
