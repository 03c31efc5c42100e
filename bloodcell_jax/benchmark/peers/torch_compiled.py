"""The peer `torch_compile`: the network of the peer `torch` under `torch.compile`."""

from bloodcell_jax.benchmark.peers.task import PeerPrograms, Task
from bloodcell_jax.benchmark.peers.torch_convnext import ConvNeXt
from bloodcell_jax.benchmark.peers.torch_training import torch_programs


def build(task: Task) -> PeerPrograms:
    """Return the programs of this peer.

    Raises:
      CannotError: it does not have the stem or the optimizer of the task.
    """
    return torch_programs(ConvNeXt(task), task, compiled=True)
