"""Peers: other implementations of the same network, each in a process of its own beside ours."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from bloodcell_jax.errors import UsageError


@dataclass(frozen=True)
class Peer:
    """Another implementation.

    Attributes:
      module: name of its module in this package; `build(task)` of this module returns the PeerPrograms.
      packages: packages that it imports and the library does not need.
      install: command that installs these packages.
    """

    module: str
    packages: tuple[str, ...] = ()
    install: str = ""


PEERS = {
    "torch": Peer("torch_eager", ("torch",), "pip install torch"),
    "torch_compile": Peer("torch_compiled", ("torch",), "pip install torch"),
    "timm": Peer("timm_eager", ("torch", "timm"), "pip install torch timm"),
    "keras_jax": Peer("keras_jax", ("keras",), "pip install keras"),
    "flax_stock": Peer("flax_stock"),
}


def check_peers(names: list[str]) -> None:
    """Check, without importing them, that peers exist and can run on this machine.

    Raises:
      UsageError: a peer does not exist or cannot run; the message names it and the command that helps.
    """
    for name in names:
        if name not in PEERS:
            raise UsageError(f"--peers={name}: no such peer; there are {', '.join(PEERS)}")
        peer = PEERS[name]
        missing = [package for package in peer.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise UsageError(f"--peers={name}: {' and '.join(missing)} not installed; run {peer.install}")
    if "torch_compile" in names and not (_has_compiler() or Path("/proc/driver/nvidia").exists()):
        raise UsageError("--peers=torch_compile: no C++ compiler found, which the CPU needs; install g++ or set CXX")


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name)
