"""How many images that are no cells a trained model refuses, and how many cells.

    python benchmarks/refusals.py --model=runs/pbc/model.safetensors --output=refusals.json

Each drawer of `unknown_images.py` gives `--count` images. None of them took part in choosing a threshold. With
`--workdir`, cells of its val are refused as well: all of them, and those of one half at thresholds from the other half
(`--splits` random halves), which is what to expect of further cells. The same val cells are then made brighter, darker,
blurred and so on: what changes little should not be refused.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image
from scipy.ndimage import gaussian_filter
from unknown_images import KINDS, draw_images

from bloodcell_jax.data.dataset import Dataset
from bloodcell_jax.data.loading import load_data
from bloodcell_jax.data.synthetic import draw_cells
from bloodcell_jax.evaluate.answers import Answers
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.out_of_distribution import ood_score, scaled_by_val
from bloodcell_jax.run.environment import describe_machine
from bloodcell_jax.weights.calibration import OOD_SCORES, Calibration

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "a finished run, whose val cells are used too")
flags.DEFINE_string("model", None, "a run's model.safetensors, in place of its folder")
flags.DEFINE_integer("count", 250, "images of each drawer", lower_bound=1)
flags.DEFINE_integer("splits", 100, "random halves of val", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write")

Change = Callable[[np.ndarray], np.ndarray]


def _brighter(levels: float) -> Change:
    return lambda images: images + levels


def _zoomed(images: np.ndarray) -> np.ndarray:
    margin, size = images.shape[1] // 12, images.shape[1]
    inner = images[:, margin:-margin, margin:-margin].astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), 3)) for image in inner])


def _saturated(images: np.ndarray) -> np.ndarray:
    gray = images.mean(axis=3, keepdims=True)
    return gray + 0.8 * (images - gray)


# What leaves a cell a cell.
CHANGES: dict[str, Change] = {
    "turned": lambda images: np.rot90(images, axes=(1, 2)),
    "10 % brighter": _brighter(25.5),
    "10 % darker": _brighter(-25.5),
    "20 % darker": _brighter(-51),
    "0.8 times the contrast": lambda images: 0.8 * images + 0.2 * images.mean(axis=(1, 2, 3), keepdims=True),
    "0.8 times the saturation": _saturated,
    "5 % more red": lambda images: images + np.array([12.75, 0, 0]),
    "blurred, sigma 1": lambda images: gaussian_filter(images, (0, 1, 1, 0)),
    "noise, sigma 5 %": lambda images: images + 12.75 * np.random.default_rng(0).normal(size=images.shape),
    "zoomed by 1.2": _zoomed,
}


def refused_by(answers: Answers) -> dict[str, float]:
    """Return the share of images that is refused, by all scores together and by each alone at 1 % of val."""
    assert answers.known is not None
    assert answers.scores is not None
    alone = (answers.scores > 1).mean(axis=0).tolist()
    return {"all": float((~answers.known).mean())} | dict(zip(OOD_SCORES, alone, strict=True))


def refused_halves(scores: np.ndarray, calibration: Calibration) -> list[float]:
    """Return the share of one half of val that thresholds of the other half refuse, for each random cut."""
    shares = []
    for seed in range(FLAGS.splits):
        order = np.random.default_rng(seed).permutation(len(scores))
        one, other = scores[order[: len(order) // 2]], scores[order[len(order) // 2 :]]
        half = scaled_by_val(calibration.reference, one)
        shares.append(float((ood_score((other - half.center) / half.scale, half) > 1).mean()))
    return shares


def on_val(classifier: Classifier, dataset: Dataset, calibration: Calibration) -> dict:
    """Return what is refused of val: as it is, of its halves, and of its cells after each change."""
    val = classifier.run.read_splits()["val"]
    answers = classifier.answer_examples(dataset.images, val)
    assert answers.scores is not None
    halves = refused_halves(answers.scores, calibration)
    images = np.asarray(dataset.images[val], np.float32)
    found: dict = {"n": len(val), "as it is": refused_by(answers)}
    found["the other half"] = {"mean": float(np.mean(halves)), "worst": max(halves), "splits": len(halves)}
    for name, change in CHANGES.items():
        changed = np.clip(np.rint(change(images)), 0, 255).astype(np.uint8)
        again = classifier.answer_examples(changed, np.arange(len(changed)))
        right = again.probabilities.argmax(axis=1) == dataset.labels[val]
        found[name] = refused_by(again) | {"accuracy": float(right.mean())}
        print(f"val, {name}: {found[name]}", flush=True)
    return found


def main(_: list[str]) -> None:
    """Measure, print and write."""
    workdir = FLAGS.workdir
    classifier = Classifier.from_workdir(workdir) if workdir else Classifier.from_file(FLAGS.model)
    calibration = classifier.calibration
    if calibration is None:
        raise SystemExit("the model is not calibrated")
    size, results = classifier.config.data.image_size, {"environment": describe_machine(), "count": FLAGS.count}
    drawers = {kind: {drawer.__name__: drawer for drawer in drawers} for kind, drawers in KINDS.items()}
    for kind, named in drawers.items():
        answers = {
            name: classifier.answer_examples(draw_images(drawer, FLAGS.count, size), np.arange(FLAGS.count))
            for name, drawer in named.items()
        }
        shares = {name: refused_by(found) for name, found in answers.items()}
        mean = {score: float(np.mean([share[score] for share in shares.values()])) for score in ("all", *OOD_SCORES)}
        results[kind] = {"mean": mean, "drawers": shares}
        print(f"{kind}: {mean}; the least refused {min(shares, key=lambda name: shares[name]['all'])}", flush=True)
    synthetic = classifier.answer_examples(draw_cells(FLAGS.count, size=size)[0], np.arange(FLAGS.count))
    results["synthetic cells"] = refused_by(synthetic)
    print(f"synthetic cells: {results['synthetic cells']}", flush=True)
    if workdir:
        dataset = load_data(replace(classifier.config.data, class_names=classifier.class_names))
        results["val"] = on_val(classifier, dataset, calibration)
        print(f"val: {results['val']['as it is']}; the other half {results['val']['the other half']}", flush=True)
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
