"""Objects behind s3://, gs://, az:// and https://, read whole or by ranges of bytes with fsspec.

What a URL holds besides the place (a password, a signature) serves to read and is never shown.
"""

import atexit
import errno
import io
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any, TypeVar

from nameonly.extras import import_extra
from nameonly.sources.locations import MAX_BYTES, check_bytes

# scheme -> what fsspec reads it with
PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
}
WEB = ("http", "https")
# seconds before the second try and those after it
WAITS = (0.25, 1.0, 4.0)
# their clients try again by themselves, for half a minute and longer
PATIENT = ("gcsfs", "adlfs")
# of tar headers: with members of this size, or larger, their bytes are passed over
BLOCK_BYTES = 1 << 18

_SECRET = re.compile(r"^[^/@:\[]*:(?!\d+(/|$))[^@]*@")
_QUERY = re.compile(r"\?[\w.-]+=.*$", re.S)
_URL = re.compile(r"\w+://\S+")
# by name: their packages need not be installed
_CONNECTION = {
    *("ConnectionError", "TimeoutError", "ClientConnectionError", "HTTPClientError"),
    *("FSTimeoutError", "ServiceRequestError", "ServiceResponseError", "TransportError"),
}
_PASSING = _CONNECTION | {"ClientPayloadError", "IncompleteReadError", "IncompleteRead"}
_REFUSALS = {"PermissionError", "NoCredentialsError", "ClientAuthenticationError", "RefreshError"}
_T = TypeVar("_T")

_answered: set[str] = set()
_silent: set[str] = set()
_copying = threading.Lock()
_copies: dict[str, IO[bytes]] = {}


class UnreachableError(ValueError):
    """A store that answered before and does so no more: the run ends, and can be taken up."""


