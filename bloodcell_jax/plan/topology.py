"""Machines by name, such as tpu:v5e:4x4 and gpu:h100:8, and the devices that JAX compiles for in their place."""

import math
import re
from dataclasses import dataclass
from typing import Any

from bloodcell_jax.errors import UsageError
from bloodcell_jax.plan.accelerators import GPUS, TPUS, Gpu, Tpu

MOST_CHIPS = 256
_FORM = re.compile(r"(tpu|gpu):([a-z0-9]+):(\d+(?:x\d+){0,2})(?::slices=(\d+))?", re.ASCII)


@dataclass(frozen=True)
class Topology:
    """A machine that is not here.

    Attributes:
      name: as the user wrote it.
      accelerator: what its devices are.
      shape: chips along each axis of a TPU slice; nodes and GPUs of a node.
      slices: of a TPU, joined by the network of the data center.
    """

    name: str
    accelerator: Tpu | Gpu
    shape: tuple[int, ...]
    slices: int

    @property
    def platform(self) -> str:
        """`tpu` or `gpu`."""
        return "tpu" if isinstance(self.accelerator, Tpu) else "gpu"

    @property
    def devices(self) -> int:
        """How many devices JAX shows."""
        per_chip = self.accelerator.devices_per_chip if isinstance(self.accelerator, Tpu) else 1
        return math.prod(self.shape) * self.slices * per_chip


def parse_topology(name: str) -> Topology:
    """Return the topology of a name.

    Raises:
      UsageError: there is none of this name; lists those that there are.
    """
    found = _FORM.fullmatch(name.strip().lower())
    table: dict[str, Any] = {"tpu": TPUS, "gpu": GPUS}.get(found[1], {}) if found else {}
    if found is None or found[2] not in table:
        raise UsageError(f"--topology={name}: not known; there are {topology_forms()}")
    shape, slices = tuple(map(int, found[3].split("x"))), int(found[4] or 1)
    topology = Topology(name.strip().lower(), table[found[2]], shape, slices)
    accelerator = topology.accelerator
    axes = (accelerator.axes,) if isinstance(accelerator, Tpu) else (1, 2)
    if len(shape) not in axes or (isinstance(accelerator, Gpu) and found[4]):
        raise UsageError(f"--topology={name}: has another form; there are {topology_forms()}")
    if not 0 < math.prod(shape) * slices <= MOST_CHIPS:
        raise UsageError(f"--topology={name}: {math.prod(shape) * slices:,} chips; name 1 to {MOST_CHIPS}")
    return topology


def topology_forms() -> str:
    """Return the forms of the names of topologies, for a message."""
    flat = [name for name, tpu in TPUS.items() if tpu.axes == 2]
    deep = [name for name, tpu in TPUS.items() if tpu.axes == 3]
    return (
        f"tpu:{'|'.join(flat)}:4x4, tpu:{'|'.join(deep)}:2x2x1, either with :slices=2, "
        f"and gpu:{'|'.join(GPUS)}:8, or 2x8 for two nodes of 8"
    )


def create_devices(topology: Topology) -> list[Any]:
    """Return the devices of a topology, next to each other as on the machine; nothing can run on them.

    Raises:
      UsageError: the compiler has no such topology; says what it says.
    """
    import jax
    from jax.experimental import topologies

    accelerator, shape = topology.accelerator, topology.shape
    try:
        if isinstance(accelerator, Tpu):
            name = f"{accelerator.name}:{'x'.join(map(str, shape))}"
            options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
            if accelerator.chip_config is not None:
                options["chip_config_name"] = accelerator.chip_config
            found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
        else:
            # Partitions, nodes of a partition, GPUs of a node.
            nodes, gpus = (1, *shape)[-2:]
            found = topologies.get_topology_desc(
                topology.name, platform="cuda", target_config=_target_config(accelerator), topology=f"1x{nodes}x{gpus}"
            )
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise UsageError(f"--topology={topology.name}: the compiler refuses it ({error}); name another") from error
    return sorted(found.devices, key=lambda device: (device.process_index, device.id))


def _target_config(gpu: Gpu) -> str:
    """Return XLA's GpuTargetConfigProto of a GPU as text."""
    major, minor = gpu.capability
    extension = "ACCELERATED_FEATURES" if gpu.accelerated else "NONE"
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {gpu.threads_per_core}
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {gpu.shared_per_block}
  shared_memory_per_core: {gpu.shared_per_core} registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: {gpu.cores} fpus_per_core: {gpu.lanes_per_core} clock_rate_ghz: {gpu.clock / 1e9}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: {round(gpu.rates.memory)} l2_cache_size: {gpu.l2_cache} device_memory_size: {gpu.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {extension} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 }}
device_description_str: "{gpu.description}"
"""
