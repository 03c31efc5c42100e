"""The training step and the inference pass of a PyTorch classifier: channels last, autocast for bfloat16."""

# PyTorch offers its operations on lists of tensors only under names that start with `_foreach`.
# pyright: reportPrivateImportUsage=false

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from bloodcell_jax.benchmark.peers.task import CannotError, PeerPrograms, Task
from bloodcell_jax.config import OptimizerConfig


def torch_programs(model: nn.Module, task: Task, *, compiled: bool = False, **versions: str) -> PeerPrograms:
    """Return the programs of a network on one fixed random batch on the device.

    Args:
      model: takes images [n, 3, h, w] and returns logits [n, num_classes].
      task: gives the batch, the precision and the optimizer.
      compiled: run the network under `torch.compile`.
      **versions: package -> version of the packages that it uses besides PyTorch.

    Raises:
      CannotError: this peer does not have the optimizer of the task.
    """
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    # JAX multiplies float32 in TF32 on GPUs that have it, and PyTorch does so only if it is told to.
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # PyTorch's stub of this method lacks memory_format.
    model = model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    size = (task.batch_size, 3, task.image_size, task.image_size)
    images = torch.randn(size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(task.num_classes, (task.batch_size,), device=device)
    optimizer = _create_optimizer(model, task.optimizer)
    call = torch.compile(model) if compiled else model

    def precision() -> contextlib.AbstractContextManager:
        if task.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def train_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision():
            logits = call(images)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=task.label_smoothing)
        loss.backward()
        if task.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), task.optimizer.clip_norm)
        optimizer.step()

    def train(steps: int) -> None:
        model.train()
        _repeat(train_step, steps, device)

    def inference(steps: int) -> None:
        model.eval()
        with torch.inference_mode(), precision():
            _repeat(lambda: call(images), steps, device)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return PeerPrograms(parameters, {"torch": torch.__version__} | versions, train, inference)


def _repeat(step: Callable[[], Any], steps: int, device: torch.device) -> None:
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()


# The names of `OptimizerConfig.name` that this peer has -> (parameter groups, configuration) -> optimizer.
OPTIMIZERS: dict[str, Callable[[list[dict], OptimizerConfig], torch.optim.Optimizer]] = {
    "adamw": lambda groups, config: torch.optim.AdamW(groups, config.learning_rate, betas=config.betas),
    # `adam` has no weight decay, and AdamW without decay is Adam.
    "adam": lambda groups, config: torch.optim.AdamW(groups, config.learning_rate, betas=config.betas),
    "lion": lambda groups, config: Lion(groups, config.learning_rate, config.betas),
    "sgd": lambda groups, config: torch.optim.SGD(groups, config.learning_rate, momentum=config.momentum),
}


def _create_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of the task. Weight decay shrinks kernels and no other parameters.

    Raises:
      CannotError: this peer does not have the optimizer.
    """
    if config.name not in OPTIMIZERS:
        raise CannotError(f"it has no optimizer {config.name}; choose one of {', '.join(OPTIMIZERS)}")
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return OPTIMIZERS[config.name](groups, config)


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023, arXiv:2302.06675, algorithm 2), which PyTorch lacks; updates all parameters at once."""

    def __init__(self, groups: list[dict], learning_rate: float, betas: tuple[float, float]):
        super().__init__(groups, {"lr": learning_rate, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            (b1, b2), rate = group["betas"], group["lr"]
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not params:
                continue
            gradients = [parameter.grad for parameter in params]
            momenta = [self._momentum(parameter) for parameter in params]
            torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
            updates = torch._foreach_lerp(momenta, gradients, 1 - b1)
            torch._foreach_sign_(updates)
            torch._foreach_add_(params, updates, alpha=-rate)
            torch._foreach_lerp_(momenta, gradients, 1 - b2)

    def _momentum(self, parameter: nn.Parameter) -> torch.Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]
