"""Who may talk to the server, and what every response tells a browser to refuse."""

import ipaddress
import json
import re
import socket
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bloodcell_jax.serve.limits import Refusal

# The page consists of files of this server, and shows images that it holds itself. Nothing else may be loaded or run.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# A Host header: a name, or an IPv6 address in brackets, and perhaps a port.
_HOST = re.compile(r"(\[(?P<address>[\da-f:.]+)\]|(?P<name>[\w.-]+))(:\d+)?")
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Access:
    """Lets a request through if it names this server, and if no page of another origin sent it.

    A page of another site can make a browser send requests to this machine. It may also let its own name lead here
    (DNS rebinding): then its requests carry that name as Host. So the host must be a name of this server, or an
    address, which needs no look-up.

    Args:
      app: what answers.
      host: what the server is bound to.
    """

    def __init__(self, app: ASGIApp, host: str):
        self._app, self._names, self._is_local = app, names_of(host), is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_RAW_HEADERS]}
            await send(message)

        try:
            self._check(scope)
        except Refusal as refusal:
            await _send_refusal(refusal, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _check(self, scope: Scope) -> None:
        headers = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            raise Refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"Host {', '.join(hosts) or 'missing'}: this server is {', '.join(sorted(self._names))}; start it with "
                "--host=NAME for another name",
            )
        for origin in (value for name, value in headers if name == b"origin"):
            if urlsplit(origin).netloc != hosts[0]:
                raise Refusal(HTTPStatus.FORBIDDEN, f"Origin {origin}: pages of other origins may not ask this server")
        sites = [value for name, value in headers if name == b"sec-fetch-site"]
        # A link to the page may stand anywhere.
        is_link = scope["method"] == "GET" and (b"sec-fetch-mode", "navigate") in headers
        if any(site not in ("same-origin", "none") for site in sites) and not is_link:
            raise Refusal(HTTPStatus.FORBIDDEN, "pages of other sites may not ask this server")

    def _is_own(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        if found is None:
            return False
        name = found["address"] or found["name"]
        return name in self._names or (_is_address(name) and (not self._is_local or is_loopback(name)))


def names_of(host: str) -> set[str]:
    """Return the names under which a server that is bound to `host` may be asked."""
    own = set() if is_loopback(host) else {socket.gethostname().lower()}
    return {"localhost", "127.0.0.1", "::1", host.lower()} | own


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _send_refusal(refusal: Refusal, send: Send) -> None:
    body = json.dumps({"error": str(refusal)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
