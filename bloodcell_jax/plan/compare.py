"""What `benchmark` measured on a device, set beside the plan for it."""

import json
from pathlib import Path
from typing import Any

from bloodcell_jax.config import Config
from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.plan.accelerators import Gpu
from bloodcell_jax.plan.topology import Topology
from bloodcell_jax.regular_files import check_regular_file
from bloodcell_jax.train.stages import image_size_of

_WORK = ("model", "stage", "image_size", "batch_size", "precision")


def read_measured(path: Path) -> dict[str, Any]:
    """Return the results of `benchmark --output`.

    Raises:
      DataError: the file cannot be read, or holds something else.
    """
    check_regular_file(path)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        train, devices = results["train"], results["environment"]["devices"]
        found = {name: results[name] for name in _WORK} | {
            # Without the number of the device, which ends its name in the file.
            "device": devices[0].rsplit(" ", 1)[0],
            "devices": len(devices),
            "step_ms": float(train["step_ms"]),
            "images_per_second": float(train["images_per_second"]),
            "peak_bytes": train["peak_bytes"],
        }
    except OSError as error:
        raise DataError(f"--compare={path}: cannot be read ({error.strerror}); name a file that is there") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DataError(f"--compare={path}: is no file of `benchmark --output` ({error!r}); name one") from error
    return found


def check_comparable(measured: dict[str, Any], config: Config, topologies: list[Topology]) -> None:
    """Check, before anything is compiled, that a measurement is of the work to plan: the last stage of its run.

    Raises:
      UsageError: it measured another model, stage, image size, batch or number of devices, or the last stage trains on
        cached features, which `benchmark` does not measure; names both.
    """
    stage = config.stages[-1]
    planned = {
        "model": config.model.variant,
        "stage": stage.name,
        "image_size": image_size_of(config, stage),
        "batch_size": config.train.batch_size,
        "precision": config.model.dtype,
    }
    for name, value in planned.items():
        if measured[name] != value:
            raise UsageError(f"--compare: measured with {name} {measured[name]}, and the last stage has {name} {value}")
    if stage.cached_views is not None:
        raise UsageError(
            f"--compare: measured with images, and the stage {stage.name} trains on cached features of "
            f"cached_views={stage.cached_views}; set config.stages[-1].cached_views=none"
        )
    if not any(_may_be(topology, measured) for topology in topologies):
        raise _other_device(measured, [topology.name for topology in topologies])


def match(measured: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return the measurement with the name of the topology that it belongs to.

    Raises:
      UsageError: it measured another device; names both.
    """
    for plan in results["topologies"]:
        if (plan["device"], plan["devices"]) == (measured["device"], measured["devices"]):
            return measured | {"topology": plan["topology"]}
    raise _other_device(measured, [f"{plan['devices']} x {plan['device']}" for plan in results["topologies"]])


def _may_be(topology: Topology, measured: dict[str, Any]) -> bool:
    """Return whether a topology may be what was measured; only the compiler knows by which name JAX calls a TPU."""
    known = topology.accelerator.description if isinstance(topology.accelerator, Gpu) else measured["device"]
    return (known, topology.devices) == (measured["device"], measured["devices"])


def _other_device(measured: dict[str, Any], planned: list[str]) -> UsageError:
    return UsageError(
        f"--compare: measured on {measured['devices']} x {measured['device']}, and planned for {', '.join(planned)}"
    )
