"""Timing in windows: a window runs several steps, and the median of the windows is the result."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import jax

Name = TypeVar("Name", bound=Hashable)


class Program(Protocol):
    """Runs a number of steps, waits for the last one, and returns the seconds of all of them."""

    def __call__(self, steps: int) -> float: ...


@dataclass(frozen=True)
class Timing:
    """The seconds of one step.

    Attributes:
      windows: mean seconds of a step in each window.
      steps: number of steps in a window.
    """

    windows: tuple[float, ...]
    steps: int

    @property
    def seconds(self) -> float:
        """Seconds of a step in the median window."""
        return statistics.median(self.windows)


def time_interleaved(programs: Mapping[Name, Program], *, windows: int, window_seconds: float) -> dict[Name, Timing]:
    """Time programs in turn, window by window, so that a slow moment of the machine affects all of them.

    Args:
      programs: name -> program. Each has run at least once, so that nothing is compiled inside a window.
      windows: number of windows of each program.
      window_seconds: approximate length of a window. A window has at least one step.
    """
    steps = {name: max(1, round(window_seconds / program(1))) for name, program in programs.items()}
    seconds: dict[Name, list[float]] = {name: [] for name in programs}
    for _ in range(windows):
        for name, program in programs.items():
            seconds[name].append(program(steps[name]) / steps[name])
    return {name: Timing(tuple(seconds[name]), steps[name]) for name in programs}


def time_program(program: Program, *, windows: int, window_seconds: float) -> Timing:
    """Time one program alone; the arguments are those of `time_interleaved`."""
    return time_interleaved({"": program}, windows=windows, window_seconds=window_seconds)[""]


def repeated(function: Callable[[], Any]) -> Program:
    """Return the program that calls `function` for each step and waits for the result of the last call.

    On the CPU, it waits for every call: virtual devices share threads, and waiting calls would take the threads from
    the one that runs.
    """
    wait_for_each = jax.default_backend() == "cpu"

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            result = function()
            if wait_for_each:
                jax.block_until_ready(result)
        jax.block_until_ready(result)
        return time.perf_counter() - start

    return run


def dispatch_seconds(function: Callable[[], Any], *, windows: int) -> float:
    """Return the median seconds until a call returns to an idle host. The time of the device does not count."""
    seconds = []
    for _ in range(windows):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
        jax.block_until_ready(result)
    return statistics.median(seconds)
