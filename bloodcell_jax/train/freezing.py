"""Which parameters learn and which decay, as trees of bools over named parameters."""

import re
from typing import Any

from flax.traverse_util import unflatten_dict

from bloodcell_jax.errors import UsageError
from bloodcell_jax.models.network import Params, leaves_by_path

# A tree of bools like the parameters.
Mask = dict[str, Any]


def trainable_mask(params: Params, patterns: tuple[str, ...]) -> Mask:
    """Return a tree of bools like `params`: which parameters the patterns leave trainable.

    Args:
      params: nested dict of arrays or shapes.
      patterns: ordered regexes over paths such as `stage_3/block_0/expand/kernel`; the first that matches a whole
        path decides: trainable, or frozen if the pattern starts with `!`.

    Raises:
      UsageError: a pattern is no regex or decides nothing, a parameter is matched by none, or nothing is trainable.
    """
    mask, deciding = {}, set()
    compiled = [(pattern, _compile(pattern)) for pattern in patterns]
    for path in leaves_by_path(params):
        for pattern, regex in compiled:
            if regex.fullmatch(path):
                mask[path] = not pattern.startswith("!")
                deciding.add(pattern)
                break
        else:
            raise UsageError(f"trainable={patterns!r}: no pattern matches {path}; end with '.*' or '!.*'")
    for pattern in patterns:
        if pattern not in deciding:
            raise UsageError(f"trainable={patterns!r}: {pattern!r} decides no parameter; --dry_run lists their paths")
    if not any(mask.values()):
        raise UsageError(f"trainable={patterns!r}: freezes every parameter")
    return unflatten_dict(mask, sep="/")


def _compile(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern.removeprefix("!"))
    except re.error as error:
        raise UsageError(f"trainable: {pattern!r} is not a regular expression ({error})") from error


def decay_mask(params: Params) -> Mask:
    """Return a tree of bools like `params` (nested or flat): which parameters weight decay shrinks.

    Kernels decay; biases, norms, layer scales and GRN do not, as in ConvNeXt's published recipes.
    """
    flat = leaves_by_path(params)
    mask = {path: path.rsplit("/", 1)[-1] == "kernel" for path in flat}
    return mask if flat.keys() == params.keys() else unflatten_dict(mask, sep="/")


def partition(params: Params, mask: Mask) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (trainable, frozen) leaves of `params` as flat dicts by path."""
    flat, flat_mask = leaves_by_path(params), leaves_by_path(mask)
    trainable = {path: leaf for path, leaf in flat.items() if flat_mask[path]}
    frozen = {path: leaf for path, leaf in flat.items() if not flat_mask[path]}
    return trainable, frozen


def merge(trainable: dict[str, Any], frozen: dict[str, Any]) -> Params:
    """Return the nested tree that `partition` took apart."""
    return unflatten_dict(trainable | frozen, sep="/")
