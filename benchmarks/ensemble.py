"""How well runs of one configuration with other seeds answer, each alone and all together.

    python benchmarks/ensemble.py --workdirs=runs/seed_0,runs/seed_1 --suites=blood96-c,chains --output=ensemble.json

All runs have the val split of the first. Together they answer the mean of their probabilities (`bc.Ensemble`). The
images of a suite are those of `evaluate --suite`. `--models` adds models that come with the library.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import app, flags

from bloodcell_jax.data.loading import load_data
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.evaluate.metrics import quick_metrics
from bloodcell_jax.evaluate.robustness.corrupted import changes_of
from bloodcell_jax.evaluate.robustness.scores import suite_scores
from bloodcell_jax.evaluate.robustness.suites import Suite, suite_of
from bloodcell_jax.run.environment import describe_machine

FLAGS = flags.FLAGS
flags.DEFINE_list("workdirs", None, "folders of finished runs on the same data", required=True)
flags.DEFINE_list("models", [], "models by name, such as pbc_cnn")
flags.DEFINE_list("suites", ["blood96-c", "chains"], "suites of corruptions")
flags.DEFINE_string("output", None, "JSON file to write")


def answers_of(members: dict[str, Classifier], images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the probabilities [n, classes] of each member, and their mean as `together`."""
    each = {name: member.predict_examples(images, np.arange(len(images))) for name, member in members.items()}
    return each | {"together": np.mean(list(each.values()), axis=0)}


def scores_of(suite: Suite, members: dict[str, Classifier], images: np.ndarray, labels: np.ndarray) -> dict:
    """Return the scores of a suite for each member and for all together."""
    clean = {name: found.argmax(axis=1) for name, found in answers_of(members, images).items()}
    passes = {name: [] for name in clean}
    whole, places = jnp.asarray(images), jnp.arange(len(images))
    for corruption, severity, change in changes_of(suite, next(iter(members.values())).parallel):
        for name, found in answers_of(members, np.asarray(change(whole, places))).items():
            passes[name].append(found.argmax(axis=1))
        print(f"{suite.name}: {corruption.name} {severity}", flush=True)
    num_classes = len(next(iter(members.values())).class_names)
    return {
        name: suite_scores(suite, labels, clean[name], np.stack(passes[name], axis=1), num_classes) for name in clean
    }


def main(_: list[str]) -> None:
    """Measure, print and write."""
    members = {name: Classifier.from_workdir(name) for name in FLAGS.workdirs}
    first = next(iter(members.values()))
    members |= {name: Classifier.from_pretrained(name) for name in FLAGS.models}
    dataset = load_data(replace(first.config.data, class_names=first.class_names))
    val = first.run.read_splits()["val"]
    images, labels = np.asarray(dataset.images[val]), dataset.labels[val]
    results: dict = {"environment": describe_machine(), "n": len(val)}
    results["val"] = {name: quick_metrics(labels, found) for name, found in answers_of(members, images).items()}
    for name in FLAGS.suites:
        results[name] = scores_of(suite_of(name), members, images, labels)
    for about, of_members in results.items():
        if isinstance(of_members, dict) and "together" in of_members:
            for name, scores in of_members.items():
                print(about, name, scores.get("mean", scores)["balanced_accuracy"])
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
