"""The verb `predict`."""

from absl import flags

from bloodcell_jax.cli.model_flags import define_model, load_classifier, model_files
from bloodcell_jax.cli.verb import Verb, define_raw_names, required_path, say, value_of
from bloodcell_jax.errors import UsageError


def _define_predict(values: flags.FlagValues) -> None:
    define_model(values)
    flags.DEFINE_multi_string(
        "input", [], "an image, folder, zip or glob pattern; may be given several times", flag_values=values
    )
    flags.DEFINE_string(
        "output", None, "the CSV file to write; /dev/stdout and pipes are written to as well", flag_values=values
    )
    flags.DEFINE_bool(
        "strict",
        False,
        "end with exit code 3 if any image cannot be read, or has a suffix that is not read",
        flag_values=values,
    )
    define_raw_names(values)


def _predict(values: flags.FlagValues) -> None:
    from bloodcell_jax.evaluate.predict_files import predict_files
    from bloodcell_jax.workdir.output_files import check_unlike, is_stdout

    inputs, output = value_of(values, "input"), required_path(values, "output")
    if not inputs:
        raise UsageError("--input: missing; give an image, folder, zip or glob pattern")
    check_unlike(output, model_files(values))
    strict, raw_names = value_of(values, "strict"), value_of(values, "raw_names")
    count = predict_files(lambda: load_classifier(values), inputs, output, strict=strict, raw_names=raw_names)
    say(f"{output}: {count} images", to_stderr=is_stdout(output))


PREDICT = Verb(
    "classify images into a CSV file",
    """
  predict --workdir=runs/first --input=slides/ --output=cells.csv
  predict --model=model.safetensors --input='new/*.png' --input=more.zip --output=cells.csv""",
    _define_predict,
    _predict,
)
