"""The results of the benchmark as text for a terminal."""

from typing import Any

from bloodcell_jax.report.text_table import aligned


def format_results(results: dict[str, Any]) -> str:
    """Return the results as tables, without the parts that were not measured."""
    sections = [_heading(results), _programs(results)]
    for name, section in (("roofline", _roofline), ("blocks", _blocks)):
        if results[name]:
            sections.append(section(results))
    rest = _rest(results)
    sections += [rest] if rest else []
    if results["peers"] or results["peers_left_out"]:
        sections.append(_peers(results))
    return "\n\n".join(sections)


def _heading(results: dict) -> str:
    environment, size = results["environment"], results["image_size"]
    devices = environment["devices"]
    kind = f"{len(devices)} devices like {devices[0]}" if len(devices) > 1 else devices[0]
    asked = results["batch_size_asked"]
    batch = f"batch {results['batch_size']}" + (f" ({asked} did not fit)" if asked != results["batch_size"] else "")
    revision = environment["git_revision"] or "unknown"
    processor = environment["processor"] or environment["machine"]
    versions = ", ".join(f"{name} {environment['versions'][name]}" for name in ("jax", "flax", "optax"))
    return "\n".join(
        [
            f"{results['model']}, {results['parameters']:,} parameters, {size}x{size}, {batch}, {results['precision']}",
            f"augmentation {results['augmentation']}; optimizer {results['optimizer']}; stage {results['stage']}",
            f"{kind}, {processor}, {environment['cores']} cores; {versions}; "
            f"revision {revision[:12]}{'+' * revision.endswith('+')}",
            f"measured here, one device: {results['matrix_rate'] / 1e12:.3f} TFLOP/s in a matrix product, "
            f"{results['copy_rate'] / 1e9:.1f} GB/s in a copy",
        ]
    )


def _programs(results: dict) -> str:
    rows = [("", "images/s", "ms", "dispatch ms", "compile s", "peak MiB", "GFLOP", "compiled GFLOP", "MFU")]
    for name in ("train", "inference", "augment", "input"):
        cost = results[name]
        if cost:
            rows.append(
                (
                    name,
                    f"{cost['images_per_second']:,.1f}",
                    f"{cost['step_ms']:.2f}",
                    _number(cost.get("dispatch_ms"), ".2f"),
                    _number(cost.get("compile_s"), ".1f"),
                    _number(cost.get("peak_bytes"), ",.0f", 2**20),
                    _number(cost.get("model_flops"), ",.1f", 1e9),
                    _number(cost.get("compiled_flops"), ",.1f", 1e9),
                    _number(cost.get("mfu"), ".1%"),
                )
            )
    notes = []
    for name in ("augment", "input"):
        if results[name]:
            notes.append(f"{name} is {results[name]['share']:.1%} of a training step")
    device = results["train"]["device_peak_bytes"]
    if device is not None:
        notes.append(f"the device's own peak was {device / 2**20:,.0f} MiB")
    return "\n".join([aligned(rows), *(["; ".join(notes)] if notes else [])])


def _roofline(results: dict) -> str:
    rows = [("a step's parts, each alone", "ms", "of the step", "limit ms")]
    rows += [
        (name, f"{part['ms']:.2f}", f"{part['share']:.1%}", f"{part['limit_ms']:.2f}")
        for name, part in results["roofline"].items()
    ]
    together = sum(part["ms"] for part in results["roofline"].values())
    rows.append(("together", f"{together:.2f}", f"{together / results['train']['step_ms']:.1%}", ""))
    return aligned(rows)


def _blocks(results: dict) -> str:
    rows = [("block", "count", "forward ms", "with gradients ms")]
    rows += [
        ("x".join(map(str, row["shape"])), str(row["count"]), f"{row['forward_ms']:.2f}", f"{row['train_ms']:.2f}")
        for row in results["blocks"]
    ]
    return aligned(rows)


def _rest(results: dict) -> str:
    start, checkpoint, lines = results["start"], results["checkpoint"], []
    if start:
        lines.append(
            f"launch to first step, {start['examples']:,} images: {start['first_step_s']:.1f} s; with an empty "
            f"compilation cache {start['cold_first_step_s']:.1f} s"
        )
    if checkpoint:
        lines.append(
            f"checkpoint, {checkpoint['bytes'] / 2**20:,.0f} MiB: stops the loop for {checkpoint['pause_s']:.2f} s, "
            f"is complete after {checkpoint['written_s']:.2f} s"
        )
    return "\n".join(lines)


def _peers(results: dict) -> str:
    rows = [("peer", "train images/s", "ours/peer", "inference images/s", "ours/peer")]
    for name, peer in results["peers"].items():
        rows.append(_peer_row(name, peer))
        if peer["as_started"]:
            rows.append(_peer_row("  as its users start it", peer["as_started"]))
    lines = [aligned(rows)] if results["peers"] else []
    if any(peer["as_started"] for peer in results["peers"].values()):
        lines.append("Peers have the allocator setting of our process; as users start them, they have none.")
    lines += [f"{name}: {note}" for name, peer in results["peers"].items() for note in peer["notes"]]
    lines += [f"{name} is left out: {reason}" for name, reason in results["peers_left_out"].items()]
    return "\n".join([*lines, "Our step includes the augmentation; the peers get one fixed batch."])


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "-" if value is None else format(value / unit, form)


def _peer_row(name: str, rates: dict) -> tuple[str, str, str, str, str]:
    train, inference = (
        (f"{rates[kind]['images_per_second']:,.1f}", f"{rates[kind]['ours_per_peer']:.2f}")
        for kind in ("train", "inference")
    )
    return (name, *train, *inference)
