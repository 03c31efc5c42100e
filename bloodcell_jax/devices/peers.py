"""The other processes of a run: what fails in one ends all, with its reason, in seconds.

Every process says to the coordination service of `jax.distributed` that it is alive, and reads what the others say. A
process that fails leaves its reason there. The others would wait for it in a collective operation, for minutes.
"""

import collections
import contextlib
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from bloodcell_jax.devices.native_aborts import GLOO
from bloodcell_jax.devices.process_end import end_process, say_end
from bloodcell_jax.devices.stop_agreement import StopAgreement
from bloodcell_jax.errors import DivergedError, MachineError, StoppedError, UserError, is_out_of_memory, memory_error

_ALIVE, _FAILED, _LEFT, _STOP, _VALUE = (f"bloodcell/{name}/" for name in ("alive", "failed", "left", "stop", "value"))

_RESUME = "start all processes again with the same command to resume"

# How long process 0, whose coordination service the others need, waits for them to leave before it does, in seconds.
_PATIENCE = 10.0
# After an error that the death of another process may have caused, no sign of life for this long is enough.
_SUSPECT_SECONDS = 15.0
# What another process still works at is waited for as long; its death ends the wait before.
_FOR_EVER_MS = 7 * 24 * 3600 * 1000


class Peers:
    """This process among those of a run."""

    def __init__(self, client: Any, index: int, count: int, heartbeat_seconds: float, place: Callable[[], str]):
        """Create this process's view of the others.

        Args:
          client: of the coordination service.
          index: number of this process.
          count: how many there are.
          heartbeat_seconds: a process that shows no life for as long is dead.
          place: returns where the run is, such as `at step 12 of 36`.
        """
        self._place = place
        self._client, self._index, self._count = client, index, count
        self._timeout = heartbeat_seconds
        self._shared = collections.Counter[str]()
        self._leaving = threading.Lock()
        self._done = threading.Event()
        self._others_seen: dict[int, tuple[str, float]] = {}
        self._agreement = StopAgreement(
            count, lambda text: client.key_value_set(f"{_STOP}{index}", text, True), lambda: self._entries(_STOP)
        )

    def watch(self) -> None:
        """Start the thread that says that this process is alive, and ends it when another one failed or died."""
        now = time.monotonic()
        self._others_seen = {index: ("", now) for index in range(self._count) if index != self._index}
        threading.Thread(target=self._watch, daemon=True, name="peers").start()

    def share(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a JSON value that process 0 computes, in all processes; all must ask for the same names."""
        key = f"{_VALUE}{name}/{self._shared[name]}"
        self._shared[name] += 1
        if self._index == 0:
            value = compute()
            self._client.key_value_set(key, json.dumps(value))
            return value
        return json.loads(self._client.blocking_key_value_get(key, _FOR_EVER_MS))

    def wait_for_all(self, name: str) -> None:
        """Wait until every process is here."""
        self._shared[name] += 1
        self._client.wait_at_barrier(f"{name}/{self._shared[name]}", _FOR_EVER_MS)

    def stops_here(self, signal: int) -> int:
        """Return the signal by which all processes stop here, 0 if they go on; all must come to the same places.

        Args:
          signal: that this process was sent; 0 if none.
        """
        return self._agreement.pass_place(signal)

    @contextlib.contextmanager
    def failing_together(self) -> Iterator[None]:
        """Tell the other processes of an error, and end this one without waiting for them."""
        try:
            yield
        except (StoppedError, DivergedError) as error:
            self.leave(error)  # All processes come to it, and one may still write what is left of the run.
        except UserError as error:
            self.fail(error)
        except Exception as error:
            if is_out_of_memory(error):
                self.fail(memory_error(error))
            if isinstance(error, RuntimeError | ValueError | OSError):
                self._wait_for_a_death()  # Mostly a collective operation in which another process died.
            traceback.print_exc()
            fault = f"ended by a fault of the library ({type(error).__name__})"
            self.fail(UserError(fault, exit_code=1), say=False)
        with contextlib.suppress(RuntimeError):
            self._client.key_value_set(f"{_LEFT}{self._index}", "", True)
        self._done.set()

    def lost(self, text: str) -> NoReturn:
        """End this process because native code aborts: process 0 is gone, or another in a collective operation."""
        if GLOO in text:
            self._wait_for_a_death()
            self.leave(MachineError(f"another process broke off a collective operation {self._place()}; {_RESUME}"))
        self.leave(MachineError(f"process 0 stopped answering {self._place()}; {_RESUME}"))

    def fail(self, error: UserError, *, say: bool = True) -> NoReturn:
        """Tell the other processes of an error, and end this one."""
        with contextlib.suppress(RuntimeError):
            self._client.key_value_set(f"{_FAILED}{self._index}", json.dumps([error.exit_code, str(error)]), True)
        self.leave(error, say=say)

    def leave(self, error: UserError, *, say: bool = True) -> NoReturn:
        """End this process, process 0 after the others."""
        if not self._leaving.acquire(blocking=False):
            self._wait_if_leaving()
        # The service may be gone, and its client may answer no more.
        timer = threading.Timer(_PATIENCE, end_process, [error.exit_code])
        timer.daemon = True
        timer.start()
        if say:
            say_end(error)
        with contextlib.suppress(RuntimeError):  # of a service that is gone
            self._client.key_value_set(f"{_LEFT}{self._index}", "", True)
            while self._index == 0 and self._alive():
                time.sleep(0.1)
        # jax.distributed would wait for all processes, and threads of Orbax for theirs.
        end_process(error.exit_code)

    def _wait_for_a_death(self) -> None:
        """Let the thread that watches end this process, if another one died a while ago."""
        self._timeout = min(self._timeout, _SUSPECT_SECONDS)
        time.sleep(self._timeout + 2 * self._interval)
        self._wait_if_leaving()

    def _wait_if_leaving(self) -> None:
        """Wait for the thread that ends the process, if one does."""
        while self._leaving.locked():
            time.sleep(1)

    @property
    def _interval(self) -> float:
        return min(1.0, self._timeout / 10)

    def _watch(self) -> None:
        beats = 0
        while not self._done.wait(self._interval):
            beats += 1
            # The service answers no more: its client's own abort tells so.
            with contextlib.suppress(RuntimeError):
                self._client.key_value_set(f"{_ALIVE}{self._index}", str(beats), True)
                self._look_for_failures()
                self._look_for_deaths()
                self._agreement.advance()

    def _look_for_failures(self) -> None:
        for index, text in self._entries(_FAILED).items():
            if index != self._index:
                code, message = json.loads(text)
                line, *details = message.split("\n")
                self.leave(UserError(f"process {index}: {line}", details, exit_code=code))

    def _look_for_deaths(self) -> None:
        now, beats, left = time.monotonic(), self._entries(_ALIVE), self._entries(_LEFT)
        for index, (seen, _) in self._others_seen.items():
            if beats.get(index, "") != seen or index in left:
                self._others_seen[index] = (beats.get(index, ""), now)
        if dead := self._dead():
            seconds = f"no sign of life for {self._timeout:g} s"
            names = ", ".join(map(str, sorted(dead)))
            self.leave(MachineError(f"process {names} stopped answering {self._place()}; {_RESUME} ({seconds})"))

    def _dead(self) -> set[int]:
        now = time.monotonic()
        return {index for index, (_, since) in self._others_seen.items() if now - since > self._timeout}

    def _alive(self) -> set[int]:
        """Return the other processes that have not left and are not known to be dead."""
        return self._others_seen.keys() - self._entries(_LEFT).keys() - self._dead()

    def _entries(self, folder: str) -> dict[int, str]:
        return {int(key.rpartition("/")[2]): value for key, value in self._client.key_value_dir_get(folder)}
