"""A connection of the server. uvicorn lets a client take as long as it likes for the head of a request."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

# From the connection, or from the first byte behind a response, to the end of the head of a request.
HEAD_SECONDS = 30.0


class Connection(H11Protocol):
    """A connection that is closed if bytes come and no request begins: each connection is a place of few.

    Such bytes are a head that never ends, or the rest of a body that was refused.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take some bytes of a request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        super().connection_lost(exc)
        self._forget()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self._is_idle:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._close_if_idle)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_if_idle(self) -> None:
        self._deadline = None
        if self._is_idle:
            self.transport.close()
