"""ConvNeXt in PyTorch as published (Liu et al. 2022; V2: Woo et al. 2023): plain modules for channels-last memory."""

import torch
from torch import nn
from torch.nn import functional

from bloodcell_jax.benchmark.peers.task import CannotError, Task
from bloodcell_jax.models.variants import Variant

_ACTIVATIONS = {"gelu": nn.GELU, "gelu_tanh": lambda: nn.GELU(approximate="tanh"), "silu": nn.SiLU}


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps [n, c, h, w]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Global response normalization of ConvNeXt V2, on maps [n, h, w, c]."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        response = x.norm(p=2, dim=(1, 2), keepdim=True)
        return x + self.bias + self.weight * (x * (response / (response.mean(-1, keepdim=True) + 1e-6)))


class Block(nn.Module):
    """Depthwise convolution, norm, two dense layers, layer scale, drop path and residual sum, on maps [n, c, h, w]."""

    def __init__(self, variant: Variant, channels: int, kernel_size: int, drop_path: float):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=variant.norm_eps)
        self.expand = nn.Linear(channels, 4 * channels)
        self.activation = _ACTIVATIONS[variant.activation]()
        self.grn = GlobalResponseNorm(4 * channels) if variant.grn else nn.Identity()
        self.project = nn.Linear(4 * channels, channels)
        scale = variant.layer_scale
        self.layer_scale = None if scale is None else nn.Parameter(torch.full((channels,), scale))
        self.drop_path = drop_path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.project(self.grn(self.activation(self.expand(y))))
        if self.layer_scale is not None:
            y = y * self.layer_scale
        y = y.permute(0, 3, 1, 2)
        if self.training and self.drop_path > 0:
            keep = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.drop_path
            y = y * keep / (1 - self.drop_path)
        return x + y


class ConvNeXt(nn.Module):
    """The classifier: images [n, 3, h, w] to logits [n, num_classes]."""

    def __init__(self, task: Task):
        super().__init__()
        variant = task.variant
        if variant.stem != "patch":
            raise CannotError(f"{task.name} has an overlapping stem, and this peer has a patch stem only")
        blocks, last = iter(range(sum(variant.depths))), sum(variant.depths) - 1
        padding = 0 if task.stem_stride == 4 else 1
        layers = [nn.Conv2d(3, variant.dims[0], 4, task.stem_stride, padding), _norm(variant, variant.dims[0])]
        for i, (depth, channels) in enumerate(zip(variant.depths, variant.dims, strict=True)):
            if i > 0:
                before = variant.dims[i - 1]
                layers += [_norm(variant, before), nn.Conv2d(before, channels, 2, 2)]
            for _ in range(depth):
                rate = task.drop_path * next(blocks) / last
                layers.append(Block(variant, channels, variant.kernel_sizes[i], rate))
        self.features = nn.Sequential(*layers)
        self.head_norm = nn.LayerNorm(variant.dims[-1], eps=variant.norm_eps)
        self.head = nn.Linear(variant.dims[-1], task.num_classes)
        self.norm_before_pool = variant.norm_before_pool

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.features(images)
        if self.norm_before_pool:
            x = self.head_norm(x.permute(0, 2, 3, 1)).mean((1, 2))
        else:
            x = self.head_norm(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return self.head(x)


def _norm(variant: Variant, channels: int) -> ChannelNorm:
    return ChannelNorm(channels, eps=variant.norm_eps)
