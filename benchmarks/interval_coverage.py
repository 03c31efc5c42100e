"""How often the 95 % intervals over groups hold the true score, on simulated patients.

    python benchmarks/interval_coverage.py --trials=1000

Each trial draws patients. A patient has a number of cells (log-normal, about 25), a mix of four classes, and an
accuracy (Beta, of the given mean and concentration; the lower the concentration, the more patients differ). The
interval should hold the score of endless patients. The table says in percent how often it does, for accuracy and macro
F1. Beside it stand intervals that resample cells, which is what one gets without groups.
"""

import numpy as np
from absl import app, flags

from bloodcell_jax.evaluate.confusion import accuracy, confusion_matrix, precision_recall_f1
from bloodcell_jax.evaluate.intervals import ci95_by_examples, ci95_by_groups

FLAGS = flags.FLAGS
flags.DEFINE_integer("trials", 1000, "simulated test sets of each row", lower_bound=1)

CLASSES = 4
MIX = 8 * np.array([0.5, 0.3, 0.15, 0.05])
# Intervals over cells take ten times as long and miss by so much that fewer trials show it.
CELLS_EVERY = 10
# (mean, concentration) of the patients' accuracies.
WORLDS = ((0.85, 20.0), (0.9, 9.0), (0.95, 10.0), (0.98, 30.0))


def draw_patients(rng: np.random.Generator, count: int, mean: float, concentration: float):
    """Return labels, predictions and patients of the cells of `count` patients, integers [n] each."""
    sizes = 1 + rng.poisson(rng.lognormal(3, 0.6, count))
    patients = np.repeat(np.arange(count), sizes)
    mixes = rng.dirichlet(MIX, count).cumsum(axis=1)
    labels = (rng.random(len(patients))[:, None] > mixes[patients, :-1]).sum(axis=1)
    accuracies = rng.beta(mean * concentration, (1 - mean) * concentration, count)
    right = rng.random(len(patients)) < accuracies[patients]
    wrong = (labels + rng.integers(1, CLASSES, len(labels))) % CLASSES
    return labels, np.where(right, labels, wrong), patients


def coverage(count: int, mean: float, concentration: float, trials: int) -> np.ndarray:
    """Return the share of trials whose interval holds the true score, [by groups or cells, accuracy or macro F1]."""
    rng = np.random.default_rng([count, round(1000 * mean)])
    endless = confusion_matrix(*draw_patients(rng, 50_000, mean, concentration)[:2], CLASSES)
    truth = np.array([accuracy(endless), precision_recall_f1(endless)[2].mean()])
    held = np.zeros((2, 2))
    for trial in range(trials):
        labels, predicted, patients = draw_patients(rng, count, mean, concentration)
        confusion = confusion_matrix(labels, predicted, CLASSES)
        intervals = [ci95_by_groups(labels, predicted, patients, CLASSES, trial)]
        if trial % CELLS_EVERY == 0:
            intervals.append(ci95_by_examples(confusion, trial))
        for row, (low, high) in enumerate(np.array(pair).T for pair in intervals):
            held[row] += (low <= truth) & (truth <= high)
    return held / [[trials], [-(-trials // CELLS_EVERY)]]


def main(_: list[str]) -> None:
    """Print a row for each world and number of patients."""
    print("accuracy  concentration  patients | groups: accuracy  macro F1 | cells: accuracy  macro F1")
    for mean, concentration in WORLDS:
        for count in (10, 25, 50, 100):
            held = 100 * coverage(count, mean, concentration, FLAGS.trials)
            print(f"{mean:8}  {concentration:13}  {count:8} | {held[0, 0]:16.1f}  {held[0, 1]:8.1f} ", end="")
            print(f"| {held[1, 0]:15.1f}  {held[1, 1]:8.1f}", flush=True)


if __name__ == "__main__":
    app.run(main)
