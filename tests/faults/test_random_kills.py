"""A run that is killed again and again, at any moment, ends as the one that nothing disturbed."""

import os
import random
import signal
import subprocess
import time

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("BLOODCELL_KILLS", "50"))
# Within this many seconds a process must have ended after SIGTERM or SIGINT, whatever it was busy with.
GRACE = 60


def kill_until_finished(start, workdir, rng, duration):
    """Start a run until it ends by itself, and kill it at random moments; return the signals that it got."""
    signals = []
    while True:
        process = start(workdir)
        try:
            # Starting up takes a part of it, so that every phase has its share.
            process.communicate(timeout=rng.uniform(0, 1.2 * duration))
        except subprocess.TimeoutExpired:
            number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
            process.send_signal(number)
            _, errors = process.communicate(timeout=GRACE)
            signals.append(number)
            # Before Python takes signals they end it; and one may come as the last file is written.
            code = {signal.SIGTERM: 75, signal.SIGINT: 130}.get(number)
            assert process.returncode in (code, -number, 0), errors
            assert process.returncode == 0 or "Traceback" not in errors or number == signal.SIGINT, errors
            continue
        assert process.returncode == 0, process.communicate()[1]
        return signals


def test_kills_at_random_moments(start, trained, tmp_path, assert_same_run):
    began = time.monotonic()
    process = start(tmp_path / "timed")
    process.communicate()
    duration, signals, chain = time.monotonic() - began, [], 0
    while len(signals) < KILLS:
        workdir = tmp_path / f"chain{chain}"
        signals += kill_until_finished(start, workdir, random.Random(chain), duration)
        assert_same_run(workdir, trained)
        chain += 1
    print(f"{len(signals)} kills in {chain} chains: {', '.join(signal.Signals(s).name for s in sorted(signals))}")
