"""The peer `torch_compile`: the network of `torch` under `torch.compile`."""

from bloodcell_jax.benchmark.peers.task import PeerPrograms, Task
from bloodcell_jax.benchmark.peers.torch_convnext import ConvNeXt
from bloodcell_jax.benchmark.peers.torch_training import torch_programs


def build(task: Task) -> PeerPrograms:
    """Return its programs."""
    return torch_programs(ConvNeXt(task), task, compiled=True)
