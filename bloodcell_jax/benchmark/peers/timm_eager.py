"""The peer `timm`: the network of timm, eager and channels last, as timm's benchmark.py runs it."""

import importlib
import warnings

from bloodcell_jax.benchmark.peers.task import CannotError, PeerPrograms, Task
from bloodcell_jax.benchmark.peers.torch_training import torch_programs
from bloodcell_jax.benchmark.peers.torchvision_stand_in import torchvision_stand_in
from bloodcell_jax.models.variants import VARIANTS


def build(task: Task) -> PeerPrograms:
    """Return the programs of this peer.

    Raises:
      CannotError: it does not have the stride or the optimizer of the task.
    """
    if task.stem_stride != 4:
        raise CannotError(f"its patch stem has stride 4 and not {task.stem_stride}; set --config.model.stem_stride=4")
    with torchvision_stand_in(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm = importlib.import_module("timm")
    changed = {}
    if task.variant.norm_eps != VARIANTS[task.name].norm_eps:
        changed["norm_eps"] = task.variant.norm_eps
    if task.variant.activation != VARIANTS[task.name].activation:
        changed["act_layer"] = task.variant.activation
    model = timm.create_model(task.name, num_classes=task.num_classes, drop_path_rate=task.drop_path, **changed)
    return torch_programs(model, task, timm=timm.__version__)
