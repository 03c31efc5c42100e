"""The part of a file that is the network: training programs and wrappers put names before it, and copies beside it.

A dict in a dict and a module in a module both show as a prefix of the names: `model.`, `module._orig_mod.`,
`layers/functional/`. `PATH#NAME` asks for the network under one of them.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bloodcell_jax.errors import DataError

T = TypeVar("T")

# Longer names are no network's; patterns with free parts take quadratic time on them.
MAX_NAME_LENGTH = 500

# Modules that torch.compile, FSDP, activation checkpointing and Lightning's Fabric put anywhere into a network.
_WRAPPERS = re.compile(
    r"(?:^|(?<=[.]))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.(?=.)"
)

# The names of which the first is taken if a file holds several networks, averaged weights before trained ones: those of
# timm, and then ema_pytorch's and Lightning's. mmengine's `ema_state_dict` is left out: it holds the trained weights.
_PREFERRED = (
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "ema",
    "averaged_model",
    "state_dict",
    "model",
    "online_model",
    "current_model_state",
)


def split_part(source: Path | str) -> tuple[Path | str, str | None]:
    """Return the file, or name, and the part of it that `source` asks for by `FILE#PART`; None: it asks for none."""
    name, mark, part = str(source).rpartition("#")
    if not mark or os.path.exists(os.path.expanduser(source)):
        return source, None
    return name, part


def without_wrappers(tensors: Mapping[str, T]) -> tuple[Mapping[str, T], tuple[str, ...]]:
    """Return the tensors without the wrappers' modules in their names, and the names of these modules."""
    renamed = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    wrappers = {wrapper for name in tensors for wrapper in _WRAPPERS.findall(name)}
    # Two tensors with one name then are a wrapped network beside a bare one.
    if len(renamed) < len(tensors):
        return tensors, ()
    return renamed, tuple(sorted(wrappers))


def find_prefixes(names: Iterable[str], signatures: Sequence[str]) -> dict[str, int]:
    """Return the prefix of each network among the names, with the place of the signature that shows it.

    Args:
      names: the names in a file.
      signatures: patterns of a name that only one layout has; the first that fits decides.
    """
    known = [name for name in names if len(name) <= MAX_NAME_LENGTH]
    found: dict[str, int] = {}
    for i, signature in enumerate(signatures):
        pattern = re.compile(rf"((?:.*?[./])??)(?:{signature})")
        for name in known:
            if match := pattern.fullmatch(name):
                found.setdefault(match[1], i)
    return found


def choose_prefix(path: Path, prefixes: Sequence[str], asked: str | None) -> str:
    """Return the prefix of the network to take.

    Args:
      path: the file, for messages.
      prefixes: prefix of each network in the file.
      asked: the part that the user asked for, or a part of its name from the start; None: the preferred network.

    Raises:
      DataError: no network is there, or none of several is preferred.
    """
    fitting = [prefix for prefix in prefixes if asked is None or _lies_in(prefix, asked)]
    shown = ", ".join(f"{path}#{part_name(prefix)}" for prefix in prefixes)
    if not fitting:
        raise DataError(f"{path}#{asked}: no network there; give {shown}")
    ranks = sorted((_rank(prefix), prefix) for prefix in fitting)
    if len(ranks) > 1 and (ranks[0][0] == ranks[1][0] or ranks[-1][0] == len(_PREFERRED)):
        raise DataError(f"{path}: holds {len(fitting)} networks, and nothing says which is meant; give one of {shown}")
    return ranks[0][1]


def part_name(prefix: str) -> str:
    """Return the name of a part as the user gives it."""
    return prefix.rstrip("./")


def _lies_in(prefix: str, part: str) -> bool:
    return part_name(prefix) == part or (part != "" and prefix.startswith((f"{part}.", f"{part}/")))


def _rank(prefix: str) -> int:
    """Return the place of a prefix in the order of preference; unknown ones are last."""
    return min(
        (_PREFERRED.index(name) for name in re.split("[./]", prefix) if name in _PREFERRED), default=len(_PREFERRED)
    )
