"""What a person sees of a run or of a pass over images: a bar on a terminal, a line per interval elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bloodcell_jax.names import visible

_SECONDS_BETWEEN_NOTES = 10
# Of the bar of a run, besides its stage: in 80 columns there is room for them and a short bar.
_FIELDS = ("epoch", "scores", "speed", "left")


class Progress:
    """Shows steps, stage, epoch, loss, accuracy, images/s and the time left; `note` prints a line of its own."""

    def __init__(self, first_step: int, total_steps: int, *, quiet: bool = False):
        self._total, self._quiet = total_steps, quiet
        shown = sys.stderr.isatty() and not quiet
        self._bar = _create_bar("{task.fields[stage]}", first_step, total_steps, _FIELDS) if shown else None

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """Move the bar to `step` finished updates."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def show(self, line: dict, batch_size: int) -> None:
        """Show a line of metrics.jsonl."""
        rate = line["perf/images_per_second"]
        speed, left = f"{rate:,.0f} images/s", _clock((self._total - line["step"]) * batch_size / rate)
        if self._bar:
            shown: dict[str, Any] = {
                "stage": visible(line["stage"]),
                "epoch": f"epoch {line['epoch']:.1f}",
                "scores": f"loss {line['train/loss']:.3f} acc {line['train/accuracy']:.3f}",
                "speed": speed,
                "left": f"{left} left",
            }
            self._bar.update(self._bar.task_ids[0], **shown)
            return
        self.note(
            f"step {line['step']}/{self._total}  {line['stage']}  epoch {line['epoch']:.2f}  "
            f"loss {line['train/loss']:.4f}  accuracy {line['train/accuracy']:.3f}  lr {line['lr']:.2e}  "
            f"{speed}  {left} left"
        )

    def open_pass(self) -> Callable[[int, int], None]:
        """Return what is told how many of how many images a long pass has done, and notes that at times."""
        return _noted_pass(self.note, at_end=True)

    def note(self, text: str) -> None:
        """Print a line, above the bar if there is one; no name in it can steer the terminal."""
        if self._bar:
            self._bar.console.print(visible(text, keep="\n"), highlight=False, markup=False)
        elif not self._quiet:
            _print(text)


@contextlib.contextmanager
def show_pass(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how many of how many images a pass has done: it shows a bar on a terminal.

    Elsewhere, a pass of more than 10 s notes at times how far it is. The bar ends with the last image, so that what is
    written then stands below it.
    """
    if not sys.stderr.isatty():
        yield _noted_pass(_print, at_end=False)
        return
    bar, start = None, time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:  # Not before something is shown: the names of files may be wrong.
            bar = _create_bar(title, 0, total, ("speed", "left"))
            bar.start()
        if done:
            speed, left = _pace(done, total, time.monotonic() - start)
            bar.update(bar.task_ids[0], completed=done, speed=speed, left=left)
        if done == total:
            bar.stop()

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()


def _noted_pass(note: Callable[[str], None], *, at_end: bool) -> Callable[[int, int], None]:
    """Return what notes at times how far a pass is, and its end: in any case, or only after other notes."""
    start = noted = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal noted
        now = time.monotonic()
        wanted = now - noted >= _SECONDS_BETWEEN_NOTES if done < total else at_end or noted > start
        if done and wanted:
            noted = now
            speed, left = _pace(done, total, now - start)
            note(f"{done:,} of {total:,}  {speed}  {left if done < total else f'took {_clock(now - start)}'}")

    return show


def _pace(done: int, total: int, seconds: float) -> tuple[str, str]:
    rate = done / max(seconds, 1e-9)
    return f"{rate:,.0f} images/s", f"{_clock((total - done) / rate)} left"


def _print(text: str) -> None:
    print(visible(text, keep="\n"), file=sys.stderr, flush=True)


def _create_bar(title: str, first: int, total: int, fields: Sequence[str]):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    texts = [TextColumn("{task.fields[" + name + "]}", markup=False) for name in fields]
    # Standard output stays what it is: it may be the result.
    count = MofNCompleteColumn(table_column=Column(no_wrap=True))  # On a narrow terminal the bar alone gives way.
    columns, console = (TextColumn(title, markup=False), BarColumn(), count, *texts), Console(stderr=True)
    bar = RichProgress(*columns, console=console, redirect_stdout=False)
    empty: dict[str, Any] = dict.fromkeys(fields, "")
    bar.add_task(title, total=total, completed=first, stage="training", **empty)
    return bar


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
