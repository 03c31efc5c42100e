"""Whether Grad-CAM and occlusion name the same places of real cells, whether these are of the cell, and what both cost.

    python benchmarks/explanations.py --workdir=runs/pbc --count=200 --output=explanations.json

Of `--count` images of val that the model gets right, drawn at random. A cell lies in the middle of its image. So the
share of maps whose highest value lies in the middle square of half the side says how often a map names the cell. The
cost is processor time, so that other work on the machine counts little: medians of `--trials`, compilation left out.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from absl import app, flags

from bloodcell_jax.data.loading import load_data
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.explain.agreement import rank_agreement
from bloodcell_jax.evaluate.explain.explained_images import explain_images
from bloodcell_jax.run.environment import describe_machine

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "a finished run", required=True)
flags.DEFINE_integer("count", 200, "images of val", lower_bound=2)
flags.DEFINE_integer("trials", 5, "of the cost", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file to write")


def share_in_the_middle(maps: np.ndarray) -> float:
    """Return how many of the maps [n, h, w] have their highest value in the middle square of half the side."""
    height, width = maps.shape[1:]
    y, x = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), (height, width))
    inside = [np.abs((place + 0.5) / size - 0.5) < 0.25 for place, size in ((y, height), (x, width))]
    return float(np.mean(inside[0] & inside[1]))


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of some work, the median of the trials after a first one."""
    seconds = []
    for _ in range(1 + FLAGS.trials):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds[1:]))


def main(_: list[str]) -> None:
    """Measure, print and write."""
    classifier = Classifier.from_workdir(FLAGS.workdir)
    dataset = load_data(replace(classifier.config.data, class_names=classifier.class_names))
    val = classifier.run.read_splits()["val"]
    answers = classifier.predict_examples(dataset.images, val).argmax(axis=1)
    right = np.random.default_rng(0).permutation(val[answers == dataset.labels[val]])[: FLAGS.count]
    explain = partial(explain_images, classifier.outputs_and_grad_cam, dataset.images, batch_size=classifier.batch_size)
    explained = explain(right)
    pairs = list(zip(explained.grad_cam, explained.occlusion, strict=True))
    found = [value for value in (rank_agreement(*pair) for pair in pairs) if value is not None]
    others = [rank_agreement(pairs[i][0], pairs[i - 1][1]) for i in range(len(pairs))]
    results = {
        "environment": describe_machine(),
        "model": classifier.config.model.variant,
        "positions": list(explained.grad_cam.shape[1:]),
        "n": len(right),
        "rank agreement": {str(q): float(np.quantile(found, q)) for q in (0.25, 0.5, 0.75)},
        "median with the occlusion of another image": float(np.median([x for x in others if x is not None])),
        "highest in the middle": {
            "grad_cam": share_in_the_middle(explained.grad_cam),
            "occlusion": share_in_the_middle(explained.occlusion),
        },
        "processor seconds": {
            f"answers to {len(val)} images": processor_seconds(lambda: classifier.answer_examples(dataset.images, val)),
            "both maps of 20 images": processor_seconds(lambda: explain(right[:20])),
        },
    }
    print(json.dumps({key: value for key, value in results.items() if key != "environment"}, indent=2))
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
