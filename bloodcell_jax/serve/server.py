"""A server from its start to its end: the socket, the compilation, the signals."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn

from bloodcell_jax.errors import MachineError, UsageError
from bloodcell_jax.evaluate.classifier import Classifier
from bloodcell_jax.serve.access import is_loopback
from bloodcell_jax.serve.api import Api
from bloodcell_jax.serve.connection import Connection
from bloodcell_jax.serve.limits import Limits
from bloodcell_jax.serve.served_model import ServedModel

logger = logging.getLogger(__name__)

# How long requests have to be answered after a signal, and threads to end after that.
_GRACE_SECONDS = 5
_PATIENCE = 5.0
# More are told to come again by uvicorn itself. Each is a file handle, of which a process often has 1,024.
_CONNECTIONS = 256


@contextlib.contextmanager
def open_listener(host: str, port: int) -> Iterator[socket.socket]:
    """Open the socket of a server, before anything slow; port 0 is any that is free.

    Raises:
      UsageError: this machine has no such host.
      MachineError: the port is in use, or may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--host={host}: no such name or address; give 127.0.0.1, or 0.0.0.0 for all") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_CONNECTIONS)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--host={host}: not of this machine; give 127.0.0.1, or 0.0.0.0 for all") from error
        raise MachineError(f"--port={port}: {error.strerror}; give another one") from error
    with listener:
        yield listener


def serve(
    classifier: Classifier, listener: socket.socket, host: str, limits: Limits, say: Callable[[str], None]
) -> bool:
    """Serve a model until SIGINT or SIGTERM.

    Requests that run are answered for 5 s more; a second signal ends them at once.

    Args:
      classifier: the model.
      listener: from `open_listener`.
      host: what it is bound to.
      limits: of what clients may send.
      say: takes the lines for the person who has started it.

    Returns:
      Whether all threads have ended; else the process must be ended.

    Raises:
      DataError: the model's probabilities are not finite.
    """
    served = ServedModel(classifier)
    api = Api(served, limits)
    address = _address(listener, host)
    if not is_loopback(host):
        logger.warning(
            "--host=%s: whoever reaches this machine can use the server; it asks for no password, and does not encrypt",
            host,
        )
    try:
        asyncio.run(_serve(HttpServer(api, host), api, served, listener, address, say))
    finally:
        has_ended = served.close(_PATIENCE)
    say(f"ended; images answered: {api.answered:,}")
    return has_ended


class HttpServer(uvicorn.Server):
    """The HTTP side of a server. It ends on a signal, which is the usual end of one, and not an error.

    Args:
      api: the requests.
      host: what it is bound to.
    """

    def __init__(self, api: Api, host: str):
        super().__init__(
            uvicorn.Config(
                api.app(host),
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals of this loop, as the main thread alone can."""
        is_main = threading.current_thread() is threading.main_thread()
        loop, handled = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM) if is_main else ()
        for number in handled:
            loop.add_signal_handler(number, self.end)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def end(self) -> None:
        """Let requests be answered for a while; called again, end at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


async def _serve(
    server: HttpServer, api: Api, served: ServedModel, listener: socket.socket, address: str, say: Callable[[str], None]
) -> None:
    preparing = asyncio.ensure_future(_prepare(server, api, served, address, say))
    await server.serve(sockets=[listener])
    if preparing.done():
        preparing.result()  # raises what has ended the server
    preparing.cancel()


async def _prepare(server: HttpServer, api: Api, served: ServedModel, address: str, say: Callable[[str], None]) -> None:
    """Compile the model, with a server that takes signals already."""
    say(f"{address} answers soon; the model is being compiled")
    start = time.monotonic()
    try:
        await asyncio.wrap_future(served.worker.prepare())
    except Exception:
        server.end()
        raise
    logger.info("compiled in %.1f s", time.monotonic() - start)
    api.is_ready = True
    say(f"ready: open {address} in a browser")


def _address(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"
