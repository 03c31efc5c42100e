"""The verb `predict`."""

from absl import flags

from bloodcell_jax.cli.model_flags import define_model, load_classifier
from bloodcell_jax.cli.verb import Verb, required_path, value_of
from bloodcell_jax.errors import UsageError


def _define_predict(values: flags.FlagValues) -> None:
    define_model(values)
    flags.DEFINE_multi_string(
        "input", [], "an image, folder, zip or glob pattern; may be given several times", flag_values=values
    )
    flags.DEFINE_string("output", None, "the CSV file to write", flag_values=values)
    flags.DEFINE_bool(
        "strict",
        False,
        "end with exit code 3 if any image cannot be read, or has a suffix that is not read",
        flag_values=values,
    )


def _predict(values: flags.FlagValues) -> None:
    from bloodcell_jax.evaluate.predict_files import predict_files

    inputs, output = value_of(values, "input"), required_path(values, "output")
    if not inputs:
        raise UsageError("--input: missing; give an image, folder, zip or glob pattern")
    count = predict_files(lambda: load_classifier(values), inputs, output, strict=value_of(values, "strict"))
    print(f"{output}: {count} images")


PREDICT = Verb(
    "classify images into a CSV file",
    """
  predict --workdir=runs/first --input=slides/ --output=cells.csv
  predict --model=model.safetensors --input='new/*.png' --input=more.zip --output=cells.csv""",
    _define_predict,
    _predict,
)
