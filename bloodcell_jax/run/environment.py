"""What a run ran on and with: `environment.json`."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax

from bloodcell_jax.devices.host import processor_name, usable_cores
from bloodcell_jax.models.registry import count_parameters
from bloodcell_jax.run.run import Run
from bloodcell_jax.run.seen_by_start import seen_sentence
from bloodcell_jax.train.freezing import partition
from bloodcell_jax.weights.info import info_to_dict

_PACKAGES = ("bloodcell_jax", "jax", "jaxlib", "flax", "optax", "dm-pix", "orbax-checkpoint", "grain", "array_record")
_PACKAGES += ("numpy", "pillow")


def describe_environment(run: Run) -> dict:
    """Return versions, devices, git revision, data and model of a run, for `environment.json` and the report."""
    config = run.config
    return describe_machine() | {
        "steps": run.total_steps,
        "data": {
            "source": config.data.source,
            "sha256": run.data_hash,
            "n": len(run.dataset),
            "image_size": config.data.image_size,
            "view": run.dataset.view and run.dataset.view._asdict(),
            "class_names": list(run.dataset.class_names),
            "splits": {
                name: {
                    "count": len(indices),
                    "per_class": dict(
                        zip(run.dataset.class_names, run.dataset.class_counts(indices).tolist(), strict=True)
                    ),
                }
                for name, indices in run.splits.items()
            },
            "skipped": run.dataset.skipped,
            "notes": _split_notes(run),
        },
        "weights": info_to_dict(run.weights_info) if run.weights_info else None,
        "model": {
            "variant": config.model.variant,
            "parameters": count_parameters(run.param_shapes),
            "trainable": {
                stage.name: count_parameters(partition(run.param_shapes, stage.mask)[0]) for stage in run.stages
            },
        },
    }


def describe_machine() -> dict:
    """Return the command, versions, processor, devices and git revision of this process."""
    return {
        "command": " ".join(sys.argv),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "machine": platform.machine(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "devices": [f"{device.device_kind} {device.id}" for device in jax.devices()],
        "processes": jax.process_count(),
        "git_revision": _git_revision(),
    }


def _split_notes(run: Run) -> list[str]:
    given, clean, data = run.splits_record["by"]["given"], run.config.data.clean, run.config.data
    together = ", images of the same cell kept together" if run.config.data.group_duplicates else ""
    together += ", groups kept whole" if run.dataset.groups is not None else ""
    notes = [f"The examples that {clean} names were left out."] if clean is not None else []
    if seen := seen_sentence(run):
        notes.append(seen)
    if not run.dataset.splits:
        notes.append(f"The source names no splits; it was cut by data.splits, stratified by class{together}.")
    if data.folds is not None:
        notes.append(
            f"Train and val together were cut anew into {data.folds} folds, stratified by class{together}. Fold "
            f"{data.fold} is val; the other folds are train."
        )
    if not run.dataset.splits:
        return notes
    if given:
        notes.append(f"The source's own splits were kept: {', '.join(given)}.")
    if "val" not in given and data.folds is None:
        notes.append(f"It has no val; one was cut from its train by data.splits, stratified by class{together}.")
    if "test" not in run.splits:
        notes.append("It has no test, and none was invented: results are on val, by which the checkpoint was chosen.")
    return notes


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Return the revision of the checkout that this package runs from; + at its end says that it has changes."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
