"""The formats of the verb `export`: what each writes, and what it needs."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bloodcell_jax.errors import UsageError
from bloodcell_jax.export.folders import write_safetensors_folder, write_timm_folder
from bloodcell_jax.export.onnx_file import write_onnx
from bloodcell_jax.export.stablehlo import write_stablehlo
from bloodcell_jax.export.trained_model import TrainedModel
from bloodcell_jax.extras import check_extra


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
      write: writes a model to a new path.
      suffix: of the file; empty: it is a folder.
      package: of an extra of the format's name, without which nothing can be written; None: none.
    """

    write: Callable[[Path, TrainedModel], None]
    suffix: str = ""
    package: str | None = None


FORMATS = {
    "stablehlo": Format(write_stablehlo, ".zip", "flatbuffers"),
    "onnx": Format(write_onnx, ".onnx", "onnx"),
    "safetensors": Format(write_safetensors_folder),
    "timm": Format(write_timm_folder),
}


def check_export(name: str, output: Path) -> None:
    """Check a format and a place for it, before a model is read.

    Raises:
      UsageError: there is no such format, its package is not installed, or the output cannot be used.
    """
    if name not in FORMATS:
        raise UsageError(f"--format={name}: must be one of {', '.join(FORMATS)}")
    form = FORMATS[name]
    if output.suffix != form.suffix and form.suffix:
        raise UsageError(f"--output={output}: the name must end in {form.suffix} for --format={name}; change it")
    if not form.suffix and output.suffix in _file_suffixes():
        raise UsageError(f"--output={output}: --format={name} writes a folder; name it without {output.suffix}")
    if os.path.lexists(output):
        raise UsageError(f"--output={output}: exists already; name a new {'file' if form.suffix else 'folder'}")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"--output={output}: no folder {output.parent}; create it")
    if form.package is not None:
        check_extra(f"--format={name}", form.package, name, otherwise=f"choose {_others(name)}")


def write_export(name: str, output: Path, model: TrainedModel) -> None:
    """Write a model in a format to a new path, whole or not at all.

    Raises:
      MachineError: it cannot be written.
      UsageError: as `check_export`, or the format has no form of this network.
    """
    check_export(name, output)
    FORMATS[name].write(output, model)


def _file_suffixes() -> Iterable[str]:
    return (*(form.suffix for form in FORMATS.values() if form.suffix), ".safetensors")


def _others(name: str) -> str:
    others = [other for other, form in FORMATS.items() if form.package is None and other != name]
    return " or ".join(others)
