"""What the numbers of the table show, in sentences. Each sentence is computed, and none says more than its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

from bloodcell_jax.table1.results import CONDITIONS


def findings(runs: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sentences.

    Args:
      runs: those of `table1.json`; runs without scores are left out.
      comparisons: as `comparisons_of` returns them.
    """
    scored = [run for run in runs if run["clean"] is not None]
    if not scored:
        return ["No run is finished yet."]
    sentences = [_best(scored, on) for on in CONDITIONS] + [_spread(scored)]
    return sentences + [_answer(each) for each in comparisons]


def _best(runs: Sequence[Mapping[str, Any]], on: str) -> str:
    best = max(runs, key=lambda run: run[on]["accuracy"])
    low, high = best[on]["accuracy_ci95"]
    text = (
        f"On {on} test images, {_named(best)} has the highest accuracy, {_percent(best[on]['accuracy'])} "
        f"({100 * low:.1f} to {100 * high:.1f})"
    )
    others = [_named(run) for run in runs if run is not best and run[on]["accuracy_ci95"][1] >= low]
    return f"{text}; the intervals of {'; '.join(others)} overlap with its own." if others else f"{text}."


def _spread(runs: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for on in CONDITIONS:
        values = [run[on]["accuracy"] for run in runs]
        parts.append(f"{_percent(min(values))} to {_percent(max(values))} on {on} images")
    falls = [run["clean"]["accuracy"] - run["corrupted"]["accuracy"] for run in runs]
    of_runs = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return (
        f"The accuracies of {of_runs} go from {' and from '.join(parts)}; from clean to corrupted images they fall by "
        f"{100 * sum(falls) / len(falls):.1f} points on average."
    )


def _answer(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['about']}: {', '.join(_effect(comparison[on], on) for on in CONDITIONS)}."


def _effect(compared: Mapping[str, Any], on: str) -> str:
    points, (low, high) = 100 * compared["difference"], compared["ci95"]
    return f"{compared['verdict']} on {on} images ({points:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f})"


def _named(run: Mapping[str, Any]) -> str:
    return f'"{run["title"]}" on {run["data"]} data'


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
