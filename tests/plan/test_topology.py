"""Names of machines: which there are, and that all others are refused with the list."""

import re

import pytest

from bloodcell_jax.errors import UsageError
from bloodcell_jax.plan.accelerators import GPUS, TPUS
from bloodcell_jax.plan.topology import parse_topology

GOOD = {
    "tpu:v5e:4x4": (16, 1),
    "tpu:v5e:16x16": (256, 1),
    "tpu:v5e:4x4:slices=2": (32, 2),
    "tpu:v4:2x2x1": (4, 1),
    "tpu:v5p:2x2x2": (8, 1),
    "TPU:v6e:2x2": (4, 1),
    # JAX shows the two cores of a chip as two devices.
    "tpu:v7x:2x2x1": (8, 1),
    "gpu:h100:8": (8, 1),
    "gpu:b200:2x8": (16, 1),
    "gpu:rtx4090:1": (1, 1),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_name_tells_devices_and_slices(name):
    topology = parse_topology(name)
    assert (topology.devices, topology.slices) == GOOD[name]
    assert topology.platform == name[:3].lower()


BAD = """h100:8; gpu:h100; gpu:v100:8; tpu:h100:8; tpu:v5e:4; tpu:v5e:4x4x4; tpu:v5p:4x4; gpu:h100:2x2x8; gpu:h100:-1
gpu:h100:8:slices=2; tpu:v5e:0x4; tpu:v5e:32x32; tpu:v5e:16x16:slices=2; tpu:v5e:4x4:slices=0; tpu:v5e:4x4 rm
gpu:h100:٨"""


@pytest.mark.parametrize("name", ["", *re.split("; |\n", BAD)])
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match=r"--topology"):
        parse_topology(name)


def test_an_unknown_machine_is_refused_with_the_list():
    with pytest.raises(UsageError) as error:
        parse_topology("gpu:titan:8")
    assert all(name in str(error.value) for name in [*TPUS, *GPUS, "gpu:titan:8"])


@pytest.mark.parametrize("accelerator", [*TPUS.values(), *GPUS.values()], ids=[*TPUS, *GPUS])
def test_published_figures_are_of_one_device(accelerator):
    """A slip of a digit or a unit would go unseen: all figures of today's accelerators lie in these bounds."""
    rates = accelerator.rates
    assert 16e9 <= accelerator.memory <= 256e9
    assert 0.2e12 <= rates.memory <= 10e12
    assert 1e14 <= rates.bfloat16 <= 3e15
    assert rates.bfloat16 / 3 <= rates.float32 <= rates.bfloat16
    assert 0.9e9 <= accelerator.clock <= 2.6e9
    # Every one can multiply at least 30 numbers for each that it reads.
    assert rates.bfloat16 / rates.memory > 60
    assert rates.source
