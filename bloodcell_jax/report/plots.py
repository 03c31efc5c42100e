"""Plots as inline SVG: data in, markup out, without state and files.

Text stays text, and colors are CSS variables of the page (`--ink`, `--rule`, `--series-1`, `--series-2`). So a plot
follows the reader's font and light or dark theme. Plots draw fixed words only: names from the data belong on the page,
which escapes them.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib needs colors that it knows. These stand for the page's variables until the SVG is written.
INK, RULE, SERIES_1, SERIES_2 = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {
    INK: "var(--ink)",
    RULE: "var(--rule)",
    SERIES_1: "var(--series-1)",
    SERIES_2: "var(--series-2)",
}

# More points on one line are invisible at the width of the page and only make the page larger.
MAX_POINTS = 400


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    boundaries: Sequence[float] = (),
    log: bool = False,
) -> str:
    """Draw up to two named series over training steps, as SVG.

    A value that is not finite leaves a gap. A series of more than `MAX_POINTS` points is averaged over neighbors.

    Args:
      series: name -> (steps, values). The first series is a line, the second, sparser one a line with markers.
      boundaries: steps at which a stage begins; they are dashed lines.
      log: use a logarithmic axis; a value that is not positive leaves a gap.
    """
    figure, axes = _axes(width=4.2, height=2.6)
    styles: tuple[dict[str, Any], ...] = ({"color": SERIES_1}, {"color": SERIES_2, "marker": "o", "markersize": 3.5})
    for (name, (steps, values)), style in zip(series.items(), styles, strict=False):
        steps, values = thin(np.asarray(steps, float), np.asarray(values, float))
        drawn = np.isfinite(values) & (values > 0 if log else True)
        axes.plot(steps, np.where(drawn, values, np.nan), label=name, linewidth=1.6, **style)
    for step in boundaries:
        axes.axvline(step, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    if log:
        _logarithmic(axes)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(6, integer=True))
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure)


def losses_over_rates(
    rates: Sequence[float], losses: Sequence[float], averages: Sequence[float], *, chosen: float | None
) -> str:
    """Draw the losses of a range test over its learning rates, as SVG.

    Args:
      rates: rising, [n].
      losses: of single batches, [n].
      averages: their moving average, [n].
      chosen: a dashed line stands at this rate; None: at none.
    """
    figure, axes = _axes(width=5.6, height=3.2)
    axes.plot(rates, losses, "o", color=SERIES_2, markersize=3, alpha=0.6, label="step")
    axes.plot(rates, averages, color=SERIES_1, linewidth=1.6, label="average")
    if chosen is not None:
        axes.axvline(chosen, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    # A loss that diverges would flatten all others.
    low, high = min(losses), min(max(losses), 1.6 * averages[0])
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", ylim=(0.95 * low, 1.02 * high))
    axes.xaxis.set_minor_locator(_ticker().NullLocator())
    axes.yaxis.label.set(color=INK, size=9)
    axes.legend(frameon=False, labelcolor=INK, loc="upper left")
    return _svg(figure)


# The counts of bins of confidence with their mean confidences and accuracies, which are None where a bin is empty.
Bins = Mapping[str, Sequence[Any]]


def reliability_diagram(bins: Bins, before: Bins | None = None) -> str:
    """Draw accuracy over mean confidence, above bars with the counts of the bins, as SVG.

    Args:
      bins: `count`, `confidence` and `accuracy` of each bin.
      before: the same before the temperature; None: there was none.
    """
    figure, (axes, counts) = _stacked_axes(width=4.2, height=4.4)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    if before is not None:
        style = {"marker": "s", "markersize": 4, "markerfacecolor": "none", "linestyle": (0, (2, 2))}
        axes.plot(*_points(before), color=SERIES_2, linewidth=1.2, label="before", **style)
    axes.plot(*_points(bins), color=SERIES_1, marker="o", markersize=4, linewidth=1.6, label="after")
    axes.set(ylim=(-0.02, 1.02), ylabel="accuracy")
    if before is not None:
        axes.legend(frameon=False, labelcolor=INK)
    width = 1 / len(bins["count"])
    middles = (np.arange(len(bins["count"])) + 0.5) * width
    counts.bar(middles, bins["count"], width=0.8 * width, color=SERIES_1)
    for middle, count in zip(middles, bins["count"], strict=True):
        if count:
            counts.annotate(f"{count:,}", (middle, count), ha="center", va="bottom", size=7, rotation=90, color=INK)
    counts.set(xlim=(-0.02, 1.02), ylim=(0, 1.6 * max(1, *bins["count"])), xlabel="confidence", ylabel="images")
    return _svg(figure)


def kept_answers(
    confidence: Sequence[float], coverage: Sequence[float], error: Sequence[float], chosen: float | None
) -> str:
    """Draw the accuracy and the share of the answers that are kept, over the confidence that is asked for, as SVG.

    Args:
      confidence, coverage, error: points of a risk-coverage curve, [points].
      chosen: a dashed line stands at this confidence; None: at none.
    """
    figure, axes = _axes(width=4.2, height=3.2)
    axes.plot(confidence, 1 - np.asarray(error), color=SERIES_1, linewidth=1.6, label="accuracy of those kept")
    axes.plot(confidence, coverage, color=SERIES_2, linewidth=1.6, linestyle=(0, (5, 2)), label="share kept")
    if chosen is not None:
        axes.axvline(chosen, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="least confidence")
    axes.legend(frameon=False, labelcolor=INK, loc="lower left")
    return _svg(figure)


def _points(bins: Bins) -> tuple[list, list]:
    pairs = [pair for pair in zip(bins["confidence"], bins["accuracy"], strict=True) if None not in pair]
    return [confidence for confidence, _ in pairs], [accuracy for _, accuracy in pairs]


def group_accuracies(accuracies: np.ndarray, overall: float) -> str:
    """Draw the accuracy of each group, the lowest first, and that of all examples, as SVG; 0 to 1, [groups]."""
    figure, axes = _axes(width=4.2, height=2.6)
    axes.axhline(overall, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    axes.plot(np.arange(1, len(accuracies) + 1), np.sort(accuracies), "o", color=SERIES_1, markersize=4, alpha=0.7)
    axes.set(ylim=(-0.02, 1.02), xlabel="group", ylabel="accuracy")
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(6, integer=True))
    return _svg(figure)


def differential_counts(labeled: np.ndarray, predicted: np.ndarray) -> str:
    """Draw the share of each class in each group as predicted over the one as labeled, as SVG; 0 to 1, [groups, k]."""
    figure, axes = _axes(width=4.2, height=2.6)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    axes.plot(labeled.ravel(), predicted.ravel(), "o", color=SERIES_1, markersize=3.5, alpha=0.5)
    end = 1.05 * max(labeled.max(), predicted.max())
    axes.set(xlim=(-0.02 * end, end), ylim=(-0.02 * end, end), xlabel="labeled share", ylabel="predicted share")
    return _svg(figure)


def trial_history(numbers: Sequence[int], values: Sequence[float], best: Sequence[float] | np.ndarray) -> str:
    """Draw the value of each trial, and the best one so far, as SVG; all [trials]."""
    figure, axes = _axes(width=4.2, height=2.6)
    axes.plot(numbers, values, "o", color=SERIES_1, markersize=4, alpha=0.7)
    axes.step(numbers, best, where="post", color=SERIES_2, linewidth=1.6)
    axes.set(xlabel="trial", ylabel="value")
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(6, integer=True))
    return _svg(figure)


def values_over_field(settings: Sequence[float], values: Sequence[float], *, log: bool) -> str:
    """Draw the value of each trial over its setting of one field, as SVG; both [trials]."""
    figure, axes = _axes(width=4.2, height=2.6)
    axes.plot(settings, values, "o", color=SERIES_1, markersize=4, alpha=0.7)
    axes.set(xlabel="setting", ylabel="value")
    if all(isinstance(setting, int) for setting in settings):
        axes.xaxis.set_major_locator(_ticker().MaxNLocator(6, integer=True))
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(_ticker().StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(_ticker().NullLocator())
    return _svg(figure)


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average groups of consecutive points, so that at most `MAX_POINTS` are left; both arrays are [n]."""
    size = -(-len(steps) // MAX_POINTS)
    if size <= 1:
        return steps, values
    starts = np.arange(0, len(steps), size)
    counts = np.diff(np.append(starts, len(steps)))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def _axes(width: float, height: float) -> "tuple[Figure, Axes]":
    figure = _figure(width, height)
    return figure, _styled(figure.add_subplot(facecolor="none"))


def _stacked_axes(width: float, height: float) -> "tuple[Figure, list[Axes]]":
    """Return two axes over one another with a common x-axis; the lower one is a third of the upper one."""
    figure = _figure(width, height)
    both = figure.subplots(2, sharex=True, height_ratios=(3, 1), subplot_kw={"facecolor": "none"})
    return figure, [_styled(axes) for axes in both]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="none")


def _styled(axes: "Axes") -> "Axes":
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(color=RULE, labelcolor=INK, labelsize=9, which="both")
    axes.xaxis.label.set(color=INK, size=9)
    axes.yaxis.label.set(color=INK, size=9)
    return axes


def _logarithmic(axes: "Axes") -> None:
    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    low = max(low, high / 1e4)  # Otherwise the last steps of a schedule that ends near 0 fill the axis.
    axes.set_ylim(low, high)
    subs = (1, 2, 5) if high / low < 300 else (1,)
    axes.yaxis.set_major_locator(_ticker().LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(_ticker().StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(_ticker().NullLocator())


def _ticker():
    from matplotlib import ticker

    return ticker


def _svg(figure: "Figure") -> str:
    import matplotlib

    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bloodcell_jax"}):
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg
