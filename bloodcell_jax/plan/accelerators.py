"""The accelerators that a run can be compiled for, and what their makers publish of them."""

from dataclasses import dataclass

_GIB = 2**30


@dataclass(frozen=True)
class Rates:
    """Published rates of one device.

    Attributes:
      bfloat16, float32: FLOP/s of dense matrix products, in the precision in which XLA multiplies such arrays unless
        it is told otherwise: TensorFloat-32 on a GPU, one pass of bfloat16 on a TPU.
      memory: bytes/s of its memory.
      source: where they are published.
    """

    bfloat16: float
    float32: float
    memory: float
    source: str


@dataclass(frozen=True)
class Tpu:
    """A generation of TPUs.

    Attributes:
      name: as libtpu names it in a topology.
      axes: of its topologies.
      memory: bytes of one device.
      devices_per_chip: two where JAX shows the cores of a chip as devices.
      chip_config: of libtpu, if a chip has two cores that JAX is to show as one device, as on Cloud TPUs.
      clock: cycles/s, by which the compiler's estimate of cycles becomes seconds: the published rate divided by what
        all matrix units of a chip do in a cycle. With it, the estimate for a product of 4,096 x 4,096 matrices is 3 to
        20 % longer than the published rate allows (libtpu 0.0.42).
    """

    name: str
    axes: int
    memory: int
    rates: Rates
    clock: float
    devices_per_chip: int = 1
    chip_config: str | None = None


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, as XLA has to know it.

    Attributes:
      description: the name by which CUDA calls it.
      capability: CUDA compute capability, (major, minor).
      accelerated: whether XLA may use what only this capability has, such as Hopper's asynchronous products.
      cores: streaming multiprocessors; the fields with `per_core` are of one of them.
      clock: cycles/s.
      memory: bytes.
    """

    description: str
    capability: tuple[int, int]
    accelerated: bool
    cores: int
    lanes_per_core: int
    threads_per_core: int
    shared_per_core: int
    shared_per_block: int
    l2_cache: int
    clock: float
    memory: int
    rates: Rates


def _tpu(
    name: str,
    axes: int,
    memory: float,
    bandwidth: float,
    flops: float,
    units: int,
    side: int,
    split: int = 1,
    chip_config: str | None = None,
) -> Tpu:
    """Return a TPU of `units` matrix units of side x side; memory, bandwidth and FLOP/s are those of a chip.

    A unit of v6e and v7x does two products a cycle, and counts as two.
    """
    rates = Rates(flops / split, flops / split, bandwidth / split, "docs.jax.dev, Pallas: TPU Hardware Reference")
    clock = flops / (2 * units * side * side)
    return Tpu(name, axes, round(memory / split), rates, clock, split, chip_config)


# Short name -> what it is. Bytes, bytes/s and FLOP/s are of a chip.
TPUS = {
    "v4": _tpu("v4", 3, 32 * _GIB, 1.23e12, 2.75e14, 8, 128, chip_config="megacore"),
    "v5e": _tpu("v5e", 2, 16 * _GIB, 8.2e11, 1.97e14, 4, 128),
    "v5p": _tpu("v5p", 3, 95 * _GIB, 2.46e12, 4.59e14, 8, 128, chip_config="megacore"),
    "v6e": _tpu("v6e", 2, 32 * _GIB, 1.64e12, 9.2e14, 4, 256),
    "v7x": _tpu("tpu7x", 3, 192 * _GIB, 7.4e12, 2.31e15, 8, 256, split=2),
}

# Hopper and data-center Blackwell share these: 64 K registers, 228 KB of shared memory and 2,048 threads a core.
_LARGE = {"lanes_per_core": 128, "threads_per_core": 2048, "shared_per_core": 233_472, "shared_per_block": 232_448}
# CUDA C++ Programming Guide, "Compute Capabilities": 8.9 and 12.0.
_SMALL = {"lanes_per_core": 128, "threads_per_core": 1536, "shared_per_core": 102_400, "shared_per_block": 101_376}

# Short name -> what it is. Memory, caches and clocks of A100 to B200 are those that XLA keeps for such machines
# (openxla/xla, xla/backends/gpu/target_config/specs); those of the others are NVIDIA's.
GPUS = {
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        accelerated=False,
        cores=108,
        lanes_per_core=64,
        threads_per_core=2048,
        shared_per_core=167_936,
        shared_per_block=166_912,
        l2_cache=41_943_040,
        clock=1.41e9,
        memory=85_100_068_864,
        rates=Rates(3.12e14, 1.56e14, 2.039e12, "NVIDIA A100 datasheet, dense"),
    ),
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3",
        capability=(9, 0),
        accelerated=True,
        cores=132,
        **_LARGE,
        l2_cache=52_428_800,
        clock=1.98e9,
        memory=84_942_979_072,
        rates=Rates(9.89e14, 4.94e14, 3.35e12, "NVIDIA H100 SXM datasheet, dense"),
    ),
    "h200": Gpu(
        "NVIDIA H200",
        capability=(9, 0),
        accelerated=True,
        cores=132,
        **_LARGE,
        l2_cache=52_428_800,
        clock=1.98e9,
        memory=151_397_597_184,
        rates=Rates(9.89e14, 4.94e14, 4.8e12, "NVIDIA H200 SXM datasheet, dense"),
    ),
    "b200": Gpu(
        "NVIDIA B200",
        capability=(10, 0),
        accelerated=True,
        cores=148,
        **_LARGE,
        l2_cache=132_644_864,
        clock=1.965e9,
        memory=191_514_411_008,
        rates=Rates(2.25e15, 1.1e15, 7.7e12, "NVIDIA HGX B200 datasheet, dense"),
    ),
    "l4": Gpu(
        "NVIDIA L4",
        capability=(8, 9),
        accelerated=False,
        cores=58,
        **_SMALL,
        l2_cache=48 * 2**20,
        clock=2.04e9,
        memory=24 * _GIB,
        rates=Rates(1.21e14, 6.0e13, 3.0e11, "NVIDIA L4 datasheet, dense"),
    ),
    "rtx4090": Gpu(
        "NVIDIA GeForce RTX 4090",
        capability=(8, 9),
        accelerated=False,
        cores=128,
        **_SMALL,
        l2_cache=72 * 2**20,
        clock=2.52e9,
        memory=24 * _GIB,
        rates=Rates(1.652e14, 8.26e13, 1.008e12, "NVIDIA Ada GPU architecture whitepaper, dense"),
    ),
    "rtx5090": Gpu(
        "NVIDIA GeForce RTX 5090",
        capability=(12, 0),
        accelerated=False,
        cores=170,
        **_SMALL,
        l2_cache=96 * 2**20,
        clock=2.407e9,
        memory=32 * _GIB,
        rates=Rates(2.095e14, 1.048e14, 1.792e12, "NVIDIA RTX Blackwell GPU architecture whitepaper, dense"),
    ),
}
