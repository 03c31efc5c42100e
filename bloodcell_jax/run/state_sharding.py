"""How the state of a run lies on the devices: a copy on each, or parts of it cut over them (`train.shard_state`).

Optimizer state that is cut is ZeRO's first stage (Rajbhandari et al. 2020, arXiv:1910.02054), parameters too its third.
Only shardings say so: XLA turns the sum of the gradients into one that leaves each device its part, updates the parts,
and gathers what the forward pass needs whole.
"""

import dataclasses
from typing import Any

import jax

from bloodcell_jax.devices.parallel import ROWS, WHOLE, DataParallel
from bloodcell_jax.train.state import TrainState
from bloodcell_jax.train.step import Gradients

# Choice -> what is cut, by the names of the parts that a checkpoint stores.
_CUT: dict[str, tuple[str, ...]] = {
    "none": (),
    "optimizer": ("optimizer", "ema"),
    "all": ("optimizer", "ema", "params"),
}


def state_shardings(state: TrainState, parallel: DataParallel, shard_state: str) -> Any:
    """Return the sharding of each array of a state, arrays or shapes, for a choice of `train.shard_state`."""
    cut = _CUT[shard_state]

    def shardings(part: str, tree: Any) -> Any:
        return jax.tree.map(lambda x: _sharding(part in cut, x, parallel), tree)

    return dataclasses.replace(
        state,
        step=parallel.state_sharding,
        packed=shardings("params", state.packed),
        opt_state=shardings("optimizer", state.opt_state),
        packed_ema=shardings("ema", state.packed_ema),
        guard=jax.tree.map(lambda _: parallel.state_sharding, state.guard),
    )


def tree_shapes(trees: dict[str, Any], parallel: DataParallel, shard_state: str) -> dict[str, Any]:
    """Return the parts of a state as a checkpoint stores them, as shapes with the shardings to restore them under."""

    def shapes(part: str, tree: Any) -> Any:
        def shape(x: Any) -> jax.ShapeDtypeStruct:
            sharding = parallel.cut_sharding(x.shape) if part in _CUT[shard_state] else parallel.replicated
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

        return jax.tree.map(shape, tree)

    return {part: shapes(part, tree) for part, tree in trees.items()}


def spread(gradients_of: Gradients, parallel: DataParallel, shard_state: str) -> Gradients:
    """Return `gradients_of` as a step calls it whose state may be cut: each device computes its part of the sums.

    A step whose state is copied runs on each device as a whole, and calls it as it is.
    """
    if shard_state == "none":
        return gradients_of
    mapped = parallel.on_each_device(gradients_of, (WHOLE, WHOLE, ROWS, WHOLE, WHOLE), WHOLE)

    def gradients_of_all(*arguments: Any) -> tuple:
        loss, hits, gradients = mapped(*arguments)
        cut = {name: parallel.cut_sharding(gradient.shape) for name, gradient in gradients.items()}
        return loss, hits, jax.lax.with_sharding_constraint(gradients, cut)

    return gradients_of_all


def _sharding(is_cut: bool, x: Any, parallel: DataParallel) -> Any:
    return parallel.cut_sharding(x.shape) if is_cut else parallel.state_sharding
