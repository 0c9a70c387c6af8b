"""Who may talk to the review's server: the page it opened itself, and nobody else.

Any web page that a browser has open can send requests to this machine. So every address holds a
secret; the Host must be this server's (a foreign name that points here is how a foreign page reads
answers); and what a foreign page sends is refused by its Origin and Sec-Fetch-Site.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY = 1 << 20
SAFE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass(frozen=True)
class Guard:
    """Stands before an ASGI application.

    Attributes:
        app: What it guards; it sees paths without the token.
        token: The first part of every path.
        hosts: Names and addresses, without port, that are this server.
        any_address: Every numeric address is, since the server listens on all of them.
    """

    app: Callable[[Scope, Receive, Send], Awaitable[None]]
    token: str
    hosts: tuple[str, ...] = LOOPBACK
    any_address: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on without the token."""
        if scope["type"] != "http":
            return  # there are no websockets, and nothing to do at start and end
        path = str(scope["path"])
        refused = self.refusal(str(scope["method"]), path, scope["headers"])
        if refused is not None:
            await _answer(send, *refused)
        elif path == f"/{self.token}":
            await _answer(send, 307, "", {"location": f"/{self.token}/"})
        else:
            rest = path[len(self.token) + 1 :]
            inner = {**scope, "path": rest, "raw_path": rest.encode(), "root_path": ""}
            await self.app(inner, receive, _with_safe_headers(send))

    def refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return the status and reason with which a request is refused, None if it is not."""
        hosts = _values(headers, b"host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 403, "this server is asked under its own address only"
        origins = _values(headers, b"origin")
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return 403, "requests of other pages are refused"
        if not _own_or_typed(headers):
            return 403, "requests of other pages are refused"
        given = path.split("/", 2)[1] if path.startswith("/") else ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            return 403, "the address lacks this review's token; use the link that was printed"
        return None if method in ("GET", "HEAD") else _bad_body(headers)

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host)
        if name.casefold() in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _without_port(host: str) -> str:
    """Return ``::1`` of ``[::1]:8000`` and ``localhost`` of ``localhost:8000``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _own_or_typed(headers: Headers) -> bool:
    """Return whether the browser says that its own page asks, or a person who typed or clicked.

    Another port of this machine counts as the same site to a browser, but is another program.
    """
    site = _values(headers, b"sec-fetch-site")
    return all(value in ("same-origin", "none") for value in site) or _values(
        headers, b"sec-fetch-mode"
    ) == ["navigate"]


def _bad_body(headers: Headers) -> tuple[int, str] | None:
    """Refuse what an HTML form could send from anywhere, and what would fill the memory."""
    kinds = [value.partition(";")[0].strip() for value in _values(headers, b"content-type")]
    if kinds != ["application/json"]:
        return 415, f"expected content-type application/json, got {kinds}"
    sizes = _values(headers, b"content-length")
    if len(sizes) != 1 or not sizes[0].isdigit():
        return 411, "expected one content-length"
    if int(sizes[0]) > MAX_BODY:
        return 413, f"at most {MAX_BODY} bytes are read at once, got {sizes[0]}"
    return None


def _with_safe_headers(send: Send) -> Send:
    extra = [(key.encode(), value.encode()) for key, value in SAFE_HEADERS.items()]

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return sending


async def _answer(
    send: Send, status: int, text: str, headers: MutableMapping[str, str] | None = None
) -> None:
    body = text.encode()
    named = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body))}
    pairs = [(k.encode(), v.encode()) for k, v in {**named, **(headers or {})}.items()]
    await _with_safe_headers(send)(
        {"type": "http.response.start", "status": status, "headers": pairs}
    )
    await send({"type": "http.response.body", "body": body})
