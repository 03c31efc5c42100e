"""The plain PyTorch script that `speedrun.py` measures: timm's ConvNeXt, trained as its users write it.

    python benchmarks/speedrun_torch.py --images=pbc96 --workdir=run

Images are JPEG files of `train/<class>/` and `val/<class>/`. A DataLoader with a worker for each core decodes them
and applies timm's RandAugment (`rand-m9-mstd0.5`) and flips; with `-inc1`, as in ConvNeXt's published recipe, timm
1.0.31 asks for images of 0 bits, which Pillow 13 refuses. The optimizer is PyTorch's AdamW at its own learning rate of
1e-3, with ConvNeXt's weight decay of 0.05, a warm-up of one epoch and a cosine; label smoothing 0.1 and drop path 0.1
are those of our side, and so is the layer scale, because timm's value of 1e-6 is meant for 300 epochs. After each
epoch, a line of `metrics.jsonl` has the accuracy on val.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bloodcell_jax.benchmark.peers.torchvision_stand_in import torchvision_stand_in

with torchvision_stand_in(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import timm
    from timm.data.auto_augment import rand_augment_transform

MEAN, STD = np.array(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), np.float32)
POLICY = "rand-m9-mstd0.5"


class Cells(Dataset):
    """The images of a split, as tensors [3, size, size], and their classes."""

    def __init__(self, folder: Path, size: int, *, augmented: bool):
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.files = [(path, i) for i, name in enumerate(self.classes) for path in sorted((folder / name).iterdir())]
        fill = tuple(round(255 * value) for value in MEAN.tolist())
        self._augment = rand_augment_transform(POLICY, {"img_mean": fill}) if augmented else None
        self._size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        image = Image.open(path).convert("RGB").resize((self._size, self._size), Image.Resampling.BICUBIC)
        if self._augment is not None:
            image = self._augment(image)
            if torch.rand(()) < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if torch.rand(()) < 0.5:
                image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        pixels = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), label


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the factor on the learning rate: a linear warm-up, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


@torch.inference_mode()
def accuracy_of(model: nn.Module, loader: DataLoader) -> float:
    """Return the share of images whose class has the largest logit."""
    model.eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in loader)
    model.train()
    return right / len(loader.dataset)  # pyright: ignore[reportArgumentType]  # it has a length


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Train timm's ConvNeXt on folders of cells with PyTorch.")
    parser.add_argument("--images", type=Path, required=True, help="folder of train/<class>/ and val/<class>/")
    parser.add_argument("--workdir", type=Path, required=True, help="gets metrics.jsonl")
    parser.add_argument("--model", default="convnext_atto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=16.0)
    parser.add_argument("--image_size", type=int, default=48)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    return parser.parse_args(words)


def main() -> None:
    # The processes of the loaders end with this one at once, and do not disturb the next measurement.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    arguments, cores = parse_arguments(), len(os.sched_getaffinity(0))
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(cores)
    train = Cells(arguments.images / "train", arguments.image_size, augmented=True)
    val = Cells(arguments.images / "val", arguments.image_size, augmented=False)
    workers = {"num_workers": cores, "persistent_workers": True}
    batches = DataLoader(train, arguments.batch_size, shuffle=True, drop_last=True, **workers)
    val_batches = DataLoader(val, 256, **workers)
    model = timm.create_model(arguments.model, num_classes=len(train.classes), drop_path_rate=0.1, ls_init_value=0.1)
    # PyTorch's stub of this method lacks memory_format.
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=0.05)
    steps, warmup = round(arguments.epochs * len(batches)), len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, min(warmup, steps))
    )
    loss_of, step = nn.CrossEntropyLoss(label_smoothing=0.1), 0
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    with (arguments.workdir / "metrics.jsonl").open("w", encoding="utf-8") as log:
        while step < steps:
            begun, since = time.monotonic(), step
            for images, labels in batches:
                optimizer.zero_grad()
                loss = loss_of(model(images.to(memory_format=torch.channels_last)), labels)
                loss.backward()
                optimizer.step()
                schedule.step()
                step += 1
                if step == steps:
                    break
            rate = (step - since) * arguments.batch_size / (time.monotonic() - begun)
            line = {"step": step, "stage": "train", "epoch": step / len(batches), "train/loss": loss.item()}
            line |= {"perf/images_per_second": rate, "val/accuracy": accuracy_of(model, val_batches)}
            log.write(json.dumps(line) + "\n")
            log.flush()


if __name__ == "__main__":
    main()
