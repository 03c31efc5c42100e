"""An abort because other processes are gone, told in one line.

As soon as the client of `jax.distributed` cannot reach the other processes, it dumps its stack and calls abort(): when
a process does not come, when two have one number, when process 0 dies. It cannot be told not to (jaxlib 0.10; its
`missed_heartbeat_callback` ends in a C++ exception). Gloo may abort when any process dies in a collective operation. So
what native code writes to standard error passes through here, and the signal of abort() is caught.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

# Gloo, the collective operations of CPUs, throws this where nobody catches it: a process died in the middle of one.
GLOO = "gloo::"
# What the client writes before it aborts, and the name in its lesser messages.
_ABORTS = "Terminating process because the JAX distributed service detected fatal errors"
_CHATTER = "coordination_service"

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


class NativeAborts:
    """Calls `on_abort(text)` in place of such an abort; it must end the process. Other aborts are left alone.

    Python's own standard error keeps its terminal.

    Attributes:
      on_abort: takes what was written before the abort.
    """

    def __init__(self, on_abort: Callable[[str], None]):
        self.on_abort = on_abort
        self._text = ""
        reader, writer = os.pipe()
        self._terminal = os.dup(2)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        os.dup2(writer, 2)
        os.close(writer)
        threading.Thread(target=self._pass_on, args=(reader,), daemon=True, name="native stderr").start()
        self._handler = _HANDLER(self._aborted)  # kept: native code holds no reference
        ctypes.CDLL(None).signal(signal.SIGABRT, self._handler)

    def _pass_on(self, reader: int) -> None:
        with open(reader, "rb") as pipe:
            for line in pipe:
                text = line.decode(errors="replace")
                if self._text or _ABORTS in text or GLOO in text:
                    self._text += text
                elif _CHATTER not in text:
                    os.write(self._terminal, line)

    def _aborted(self, _number: int) -> None:
        time.sleep(0.2)  # for the thread above to read what was written last
        if self._text:
            self.on_abort(self._text)
        ctypes.CDLL(None).signal(signal.SIGABRT, None)  # SIG_DFL: abort() goes on
