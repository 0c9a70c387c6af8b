"""Images that a request names instead of holding them: files of one folder, addresses of the web.

Both are refused unless the one who starts the server allows them.
"""

import http.client
import ipaddress
import os
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
CHUNK = 1 << 16
# addresses of version 6 that are of the public internet, and those that stand for one of version 4
PUBLIC, NAT64 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Allowed:
    """What a request may name.

    Attributes:
        folder: Files inside it; None for no files at all.
        urls: Whether addresses of the web.
        private_addresses: Whether those may be this machine or a network that is not public.
        max_bytes: Of a file.
        seconds: For fetching one from the web.
    """

    folder: Path | None = None
    urls: bool = False
    private_addresses: bool = False
    max_bytes: int = 32 * 1024 * 1024
    seconds: float = 10.0


def read_file(name: str, allowed: Allowed) -> bytes:
    """Return a file of the allowed folder.

    Raises:
        ValueError: If it lies outside, which links are followed to find out, or is no plain file,
            or too large. Of what is outside nothing is told, not even whether it is there.
    """
    if allowed.folder is None:
        raise ValueError("files of the server are not read; it was started without --allow-folder")
    root = allowed.folder.resolve()
    try:
        path = (root / name).resolve()
        inside = path.is_relative_to(root)
    except (OSError, ValueError, RuntimeError):  # zero bytes, surrogates, links in a circle
        inside = False
    if not inside:
        raise ValueError(f"{name!r} does not lie in the folder that the server may read")
    try:
        # the path is resolved: a link in its place now was put there since; a pipe must not block
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{name!r} is not a plain file")
            data = file.read(allowed.max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {name!r}: {reason}") from error
    return _not_too_large(data, allowed.max_bytes)


def fetch(url: str, allowed: Allowed) -> bytes:
    """Return what an address of the web holds.

    The connection is made to the very address that was checked, so that a name which is looked up
    again cannot lead elsewhere. Proxies of the environment are not used.

    Raises:
        ValueError: If that is not allowed, or fails, or is too large or too slow.
    """
    if not allowed.urls:
        raise ValueError("nothing is fetched from the web; the server runs without --allow-urls")
    until = time.monotonic() + allowed.seconds
    for _ in range(MAX_REDIRECTS + 1):
        try:
            found = _get(url, allowed, until)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            late = time.monotonic() >= until
            reason = f"took more than {allowed.seconds:g} s" if late else _words(error)
            raise ValueError(f"cannot fetch the image: {reason}") from error
        if isinstance(found, bytes):
            return _not_too_large(found, allowed.max_bytes)
        url = found
    raise ValueError(f"more than {MAX_REDIRECTS} redirects")


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, whatever form hides it."""
    if isinstance(address, ipaddress.IPv6Address):
        hidden = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            hidden = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if hidden is not None:
            return is_public(hidden)
        if address not in PUBLIC or address.teredo:
            return False
    return address.is_global and not address.is_multicast


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _not_too_large(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ValueError(f"too large: more than {most} bytes")
    return data


def _split(url: str) -> SplitResult:
    """Return the parts of an address.

    Raises:
        ValueError: If it is none that may be fetched.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected an address http://... or https://..., got {url[:200]!r}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address with a user name or password is not fetched")
    if any(ord(letter) <= 32 or ord(letter) >= 127 for letter in url):
        raise ValueError("an address must be of plain ASCII letters without spaces; encode others")
    return parts


def _checked_address(parts: SplitResult, private: bool) -> tuple[str, int]:
    """Look a name up and return one address of it that may be connected to."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        # one private address is enough to refuse: which of them is used would be chance
        if not private and not is_public(ipaddress.ip_address(address.partition("%")[0])):
            raise ValueError(
                f"{parts.hostname!r} is an address of this machine or of a private network"
            )
    return addresses[0], port


def _get(url: str, allowed: Allowed, until: float) -> bytes | str:
    """Return the body of one answer, or the address that it redirects to."""
    parts = _split(url)
    address, port = _checked_address(parts, allowed.private_addresses)
    left = max(0.001, until - time.monotonic())
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", port, timeout=left)
    connection.sock = _connected(parts, address, port, left)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with closing(connection), _cut_off_after(connection.sock, until - time.monotonic()):
        connection.request("GET", path, headers={"User-Agent": "nameonly", "Accept": "image/*"})
        answer = connection.getresponse()
        if answer.status in REDIRECTS and (target := answer.headers.get("Location")):
            return urljoin(url, target)
        if answer.status != 200:
            raise ValueError(f"the address answered with status {answer.status}")
        body = _body(answer, allowed.max_bytes)
    if time.monotonic() >= until:
        raise TimeoutError  # what was cut off looks like an end
    return body


def _connected(parts: SplitResult, address: str, port: int, seconds: float) -> socket.socket:
    plain = socket.create_connection((address, port), timeout=seconds)
    if parts.scheme == "http":
        return plain
    try:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)
    except BaseException:
        plain.close()
        raise


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    parts, size = [], 0
    while size <= most and (part := answer.read(CHUNK)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


@contextmanager
def _cut_off_after(connected: socket.socket, seconds: float) -> Iterator[None]:
    """Cut a connection off when the time is up.

    A timeout of sockets starts anew with every byte: a slow sender would hold a thread for hours.
    """

    def end() -> None:
        with suppress(OSError):  # closed already
            connected.shutdown(socket.SHUT_RDWR)

    timer = Timer(max(0.0, seconds), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
