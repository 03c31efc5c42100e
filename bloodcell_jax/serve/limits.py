"""What a server takes from its clients, and the refusal of more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from bloodcell_jax.names import visible

# A zip makes even uncompressed images of cells only a few times smaller. A bomb unpacks to up to 1,032 times its size,
# the most that deflate can do.
_UNPACKED = 16
# What a client is told to wait before it asks again, in seconds.
_RETRY_SECONDS = 1


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
      upload_bytes: of one request. Twice as many are in memory for all requests.
      images: of one request.
      waiting: images of all requests that wait for an answer; at least `images`.
      stall_seconds: how long a client may send nothing in the middle of an upload.
      slowest_upload: bytes per second; an upload has the time that it takes at this rate, and `stall_seconds` more.
    """

    upload_bytes: int = 256 * 2**20
    images: int = 5_000
    waiting: int = 10_000
    stall_seconds: float = 30.0
    slowest_upload: float = 128 * 2**10

    def upload_seconds(self, size: int) -> float:
        """Return how long an upload of so many bytes may take: who sends a byte now and then keeps no place."""
        return self.stall_seconds + size / self.slowest_upload

    @property
    def unpacked_bytes(self) -> int:
        """What the zips of one request may unpack to."""
        return _UNPACKED * self.upload_bytes


class Refusal(Exception):
    """A request that is not answered: the status, and one line that says what is wrong and what to do.

    Args:
      status: of the response.
      message: one line; what would not show in it is escaped.
    """

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(visible(message))
        self.status = status

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        busy = self.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        return {"Retry-After": str(_RETRY_SECONDS)} if busy else {}


class Admission:
    """Counts what all requests hold at a time, and refuses what would be too much. For one thread alone.

    Attributes:
      waiting: images that wait for an answer.
    """

    def __init__(self, limits: Limits):
        self._limits, self._bytes = limits, 0
        self.waiting = 0

    @contextmanager
    def upload(self, size: int) -> Iterator[None]:
        """Hold an upload of so many bytes.

        Raises:
          Refusal: it is too large, or too much is held already.
        """
        limit = self._limits.upload_bytes
        if size > limit:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the upload has {_mebibytes(size)}; at most {_mebibytes(limit)} are taken: send it in parts, or start "
                "the server with a larger --max_upload_mb",
            )
        if self._bytes + size > 2 * limit:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many uploads at a time; send this one again later")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    @contextmanager
    def images(self, count: int) -> Iterator[Callable[[], None]]:
        """Let so many images wait; yields what says that one of them has its answer.

        Raises:
          Refusal: too many wait already.
        """
        if self.waiting + count > self._limits.waiting:
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self.waiting:,} images wait for an answer, and at most {self._limits.waiting:,} may; send these "
                f"{count:,} again later",
            )
        left = count
        self.waiting += count

        def answered() -> None:
            nonlocal left
            left -= 1
            self.waiting -= 1

        try:
            yield answered
        finally:
            self.waiting -= left


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
