"""What the page and the text of a comparison of runs show: rows of figures, and sentences on pairs."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from bloodcell_jax.evaluate.compare_runs import ComparedRun, Comparison, RunPair
from bloodcell_jax.evaluate.intervals import Interval
from bloodcell_jax.evaluate.metrics import METRICS
from bloodcell_jax.names import full_class_name
from bloodcell_jax.report.rendering import duration_text

# Metrics that are compared; the pages of the runs have the others.
_KEYS = ("accuracy", "f1_macro", "balanced_accuracy", "auc_macro_ovr", "nll", "ece")


class Figure(NamedTuple):
    """A score of a run; the value is None if it has none."""

    value: float | None
    interval: Interval | None
    shown_as: Literal["percent", "decimal"] = "percent"

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        if self.shown_as == "decimal":
            return f"{self.value:.4f}"
        ends = f" ({100 * self.interval[0]:.1f}–{100 * self.interval[1]:.1f})" if self.interval else ""
        return f"{100 * self.value:.1f} %{ends}"


def score_rows(comparison: Comparison) -> list[tuple[str, list[Figure]]]:
    """Return the title of each metric with its figure in each run."""
    by_key = {metric.key: metric for metric in METRICS}
    return [
        (
            by_key[key].title,
            [
                Figure(_number(run.scores.get(key)), run.scores.get(f"{key}_ci95"), by_key[key].shown_as)
                for run in comparison.runs
            ],
        )
        for key in _KEYS
    ]


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def sensitivity_rows(comparison: Comparison) -> list[tuple[str, list[Figure]]]:
    """Return the full name of each class with its sensitivity in each run."""
    return [
        (full_class_name(name), [_sensitivity(run.scores["per_class"].get(name)) for run in comparison.runs])
        for name in comparison.class_names
    ]


def _sensitivity(of_class: Mapping[str, Any] | None) -> Figure:
    if of_class is None or not of_class["support"]:
        return Figure(None, None)
    return Figure(of_class["recall"], of_class.get("recall_ci95"))


def training_rows(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Return what was trained, how long and on what, in each run."""
    columns = [_training(run) for run in comparison.runs]
    return [(title, [column[title] for column in columns]) for title in columns[0]]


def _training(run: ComparedRun) -> dict[str, str]:
    environment = run.environment
    data, model = environment.get("data", {}), environment.get("model", {})
    return {
        "Images judged": _count(run.scores["n"]),
        "Checkpoint, step": _count(run.scores.get("step")),
        "Images of train": _count(data.get("splits", {}).get("train", {}).get("count")),
        "Parameters": _count(model.get("parameters")),
        "Steps": _count(environment.get("steps_trained", environment.get("steps"))),
        "Training time": duration_text(environment.get("seconds_trained")),
        "Devices": ", ".join(environment.get("devices", ())) or "–",
    }


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def pair_sentences(pair: RunPair, first: str) -> list[str]:
    """Return what is to be said of a run that is compared with the first one."""
    name, result = pair.run.name, pair.result
    if result is None:
        return [f"{name} against {first}: no paired comparison. Reason: {pair.note}."]
    on = f"the same {result.n:,} images" + (f" of {result.n_groups:,} groups" if result.n_groups else "")
    if result.interval is None:
        sure = "no interval: one group alone"
    else:
        sure = f"95 % interval {100 * result.interval[0]:+.2f} to {100 * result.interval[1]:+.2f}"
    if result.p_value is None:
        test = "No McNemar's test: images of one group are not independent."
    else:
        shown = "< 0.001" if result.p_value < 0.001 else f"= {result.p_value:.3f}"
        test = f"McNemar's exact test: p {shown}."
    sentences = [
        f"{name} against {first}, on {on}: accuracy {100 * result.difference:+.2f} points ({sure}).",
        f"{result.only_second:,} images are right in {name} alone, and {result.only_first:,} in {first} alone. {test}",
    ]
    if not result.only_first and not result.only_second:
        most = 100 * (1 - 0.05 ** (1 / (result.n_groups or result.n)))
        sentences.append(
            f"No image tells the two apart, so the interval is too narrow: they may still differ by {most:.1f} points "
            "(the exact form of the rule of three, 95 %)."
        )
    return sentences + ([pair.note] if pair.note else [])


def split_note(split: str) -> str | None:
    """Return what is to be known of the split that is compared; None: nothing."""
    if split != "val":
        return None
    return "The best checkpoint of each run was chosen on val, so scores on val are optimistic."
