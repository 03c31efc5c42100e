"""The operations of a step that cost most, under the names that the code gives them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bloodcell_jax.plan.program import Operation

_FRAME = re.compile(
    r"jit\(train_step\)|shard_map|jvp\(|transpose\(|cond$|branch_\d+_fun|while$|body$|closed_call$|checkpoint$|\w+\.extract"
)
_BACKWARD, _FORWARD = "backward", "forward"


@dataclass
class _Group:
    count: int = 0
    cost: float = 0.0


def costliest(operations: list[Operation], cost: Callable[[Operation], float], most: int) -> list[dict[str, Any]]:
    """Return name, count and share of the total cost of the operations that cost most; equal names are one."""
    groups: dict[str, _Group] = {}
    for operation in operations:
        group = groups.setdefault(_name(operation), _Group())
        group.count += operation.times
        group.cost += cost(operation)
    total = sum(group.cost for group in groups.values()) or 1.0
    first = sorted(groups.items(), key=lambda item: -item[1].cost)[:most]
    return [{"name": name, "count": group.count, "share": group.cost / total} for name, group in first]


def _name(operation: Operation) -> str:
    """Return a name such as `backward stage_2/block_*/depthwise, convolution`."""
    path = operation.path
    if not path:
        return f"{operation.opcode} that the compiler added"
    side = _BACKWARD if "transpose(" in path else _FORWARD if "jvp(" in path else ""
    parts = [part for part in path.split("/") if not _is_frame(part)]
    place = re.sub(r"(block_|layers_)\d+", r"\1*", "/".join(parts)).replace("/Block/", "/block_*/")
    return f"{side} {place}, {operation.opcode}".strip()


def _is_frame(part: str) -> bool:
    """Return whether a part of a path names how something is called, not what it is."""
    return bool(_FRAME.match(part))
