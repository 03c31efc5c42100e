"""A fuzzer: seeds are changed at random, and a reader may only succeed or raise a UserError of one line.

Nothing that it reads may start a program, or write, delete or rename a file: an audit hook watches. Each input has
limits of time and memory. The same numbers give the same inputs, so a failure is found again by the number that it
names.
"""

import contextlib
import itertools
import logging
import os
import re
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from bloodcell_jax.errors import UserError

# What an input may take.
SECONDS, MEBIBYTES = 2, 256

TOKENS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\\",
        b"\\ud800",
        b"..",
        b"/",
        b" ",
        b"()",
    ),
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"0.5", b"9" * 400, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"{}"),
    *(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY", b"descr", b"|O", b"<U9", b"(0,)", b"shape", b"V1"),
    *(b"cos\nsystem\n", b"(S'touch pwned'\ntR.", b"\x80\x04", b"}", b"(", b"t", b"R", b"Q", b"q\0", b"h\0", b"."),
)
NUMBERS = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
FORBIDDEN = re.compile(
    r"(subprocess\.|os\.(system|exec|fork|posix_spawn|remove|rename|mkdir|rmdir|link|symlink|truncate|chmod|utime)|"
    r"socket\.|ctypes\.dlopen|pickle\.|shutil\.)"
)
_watched: list = []


class TooLong(BaseException):
    """An input took more seconds than it may; no reader catches this."""


def _watch(event, arguments):
    """Note what a reader should never do; `_watched` holds the notes while one reads."""
    if not _watched:
        return
    if event == "open":
        mode, flags = arguments[1] or "", arguments[2] or 0
        wrong = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or any(letter in mode for letter in "wax+")
    else:
        wrong = FORBIDDEN.match(event) is not None
    if wrong:
        _watched.append(f"{event} {arguments}")


sys.addaudithook(_watch)


class Mutator:
    """Changes at random: bits, lengths, cuts, copies, splices and tokens."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def pick(self, count):
        return int(self.rng.integers(count))

    def change(self, content, others=()):
        content = bytearray(content)
        for _ in range(1 + self.pick(3)):
            kind, at = self.pick(8), self.pick(len(content) + 1)
            stop = min(len(content), at + 1 + self.pick(1 + self.pick(64)))
            if kind == 0:
                for place in self.rng.integers(0, len(content), 1 + self.pick(4)) if content else ():
                    content[place] ^= 1 << self.pick(8)
            elif kind == 1:
                del content[at:]
            elif kind == 2:
                content[at:at] = TOKENS[self.pick(len(TOKENS))]
            elif kind == 3:
                content[at:stop] = TOKENS[self.pick(len(TOKENS))]
            elif kind == 4:
                size = 1 << self.pick(4)
                content[at : at + size] = NUMBERS[self.pick(len(NUMBERS))].to_bytes(8, "little")[:size]
            elif kind == 5:
                del content[at:stop]
            elif kind == 6:
                content[at:at] = content[at:stop] * (1 + self.pick(4))
            elif others:
                other = others[self.pick(len(others))]
                content[at:] = other[self.pick(len(other) + 1) :]
        return bytes(content)


def _out_of_time(*_):
    raise TooLong


def _reset_peak():
    """Forget the memory that earlier tests took, where the kernel can; elsewhere the limit is looser."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak():
    """Return the most memory that this process had, in mebibytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.fixture
def fuzz(tmp_path):
    """Return a function that gives `count` inputs to a reader, or as many as `seconds` allow; it returns how many.

    Args:
      read: takes the path of a file.
      name: of that file.
      seeds: contents, or dicts of contents that `pack` makes a file of; then half of the inputs are whole but for one.
      count, seconds: one of them is given.
      watch: False if the reader starts a process that it answers for.
      limits: seconds of computing and mebibytes that an input may take.
    """

    def inputs(seeds, pack, count, seconds):
        end = time.monotonic() + (seconds or 10**9)
        for number in itertools.count() if count is None else range(count):
            if time.monotonic() > end:
                return
            mutator = Mutator(number)
            seed = seeds[mutator.pick(len(seeds))]
            if pack is None:
                yield number, mutator.change(seed, seeds)
                continue
            members = dict(seed)
            if mutator.pick(2):
                name = list(members)[mutator.pick(len(members))]
                members[name] = mutator.change(members[name], list(members.values()))
                yield number, pack(members)
            else:
                yield number, mutator.change(pack(members))

    def run(read, name, seeds, pack=None, *, count=None, seconds=None, watch=True, limits=(SECONDS, MEBIBYTES)):
        place, done = tmp_path / name, 0
        for seed in seeds:
            place.write_bytes(pack(seed) if pack else seed)
            read(place)  # A seed is good, and what is imported late is imported now.
        before = sorted(tmp_path.rglob("*"))
        logging.disable(logging.CRITICAL)
        peak = _reset_peak()
        handler = signal.signal(signal.SIGVTALRM, _out_of_time)
        try:
            for number, content in inputs(seeds, pack, count, seconds):
                place.write_bytes(content)
                _check(read, place, number, peak, watch, limits)
                done += 1
        finally:
            signal.signal(signal.SIGVTALRM, handler)
            logging.disable(logging.NOTSET)
        assert sorted(tmp_path.rglob("*")) == before
        return done

    return run


def _check(read, place, number, peak, watch, limits):
    seconds, mebibytes = limits
    if watch:
        _watched.append("reading")
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(place)
    except UserError as error:
        text = str(error)
        assert text.isprintable(), f"input {number}: {text[:300]!r}"
        assert len(text) < 10_000, f"input {number}: a message of {len(text)} letters"
    except TooLong:
        pytest.fail(f"input {number}: takes more than {seconds} seconds")
    except Exception as error:
        raise AssertionError(f"input {number}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        done = _watched[1:]
        _watched.clear()
    assert not done, f"input {number}: {done}"
    assert _peak() < peak + mebibytes, f"input {number}: {_peak() - peak:.0f} MiB"
