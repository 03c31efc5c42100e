"""The plans as text for a terminal. Every row says where its figures come from."""

from collections.abc import Callable
from typing import Any

from bloodcell_jax.report.text_table import aligned

_ORIGINS = """\
compiled: read from the finished program. rates: computed from the published rates below. estimate: nothing ran, and
what the devices send each other is not in it. One by one: the compiler's estimate of each operation for a TPU; for a
GPU its bytes at the published rate, and at least 2 microseconds. here: measured on this machine, which compiled it."""


def format_plan(results: dict[str, Any]) -> str:
    """Return the results as tables: one for each stage, with a column for each topology."""
    plans = results["topologies"]
    sections = [_heading(results), _devices(plans)]
    for number, stage in enumerate(plans[0]["stages"]):
        columns = [plan["stages"][number] for plan in plans]
        sections.append(_stage(stage["stage"], plans, columns, results))
        sections += [_costliest(plan, column) for plan, column in zip(plans, columns, strict=True)]
    return "\n\n".join([*filter(None, sections), _ORIGINS + "\n" + _sources(plans)])


def _heading(results: dict) -> str:
    environment = results["environment"]
    versions = ", ".join(f"{name} {environment['versions'][name]}" for name in ("jax", "flax", "optax"))
    return (
        f"{results['model']}, batch {results['batch_size']}, {results['precision']}, "
        f"{results['examples']:,} examples\n"
        f"compiled on {environment['machine']}, {environment['cores']} cores; {versions}"
    )


def _devices(plans: list[dict]) -> str:
    rows = [("", "device", "devices", "slices", "batch per device", "images")]
    rows += [
        (
            plan["topology"],
            plan["device"],
            str(plan["devices"]),
            str(plan["slices"]),
            str(plan["batch_per_device"]),
            plan["feed"],
        )
        for plan in plans
    ]
    return aligned(rows)


def _stage(name: str, plans: list[dict], columns: list[dict], results: dict) -> str:
    size = columns[0]["image_size"]
    rows = [(f"stage {name}, {size}x{size}", *(plan["topology"] for plan in plans))]
    cells: list[tuple[str, Callable[[dict], str]]] = [
        ("memory: arguments, MiB (compiled)", lambda stage: _mib(stage["memory"]["arguments"])),
        ("memory: temporaries, MiB (compiled)", lambda stage: _mib(stage["memory"]["temporaries"])),
        ("memory: program, MiB (compiled)", lambda stage: _mib(stage["memory"]["program"])),
        ("memory: peak, MiB (compiled)", lambda stage: _mib(stage["memory"]["peak"])),
        ("memory: usable, MiB (rates)", lambda stage: _mib(stage["memory"]["usable"])),
        ("it fits (compiled)", lambda stage: "yes" if stage["memory"]["fits"] else "no"),
        ("largest batch that fits (compiled)", lambda stage: _number(stage["largest_batch"], ",d")),
        ("it would fit with (compiled)", _fits_with),
        ("collectives (compiled)", _collectives),
        ("operations a step (compiled)", lambda stage: _number(stage["operations"] or None, ",d")),
        ("compilation, s (here)", lambda stage: f"{stage['compile_s']:.0f}"),
        ("model GFLOP a step (by formula)", lambda stage: _of_estimate(stage, "model_flops", 1e9, ",.1f")),
        ("bytes moved, GB (compiled)", lambda stage: _of_estimate(stage, "moved_bytes", 1e9, ",.2f")),
        ("time of the FLOPs, ms (rates)", lambda stage: _of_estimate(stage, "flops_s", 1e-3, ",.2f")),
        ("time of the bytes, ms (rates)", lambda stage: _of_estimate(stage, "moved_s", 1e-3, ",.2f")),
        ("time of all, one by one, ms (estimate)", lambda stage: _of_estimate(stage, "one_by_one_s", 1e-3, ",.2f")),
        ("images/s, from and to (estimate)", _images_per_second),
    ]
    rows += [(label, *map(cell, columns)) for label, cell in cells]
    measured = results.get("measured")
    if measured and measured["stage"] == name:
        rows += _measured(measured, plans)
    return aligned(rows)


def _measured(measured: dict, plans: list[dict]) -> list[tuple[str, ...]]:
    own = [plan["topology"] == measured["topology"] for plan in plans]
    figures = [
        ("step, ms (MEASURED)", f"{measured['step_ms']:,.2f}"),
        ("images/s (MEASURED)", f"{measured['images_per_second']:,.0f}"),
        ("memory: peak, MiB (MEASURED)", _mib(measured["peak_bytes"])),
    ]
    return [(label, *(value if mine else "-" for mine in own)) for label, value in figures]


def _costliest(plan: dict, stage: dict) -> str:
    if not stage["costliest"]:
        return ""
    rows = [(f"{plan['topology']}, stage {stage['stage']}: costliest operations (estimate)", "count", "share")]
    rows += [(row["name"], str(row["count"]), f"{row['share']:.1%}") for row in stage["costliest"]]
    return aligned(rows)


def _collectives(stage: dict) -> str:
    found = [f"{row['count']} {row['kind']}, {_mib(row['bytes'])} MiB" for row in stage["collectives"]]
    return "; ".join(found) or "none"


def _fits_with(stage: dict) -> str:
    if stage["fits_with"] is None:
        return "-"
    changes, peak = stage["fits_with"]["changes"], stage["fits_with"]["peak"]
    if changes is None:
        return "nothing that was tried"
    return f"{' '.join(f'{name}={value}' for name, value in changes.items())}: {_mib(peak)} MiB"


def _images_per_second(stage: dict) -> str:
    if stage["estimate"] is None:
        return "-"
    slowest, fastest = stage["estimate"]["images_per_second"]
    return f"{slowest:,.0f} to {fastest:,.0f}"


def _of_estimate(stage: dict, name: str, unit: float, form: str) -> str:
    value = None if stage["estimate"] is None else stage["estimate"][name]
    return _number(None if value is None else value / unit, form)


def _sources(plans: list[dict]) -> str:
    found = {stage["estimate"]["rates"]: None for plan in plans for stage in plan["stages"] if stage["estimate"]}
    return f"Published rates: {'; '.join(found)}." if found else ""


def _mib(count: int | None) -> str:
    return _number(None if count is None else count / 2**20, ",.1f")


def _number(value: float | int | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
