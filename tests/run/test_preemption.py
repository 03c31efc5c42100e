"""What a signal does, whatever the process is busy with."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from bloodcell_jax.run.watch.preemption import StopSignals

# Busy in C as a compilation is: Python's own handlers do not run.
BUSY = """
import hashlib
from bloodcell_jax.run.watch.preemption import StopSignals

with StopSignals():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_is_remembered_and_the_old_handlers_come_back(number, code):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.agreed()
        os.kill(os.getpid(), number)
        assert signals.agreed()
        error = signals.error("at step 3")
    assert error.exit_code == code
    assert f"stopped by {number.name} at step 3" in str(error)
    assert signal.getsignal(number) == before


def test_a_second_interrupt_ends_a_process_that_is_busy_in_c():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"busy\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == b"stopping with the state saved; once more to end at once\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == b""


def test_a_run_may_live_in_another_thread():
    entered = []

    def run():
        with StopSignals() as signals:
            entered.append(signals.agreed())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert entered == [False]
