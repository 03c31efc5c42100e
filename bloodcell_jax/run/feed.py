"""The feed of a run: whether all images lie on the devices or are streamed."""

import logging

import jax
import numpy as np

from bloodcell_jax.config import DataConfig
from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.devices.host import free_host_memory
from bloodcell_jax.devices.processes import any_process

logger = logging.getLogger(__name__)

# The images may take this part of what is free; the rest is for the step: activations, and batches on their way.
_PART_FOR_IMAGES = 0.5
# The parameter, its gradient, two moments and an average, in float32.
_STATE_BYTES_PER_PARAMETER = 20


def choose_streaming(config: DataConfig, dataset: Dataset, parameters: int) -> bool:
    """Return whether the images are streamed; logs the reason if `feed` is auto.

    They are resident if they fit, beside the state, into half of the free memory of every device and of the host,
    which holds them as well. All processes of a run get the same answer.

    Args:
      config: its `feed` decides, unless it is auto.
      parameters: how many the network has.
    """
    if config.feed != "auto":
        return config.feed == "streaming"
    images = dataset.images.nbytes
    limits = [stats for device in jax.local_devices() if "bytes_limit" in (stats := device.memory_stats() or {})]
    # A device that tells no limit is the host, which then holds a copy for it beside its own.
    copies = len(jax.local_devices()) - len(limits) + (not isinstance(dataset.images, np.ndarray))
    free = {"the host": free_host_memory()}
    if limits:
        free["a device"] = free_beside_state(
            min(stats["bytes_limit"] - stats.get("bytes_in_use", 0) for stats in limits), parameters
        )
    needed = {"the host": copies * images, "a device": images}
    streams = any_process(any(not leaves_room(needed[name], size) for name, size in free.items()))
    logger.info(
        "data.feed=auto: %s, %s of images, free: %s",
        "streaming" if streams else "resident",
        _size(images),
        ", ".join(f"{_size(size)} on {name}" for name, size in free.items()),
    )
    return streams


def free_beside_state(memory: int, parameters: int) -> int:
    """Return the bytes of a device's memory that the state of a run leaves free, as an estimate."""
    return memory - _STATE_BYTES_PER_PARAMETER * parameters


def leaves_room(images: int, free: int) -> bool:
    """Return whether so many bytes of images leave room for a step."""
    return images <= _PART_FOR_IMAGES * free


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if abs(size) >= 1e8 else f"{size / 1e6:,.1f} MB"
