"""What a person sees of a run: a progress bar on a terminal, a line per interval elsewhere."""

import sys
import time
from collections.abc import Callable

from bloodcell_jax.names import visible

_SECONDS_BETWEEN_NOTES = 10


class Progress:
    """Shows steps, images/s, loss and the time left; `note` prints a line of its own."""

    def __init__(self, first_step: int, total_steps: int, *, quiet: bool = False):
        self._total, self._quiet = total_steps, quiet
        self._bar = _create_bar(first_step, total_steps) if sys.stderr.isatty() and not quiet else None

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
            loss = f"loss {line['train/loss']:.4f}"
            self._bar.update(self._bar.task_ids[0], loss=loss, speed=speed, left=f"{left} left")
            return
        self.note(
            f"step {line['step']}/{self._total}  {line['stage']}  epoch {line['epoch']:.2f}  "
            f"loss {line['train/loss']:.4f}  accuracy {line['train/accuracy']:.3f}  lr {line['lr']:.2e}  "
            f"{speed}  {left} left"
        )

    def open_pass(self) -> Callable[[int, int], None]:
        """Return what is told how many of how many images a long pass has done, and notes that at times."""
        start = noted = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal noted
            now = time.monotonic()
            if done < total and now - noted < _SECONDS_BETWEEN_NOTES:
                return
            noted, rate = now, done / max(now - start, 1e-9)
            left = f"{_clock((total - done) / rate)} left" if done < total else f"took {_clock(now - start)}"
            self.note(f"{done:,} of {total:,}  {rate:,.0f} images/s  {left}")

        return show

    def note(self, text: str) -> None:
        """Print a line, above the bar if there is one; no name in it can steer the terminal."""
        text = visible(text, keep="\n")
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)


def _create_bar(first_step: int, total_steps: int):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    fields = [TextColumn("{task.fields[" + name + "]}") for name in ("loss", "speed", "left")]
    bar = RichProgress(TextColumn("training"), BarColumn(), MofNCompleteColumn(), *fields, console=Console(stderr=True))
    bar.add_task("training", total=total_steps, completed=first_step, loss="", speed="", left="")
    return bar


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