@dataclass(frozen=True, slots=True)
class Remote:
    """An object as it was when it was opened.

    Attributes:
        url: Where it is, with whatever the user's URL holds.
        size: In bytes; None where the server knows no ranges, so that all is read at once.
        version: Changes with its bytes; empty where the server has none.
    """

    url: str = field(repr=False)
    size: int | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Encoded bytes that are one object.

    Attributes:
        url: Where it is.
        size: In bytes, None where it is not known yet.
    """

    url: str = field(repr=False)
    size: int | None = None

    def read(self) -> bytes:
        """Return the bytes of the object.

        Raises:
            OSError: If it is gone, refused, empty or too large.
            UnreachableError: If its server answers no more.
        """
        if self.size is not None:
            check_bytes(self.size)
        data = _read(self.url, 0, MAX_BYTES + 1)
        check_bytes(len(data))
        return data


class RangeFile(io.RawIOBase):
    """An object as a file to read from, each read of which is one request."""

    def __init__(self, remote: Remote) -> None:
        """Open an object.

        Raises:
            OSError: If its server knows no ranges, and it cannot be read as a whole.
            UnreachableError: If its server answers no more.
        """
        self._remote, self._at = remote, 0
        size = remote.size
        self._size = os.fstat(_copied(remote.url).fileno()).st_size if size is None else size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next read begins."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there are bytes."""
        data = read_range(self._remote, self._at, self._at + len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def is_remote(path: str) -> bool:
    """Return whether this is a URL of a kind that is read here."""
    return _scheme(path) in PACKAGES


def is_web(path: str) -> bool:
    """Return whether this is an address of a web server, which lists nothing."""
    return _scheme(path) in WEB


def is_far(location: object) -> bool:
    """Return whether a location's bytes come over the network."""
    return hasattr(location, "url") or isinstance(getattr(location, "path", None), Remote)


def public(path: str) -> str:
    """Return a path or URL without user, password, query and fragment: fit to be stored."""
    scheme, separator, rest = path.partition("://")
    if not separator or "/" in scheme:
        return path
    # a key in a store may hold these characters, and a glob does
    rest = re.split("[?#]", rest)[0] if scheme.lower() in WEB else _QUERY.sub("", rest)
    rest = _SECRET.sub("", rest)
    host, slash, key = rest.partition("/")
    # az://container@account names a place
    if PACKAGES.get(scheme.lower()) != "adlfs":
        host = host.rpartition("@")[2]
    return f"{scheme}://{host}{slash}{key}"


def check_url(url: str) -> None:
    """Refuse a store's URL with credentials in it, which no store reads.

    Raises:
        ValueError: If there are some, or the package that reads it is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in WEB and _SECRET.search(rest):
        raise ValueError(
            f"credentials do not belong into the URL {public(url)!r}; the store's own settings and "
            "environment variables are read, see docs/scale.md"
        )
    _file_system(url)


def look(url: str) -> Remote:
    """Ask for the size and the version of an object.

    Raises:
        OSError: If it is gone, refused or empty.
        UnreachableError: If its server answers no more.
    """
    facts = _try(url, _web_facts if is_web(url) else lambda fs, path: fs.info(path))
    size = facts.get("size")
    if size == 0:
        raise OSError("zero bytes")
    versions = (str(facts[key]) for key in ("ETag", "etag", "LastModified") if facts.get(key))
    return Remote(url, size, next(versions, ""))


def _web_facts(fs: Any, path: str) -> dict[str, Any]:
    """Ask a web server for one byte: of one that knows no ranges, the size is left open."""
    headers = {"Accept-Encoding": "identity", "Range": "bytes=0-0"}
    # a size, of which no use is made, keeps fsspec from asking for it
    with fs.open(path, "rb", block_size=0, size=1, headers=headers) as answer:
        said = answer.r.headers
        total = said.get("Content-Range", "").rpartition("/")[2]
        known = answer.r.status == 206 and total.isdigit()
        return {"size": int(total) if known else None, "ETag": said.get("ETag")}


def read_range(remote: Remote, start: int, end: int) -> bytes:
    """Return bytes from ``start`` to before ``end``, fewer where the object ends.

    A server that knows no ranges is read once, into a file that goes with the process.

    Raises:
        OSError: If the object is gone, refused or another.
        UnreachableError: If its server answers no more.
    """
    end = end if remote.size is None else min(end, remote.size)
    if start >= end:
        return b""
    if remote.size is not None:
        data = _read(remote.url, start, end)
        if len(data) != end - start:
            raise OSError(f"{len(data)} bytes came where {end - start} were asked for")
        return data
    return os.pread(_copied(remote.url).fileno(), end - start, start)


def _read(url: str, start: int, end: int) -> bytes:
    return bytes(_try(url, lambda fs, path: fs.cat_file(path, start=start, end=end)))


def open_remote(remote: Remote) -> io.BufferedReader:
    """Return the object as a file of few, larger requests."""
    return io.BufferedReader(RangeFile(remote), BLOCK_BYTES)


def _copied(url: str) -> IO[bytes]:
    with _copying:
        if url not in _copies:
            file = nameless_file()
            _try(url, lambda fs, path: _copy(fs, path, file))
            _copies[url] = file
        return _copies[url]


def nameless_file() -> IO[bytes]:
    """Return a file that goes with the process, even where that is killed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    atexit.register(file.close)
    return file


def _copy(fs: Any, path: str, file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()
    with fs.open(path, "rb", block_size=0, size=1) as source:
        shutil.copyfileobj(source, file, BLOCK_BYTES)
    file.flush()


def list_objects(url: str) -> Iterator[tuple[str, int]]:
    """Yield every object below a folder: its name from there on, and its size.

    Raises:
        OSError: If it cannot be listed.
        UnreachableError: If its store answers no more.
    """
    found = _try(url, lambda fs, path: (path, fs.find(path, detail=True)))
    root, entries = found
    for path, facts in entries.items():
        name = path[len(root) :].removeprefix("/")
        # a key that ends in / stands for a folder
        if name and not name.endswith("/") and facts["type"] == "file":
            yield name, int(facts["size"] or 0)


def list_folder(url: str) -> Iterator[tuple[str, int | None]]:
    """Yield what lies in a folder itself: its name, and its size, None for a folder.

    Raises:
        OSError: If it cannot be listed.
        UnreachableError: If its store answers no more.
    """
    root, entries = _try(url, lambda fs, path: (path, fs.ls(path, detail=True)))
    for facts in entries:
        name = facts["name"][len(root) :].strip("/")
        if name:
            yield name, None if facts["type"] == "directory" else int(facts["size"] or 0)


def _scheme(path: str) -> str:
    scheme, separator, _ = path.partition("://")
    return scheme.lower() if separator else ""


def _host(url: str) -> str:
    """Return what answers or does not: a web server, or the store as a whole."""
    return public(url).split("/")[2] if is_web(url) else f"{_scheme(url)}://"


def _file_system(url: str) -> Any:
    package = PACKAGES[_scheme(url)]
    for needed in ("fsspec", package):
        import_extra(needed, needed, "cloud")
    place = _scheme(url) + "://" if is_web(url) else "/".join(url.split("/")[:3])
    return _shared_file_system(place, os.getpid())


@lru_cache(maxsize=64)
def _shared_file_system(place: str, process: int) -> Any:
    """Return the one file system of a place; fsspec would make one for every thread."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if is_web(place):
        limits = import_extra("aiohttp", "aiohttp", "cloud").ClientTimeout(
            total=None, sock_connect=10, sock_read=60
        )
        # ranges are of the bytes as they lie there
        headers = {"Accept-Encoding": "identity"}
        options = {"client_kwargs": {"timeout": limits}, "headers": headers}
    return import_extra("fsspec.core", "fsspec", "cloud").url_to_fs(place, **options)[0]


def _try(url: str, call: Callable[[Any, str], _T]) -> _T:
    """Call with a file system and a path, again after failures that may pass."""
    fs, host = _file_system(url), _host(url)
    patient = PACKAGES[_scheme(url)] in PATIENT
    waits = list(WAITS) if host not in _silent and not patient else []
    while True:
        try:
            found = call(fs, fs._strip_protocol(url))
        except Exception as error:  # every store has its own
            if _may_pass(error) and waits:
                time.sleep(waits.pop(0))
                continue
            raise _told(error, url, host) from None
        _answered.add(host)
        _silent.discard(host)
        return found


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error carries, under whichever name its client has for it."""
    named = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((value for value in named if isinstance(value, int)), None)


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status in (408, 425, 429) or status >= 500
    # s3fs gives its own errors of a busy store these numbers
    busy = isinstance(error, OSError) and error.errno in (errno.EBUSY, errno.EIO)
    return busy or bool(_PASSING & _kinds(error))


def _kinds(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _told(error: Exception, url: str, host: str) -> Exception:
    """Return the error in words that hold nothing secret."""
    kinds, status = _kinds(error), _status(error)
    if "FileNotFoundError" in kinds or status in (404, 410):
        return FileNotFoundError(errno.ENOENT, "no such object")
    if _REFUSALS & kinds or status in (401, 403):
        return OSError("refused: no permission for it, or no credentials were found")
    if status == 416 or "range is not satisfiable" in str(error):
        return OSError("zero bytes")
    if status is not None:
        return OSError(f"the server answered with status {status}")
    if _CONNECTION & kinds and host in _answered:
        return UnreachableError(
            f"the store {host} answers no more ({type(error).__name__}); what was encoded is kept, "
            "and the same command goes on from there"
        )
    if _CONNECTION & kinds:
        _silent.add(host)
        return OSError(f"the store {host} cannot be reached ({type(error).__name__})")
    text = _without_secrets((str(error).strip().splitlines() or [""])[0][:200], url)
    return OSError(f"{type(error).__name__}: {text}")


def _without_secrets(text: str, url: str) -> str:
    """Return a text of another program's without what ``public`` takes off a URL."""
    text = _URL.sub(lambda found: public(found[0]), text.replace(url, public(url)))
    shown = public(url)
    for piece in re.split(r"[?&=:@/#]", url):
        if len(piece) > 3 and piece not in shown:
            text = text.replace(piece, "***")
    return text
