"""What `benchmark` measured on a device, set beside the plan for it."""

import json
from pathlib import Path
from typing import Any

from bloodcell_jax.errors import DataError, UsageError
from bloodcell_jax.regular_files import check_regular_file

_SAME = ("model", "image_size", "batch_size", "precision")


def read_measured(path: Path) -> dict[str, Any]:
    """Return the results of `benchmark --output`.

    Raises:
      DataError: the file cannot be read, or holds something else.
    """
    check_regular_file(path)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        train, devices = results["train"], results["environment"]["devices"]
        found = {name: results[name] for name in (*_SAME, "stage")} | {
            "device": devices[0],
            "devices": len(devices),
            "step_ms": float(train["step_ms"]),
            "images_per_second": float(train["images_per_second"]),
            "peak_bytes": train["peak_bytes"],
        }
    except OSError as error:
        raise DataError(f"--compare={path}: cannot be read ({error.strerror}); name a file that is there") from error
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise DataError(f"--compare={path}: is no file of `benchmark --output` ({error!r}); name one") from error
    return found


def match(measured: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return the measurement with the name of the topology that it belongs to.

    Raises:
      UsageError: it measured another model, batch or device; names both values.
    """
    for name in _SAME:
        if measured[name] != results[name]:
            raise UsageError(f"--compare: measured with {name} {measured[name]}, and planned with {results[name]}")
    for plan in results["topologies"]:
        if (plan["device"], plan["devices"]) == (measured["device"], measured["devices"]):
            return measured | {"topology": plan["topology"]}
    planned = ", ".join(f"{plan['devices']} x {plan['device']}" for plan in results["topologies"])
    raise UsageError(f"--compare: measured on {measured['devices']} x {measured['device']}, and planned for {planned}")
