"""A model that comes with the library, made from a run, and what rounding it to half precision costs.

    python benchmarks/shipped_model.py --workdir=runs/pbc --output=bloodcell_jax/pretrained/pbc_atto.safetensors \\
        --results=benchmarks/results/pbc-atto.json

The parameters of the run's best checkpoint are rounded to float16. Val then calibrates the rounded network anew:
temperature, confidence to keep, and what it knows, with `--features` training images in place of the 2,000 that a run
keeps, so that the file has at most 8 MB. The file says `--origin` in place of the run's data source, which is a path of
one machine, and `--view` in place of what the run saw of its files: they were cut from PBC's files before the run, and
without this, `predict` would warn of PBC's own files. The same run on the same machine gives the same bytes.

Then val is answered twice, by the run and by the file that was written. The results hold both scores, and the section
between the model's marks in the card, `README.md` beside it, is written anew from them. The suites of corruptions in it
are those that `evaluate --suite` left in the workdir: of the run, before rounding.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.geometry import View
from bloodcell_jax.data.sampling import sampler_of
from bloodcell_jax.devices.parallel import create_parallel
from bloodcell_jax.errors import UsageError
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.evaluator import Evaluator
from bloodcell_jax.evaluate.examples import load_examples
from bloodcell_jax.evaluate.fit_calibration import fit_calibration
from bloodcell_jax.evaluate.metrics import example_scores, quick_metrics
from bloodcell_jax.evaluate.out_of_distribution import reference_of
from bloodcell_jax.models.network import Params
from bloodcell_jax.models.registry import build_model
from bloodcell_jax.run.environment import describe_machine
from bloodcell_jax.run.finished_model import model_info, model_record, start_info
from bloodcell_jax.weights.model_file import write_model_file

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "a finished run", required=True)
flags.DEFINE_string("output", None, "the .safetensors file to write", required=True)
flags.DEFINE_string("results", None, "JSON file to write", required=True)
flags.DEFINE_integer("features", 1600, "training images whose features tell what the model knows", lower_bound=1)
flags.DEFINE_string(
    "origin",
    "trained on the PBC dataset (A. Acevedo et al., Data in Brief 30 (2020) 105474, CC BY 4.0)",
    "what the file says of where its weights come from",
)
flags.DEFINE_list("view", ["360", "200"], "shorter side of the published files, and of the square that is looked at")
flags.DEFINE_string("licence", "CC-BY-4.0", "license of the weights")

MOST_BYTES = 8_000_000
BEGIN, END = "<!-- scores of {}: written by benchmarks/shipped_model.py -->", "<!-- end of scores of {} -->"
# What the card shows of both, and what the results keep besides.
_SHOWN = ("accuracy", "balanced_accuracy", "f1_macro", "nll", "ece")
_KEPT = (*_SHOWN, "accuracy_ci95", "f1_macro_ci95", "per_class", "confusion_matrix")


def write_rounded(path: Path, classifier: Classifier, dataset: Dataset) -> None:
    """Write the model of a run in half precision, calibrated anew.

    Raises:
      UsageError: the file is larger than it may be.
    """
    config, run, splits = classifier.config, classifier.run, classifier.run.read_splits()
    half = jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float16), classifier.params)
    rounded = jax.tree.map(lambda leaf: leaf.astype(np.float32), half)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rounded)):
        raise UsageError(f"{run}: a parameter is too large for float16")
    known = reference_of(
        sampler_of(config, dataset, splits["train"]), dataset.labels, seed=config.seed, size=FLAGS.features
    )
    parallel = create_parallel("jit", jax.device_count())
    form: dict[str, Any] = {"mean": config.model.mean, "std": config.model.std, "parallel": parallel}
    evaluator = Evaluator(build_model(config.model), batch_size=config.evaluate.batch_size, **form)
    params: Params = jax.device_put(rounded, parallel.replicated)
    val, labels = splits["val"], dataset.labels[splits["val"]]
    calibration = fit_calibration(
        evaluator.outputs(params, dataset.images, known), evaluator.outputs(params, dataset.images, val), labels
    )
    metrics = quick_metrics(labels, evaluator.predict(params, dataset.images, val))
    logged = {f"val/{name}": value for name, value in metrics.items()}
    view = View(*map(int, FLAGS.view))._asdict()
    record = model_record(run, config, step=classifier.step, metrics=logged, calibration=calibration)
    info = replace(model_info(config, start_info(run)), source=FLAGS.origin, licence=FLAGS.licence)
    write_model_file(path, half, replace(record, view=view), info)
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(
            f"--features={FLAGS.features}: {path.stat().st_size:,} bytes, at most {MOST_BYTES:,}; keep fewer"
        )


def scores_of(dataset: Dataset, indices: np.ndarray, answers: Answers) -> dict[str, Any]:
    """Return the scores of val, and the share of it that the model does not know."""
    assert answers.known is not None
    scores = example_scores(dataset, indices, answers.probabilities)
    return {"unknown_share": float((~answers.known).mean())} | {name: scores[name] for name in _KEPT}


def compare(before: Classifier, after: Classifier, dataset: Dataset) -> dict[str, Any]:
    """Return what rounding costs on val, answered by the run and by the file."""
    val = before.run.read_splits()["val"]
    answers = [classifier.answer_examples(dataset.images, val) for classifier in (before, after)]
    first, second = (answer.probabilities for answer in answers)
    return {
        "n": len(val),
        "changed_answers": int((first.argmax(axis=1) != second.argmax(axis=1)).sum()),
        "largest_change_of_a_probability": float(np.abs(first - second).max()),
        "run": scores_of(dataset, val, answers[0]),
        "file": scores_of(dataset, val, answers[1]),
    }


def suites_of(classifier: Classifier) -> dict[str, Any]:
    """Return the scores on corrupted images of val that `evaluate --suite` left in the workdir."""
    found = {
        path.stem: json.loads(path.read_text("utf-8")) for path in classifier.run.evaluation("val").path.glob("*.json")
    }
    return {name: content["mean"] for name, content in sorted(found.items()) if "suite" in content}


def section(results: dict[str, Any]) -> str:
    """Return the scores as Markdown, for the card."""
    val, (file, run) = results["val"], (results["val"][name] for name in ("file", "run"))
    low, high = file["accuracy_ci95"]
    lines = [
        f"On {val['n']:,} cells of val. The accuracy has a 95 % interval from {low:.3f} to {high:.3f}.",
        f"Answers that rounding to float16 changed: {val['changed_answers']}. No probability changed by more than "
        f"{val['largest_change_of_a_probability']:.4f}.",
        "",
        "| | this file (float16) | the run (float32) |",
        "|---|---:|---:|",
        *(f"| {name.replace('_', ' ')} | {file[name]:.4f} | {run[name]:.4f} |" for name in _SHOWN),
        f"| cells called unknown | {100 * file['unknown_share']:.1f} % | {100 * run['unknown_share']:.1f} % |",
    ]
    suites = results["suites"].items()
    lines += [f"| balanced accuracy on `{name}` | | {mean['balanced_accuracy']:.4f} |" for name, mean in suites]
    lines += ["", "| class | cells | sensitivity | precision | taken most often for |", "|---|---:|---:|---:|---|"]
    matrix = np.array(file["confusion_matrix"])
    names = list(file["per_class"])
    for row, (name, scores) in enumerate(file["per_class"].items()):
        wrong = matrix[row] * (np.arange(len(names)) != row)
        most = f"{names[wrong.argmax()]} ({wrong.max()})" if wrong.any() else ""
        lines.append(f"| {name} | {scores['support']} | {scores['recall']:.3f} | {scores['precision']:.3f} | {most} |")
    return "\n".join(lines)


def check_marks(card: Path, name: str) -> None:
    """Check that a card has the marks of a model.

    Raises:
      UsageError: it does not have each of them once.
    """
    marks, text = [mark.format(name) for mark in (BEGIN, END)], card.read_text("utf-8")
    if any(text.count(mark) != 1 for mark in marks):
        raise UsageError(f"{card}: give it these two lines once, where the scores shall stand: {' and '.join(marks)}")


def write_section(card: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of a model in the card."""
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = card.read_text("utf-8").split(begin)
    card.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}", "utf-8")


def main(_: list[str]) -> None:
    """Write the model, the results and the section of the card."""
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells of every file that it opens.
    output = Path(FLAGS.output)
    if (card := output.with_name("README.md")).exists():
        check_marks(card, output.stem)
    classifier = Classifier.from_workdir(FLAGS.workdir)
    dataset = load_examples(classifier, None, {})
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / output.name
        write_rounded(written, classifier, dataset)
        results = {
            "environment": describe_machine(),
            "bytes": written.stat().st_size,
            "sha256": hashlib.sha256(written.read_bytes()).hexdigest(),
            "features": FLAGS.features,
            "step": classifier.step,
            "val": compare(classifier, Classifier.from_file(written), dataset),
            "suites": suites_of(classifier),
        }
        shutil.copyfile(written, output)
    Path(FLAGS.results).write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    text = section(results)
    print(text)
    if card.exists():
        write_section(card, output.stem, text)


if __name__ == "__main__":
    app.run(main)
