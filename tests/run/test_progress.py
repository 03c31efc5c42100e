"""What a person sees of a pass over images: nothing of a short one, a line at times, a bar on a terminal."""

import contextlib
import os
import re
import sys
import time

import pytest

from bloodcell_jax.run.watch import progress
from bloodcell_jax.run.watch.progress import Progress, show_pass


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock by one that a test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 100.0 + seconds)


def test_a_long_pass_is_noted_at_times_and_a_short_one_is_not(clock, capsys):
    with show_pass("predicting") as show:
        for seconds, done in ((0, 0), (5, 100), (9, 200)):
            clock(seconds)
            show(done, 200)
    assert capsys.readouterr().err == ""
    clock(0)
    with show_pass("predicting") as show:
        for seconds, done in ((5, 100), (10, 200), (19, 300), (21, 400), (25, 500)):
            clock(seconds)
            show(done, 500)
    assert capsys.readouterr().err.splitlines() == [
        "200 of 500  20 images/s  0:00:15 left",
        "400 of 500  19 images/s  0:00:05 left",
        "500 of 500  20 images/s  took 0:00:25",
    ]


def test_the_end_of_a_pass_in_a_run_is_noted_in_any_case(clock, capsys):
    show = Progress(0, 10).open_pass()
    clock(2)
    show(50, 100)
    clock(4)
    show(100, 100)
    assert capsys.readouterr().err.splitlines() == ["100 of 100  25 images/s  took 0:00:04"]


@contextlib.contextmanager
def terminal(monkeypatch):
    """Yield a list that holds what a terminal in place of standard error has got when the context ends."""
    reader, writer = os.openpty()
    got, content = [], b""
    with os.fdopen(writer, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        yield got
        stderr.flush()
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):  # A terminal hands over 4 kB at a time.
            while True:
                content += os.read(reader, 4096)
        got.append(content.decode())
        monkeypatch.undo()
    os.close(reader)


def test_a_terminal_has_a_bar_and_lines_above_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with terminal(monkeypatch) as got, show_pass("predicting") as show:
        for done in range(0, 301, 100):
            show(done, 300)
            if done == 100:
                print("a file cannot be read", file=sys.stderr)
            time.sleep(0.01)
        print("after the bar", file=sys.stderr)
    (text,) = got
    assert "300/300" in text
    assert "images/s" in text
    assert text.index("a file cannot be read") < text.index("300/300") < text.index("after the bar")
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l") == 1  # The cursor is back.


def test_the_bar_of_a_run_fits_a_terminal_of_80_columns(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    line = {"step": 500, "stage": "last-stage", "epoch": 12.34, "train/loss": 0.4321, "train/accuracy": 0.876}
    with terminal(monkeypatch) as got, Progress(0, 1200) as bar:
        bar.advance(510)
        bar.show(line | {"perf/images_per_second": 1234.0, "lr": 1e-3}, 64)
    *_, shown = re.findall("last-stage .*", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", got[0]))
    assert "510/1200 epoch 12.3 loss 0.432 acc 0.876 1,234 images/s 0:00:36 left" in shown


def test_a_pass_that_never_begins_shows_nothing(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")

    def fail():
        with show_pass("predicting"):
            raise ValueError

    with terminal(monkeypatch) as got:
        with pytest.raises(ValueError):  # noqa: PT011
            fail()
        print("the error", file=sys.stderr)
    assert got[0].split() == ["the", "error"]
