"""The verb `predict`."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from bloodcell_jax.cli.data_flags import check_no_column
from bloodcell_jax.cli.model_flags import define_model, load_classifier, model_files, model_words
from bloodcell_jax.cli.verb import Verb, define_raw_names, result_path, say, value_of
from bloodcell_jax.devices.process_end import ending_on_sigterm
from bloodcell_jax.errors import UsageError

if TYPE_CHECKING:
    from bloodcell_jax.evaluate.predict_files import FilePredictions
    from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs

# A cell on the review page takes 50 kB, and an hour has room for a few hundred judgments.
_MOST_REVIEWED = 500


def _define_predict(values: flags.FlagValues) -> None:
    define_model(values)
    flags.DEFINE_multi_string(
        "input", [], "an image, folder, zip or glob pattern; may be given several times", flag_values=values
    )
    flags.DEFINE_string(
        "output",
        None,
        "the file for the rows: JSON lines if it ends in .jsonl, otherwise CSV; - is standard output; devices and "
        "pipes are written to as well",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "top",
        1,
        "the number of likeliest classes with columns of their own; --top=3 adds second, second_confidence, third, "
        "third_confidence",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "page", None, "a web page to write: the count of each class, and images of each", flag_values=values
    )
    flags.DEFINE_integer(
        "review",
        0,
        "write a page of so many cells, the least certain and least known ones, where a person corrects them; it is "
        "named after --output (cells.review.html), and saves a manifest for train, evaluate and audit",
        lower_bound=0,
        upper_bound=_MOST_REVIEWED,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "strict",
        False,
        "end with exit code 3 if any image cannot be read, or has a suffix that is not read",
        flag_values=values,
    )
    define_raw_names(values)


def _predict(values: flags.FlagValues) -> dict[str, Any]:
    from bloodcell_jax.evaluate.predict_files import predict_files
    from bloodcell_jax.evaluate.prediction_outputs import PredictionOutputs
    from bloodcell_jax.run.watch.progress import show_pass
    from bloodcell_jax.workdir.output_files import is_stdout

    inputs, page = value_of(values, "input"), value_of(values, "page")
    page = Path(os.path.expanduser(page)) if page else None
    outputs = PredictionOutputs(result_path(values, "output"), page, value_of(values, "review"))
    if not inputs:
        raise UsageError("--input: missing; give an image, folder, zip or glob pattern")
    check_no_column(values)
    outputs.check_unlike(model_files(values))
    with ending_on_sigterm(), show_pass("predicting") as show:
        predictions = predict_files(
            lambda: load_classifier(values),
            inputs,
            outputs,
            strict=value_of(values, "strict"),
            raw_names=value_of(values, "raw_names"),
            top=value_of(values, "top"),
            show=show,
        )
    to_stderr = any(is_stdout(path) for path in outputs.by_flag.values())
    for line in _results(values, outputs, predictions):
        say(line, to_stderr=to_stderr)
    return {
        "output": str(outputs.rows),
        "page": None if outputs.page is None else str(outputs.page),
        "review": None if outputs.review is None else str(outputs.review),
        "images": predictions.count,
        "unreadable": predictions.unreadable,
        **predictions.differential.to_dict(),
    }


def _results(values: flags.FlagValues, outputs: "PredictionOutputs", predictions: "FilePredictions") -> Iterator[str]:
    """Yield the differential count, and what was written; the pages are written here."""
    from bloodcell_jax.report.differential_text import differential_text
    from bloodcell_jax.report.gallery_page import write_gallery_page
    from bloodcell_jax.report.review_page import write_review_page

    yield differential_text(predictions.differential, shutil.get_terminal_size().columns)
    if outputs.page is not None:
        write_gallery_page(outputs.page, predictions, value_of(values, "input"), outputs.rows)
        yield f"page: {outputs.page}"
    if outputs.review is not None:
        root = write_review_page(outputs.review, predictions, model_words(values))
        count = len(predictions.review)
        yield f"review: {outputs.review} has {count} cells to look at first; its corrections name files below {root}"
    yield f"{outputs.rows}: {predictions.count} images"


PREDICT = Verb(
    "classify images into a CSV file or JSON lines, and count them by class",
    """
  predict --model=pbc_cnn --input=slides/ --output=cells.csv
  predict --model=model.safetensors --input='new/*.png' --input=more.zip --output=cells.jsonl
  predict --workdir=runs/first --input=slides/ --output=cells.csv --top=3 --page=cells.html --review=40
  predict --workdir=runs/first --input=slides/ --output=- | head""",
    _define_predict,
    _predict,
    has_json=True,
)
