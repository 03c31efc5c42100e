"""The verb `convert`."""

import os

from absl import flags

from bloodcell_jax.cli.verb import Verb, required, required_path, say, value_of


def _define_convert(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "input",
        None,
        "a checkpoint in any published layout, a published name, or the workdir of a finished run; PATH#NAME takes the "
        "network under NAME if the file holds several (trained beside averaged weights)",
        flag_values=values,
    )
    flags.DEFINE_string("output", None, "the new .safetensors file", flag_values=values)
    flags.DEFINE_string("variant", None, "timm's model name; unset: told from the shapes", flag_values=values)


def _convert(values: flags.FlagValues) -> None:
    from bloodcell_jax.weights import convert

    source, target = required(values, "input"), required_path(values, "output")
    if os.path.isdir(os.path.expanduser(source)):
        from bloodcell_jax.run.finished_model import complete_model

        complete_model(source)
    info = convert(source, target, value_of(values, "variant"))
    classes = "no head" if info.num_classes is None else f"{info.num_classes} classes"
    say(f"{target}: {info.variant}, {classes}, license {info.licence or 'not known'}, from {info.source}")


CONVERT = Verb(
    "any published ConvNeXt checkpoint into this library's safetensors",
    """
  convert --input=convnext_base_22k_1k_224.pth --output=convnext_base.safetensors
  convert --input=convnext_tiny.fb_in22k --output=tiny.safetensors
  convert --input=checkpoint.pth#model --output=trained.safetensors
  convert --input=runs/first --output=first.safetensors""",
    _define_convert,
    _convert,
)
