"""Timing by windows: several steps between two looks at the clock, the median over windows counts."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax


class Program(Protocol):
    """Something that runs a number of steps, waits for the last, and tells the seconds they took."""

    def __call__(self, steps: int) -> float: ...


@dataclass(frozen=True)
class Timing:
    """Seconds of one step.

    Attributes:
      windows: the mean of each window.
      steps: in a window.
    """

    windows: tuple[float, ...]
    steps: int

    @property
    def seconds(self) -> float:
        """The median window's."""
        return statistics.median(self.windows)


def time_interleaved(programs: dict[str, Program], *, windows: int, window_seconds: float) -> dict[str, Timing]:
    """Time programs in turn, window by window, so that a slow moment of the machine falls on all of them.

    Args:
      programs: by name; each has run at least once before, so that nothing is compiled inside a window.
      windows: of each program.
      window_seconds: about as long as one should be, at least one step.
    """
    steps = {name: max(1, round(window_seconds / program(1))) for name, program in programs.items()}
    seconds = {name: [] for name in programs}
    for _ in range(windows):
        for name, program in programs.items():
            seconds[name].append(program(steps[name]) / steps[name])
    return {name: Timing(tuple(seconds[name]), steps[name]) for name in programs}


def time_program(program: Program, *, windows: int, window_seconds: float) -> Timing:
    """Time one program alone."""
    return time_interleaved({"": program}, windows=windows, window_seconds=window_seconds)[""]


def repeated(function: Callable[[], Any]) -> Program:
    """Return the program that calls `function` and waits for what the last call returns.

    On the CPU every call is waited for: virtual devices share their threads, and calls made ahead starve them.
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
    """Return the median seconds until a call returns to an idle host, the device not waited for."""
    seconds = []
    for _ in range(windows):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
        jax.block_until_ready(result)
    return statistics.median(seconds)
