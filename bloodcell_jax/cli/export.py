"""The verb `export`."""

from absl import flags

from bloodcell_jax.cli.model_flags import define_checkpoint, load_checkpoint
from bloodcell_jax.cli.verb import Verb, required, required_path, say


def _define_export(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "format",
        None,
        "stablehlo: a zip with a program for JAX on CPUs, GPUs and TPUs; onnx: a file for ONNX runtimes; safetensors: "
        "a folder for this library; timm: a folder for timm and PyTorch",
        flag_values=values,
    )
    define_checkpoint(values)
    flags.DEFINE_string(
        "output", None, "the new .zip (stablehlo), .onnx file (onnx) or folder (safetensors, timm)", flag_values=values
    )


def _export(values: flags.FlagValues) -> None:
    from bloodcell_jax.export.formats import check_export, write_export
    from bloodcell_jax.export.trained_model import trained_model

    name, output = required(values, "format"), required_path(values, "output")
    check_export(name, output)
    model = trained_model(load_checkpoint(values))
    write_export(name, output, model)
    say(
        f"{output}: {model.config.model.variant} of step {model.record.step:,}, {len(model.class_names)} classes, "
        f"images of {model.config.data.image_size} px, temperature {model.temperature:g}, license "
        f"{model.info.licence or 'not known'}"
    )


EXPORT = Verb(
    "write a trained model for other programs: StableHLO, ONNX, safetensors, timm",
    """
  export --format=onnx --workdir=runs/first --output=cells.onnx
  export --format=stablehlo --model=model.safetensors --output=cells.zip
  export --format=timm --workdir=runs/first --output=cells_for_timm
  export --format=safetensors --workdir=runs/first --checkpoint=last --output=cells_last""",
    _define_export,
    _export,
)
