"""The body of a request becomes named sources of images; what is too much is refused early."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nameonly.serve.batching import Source
from nameonly.serve.settings import Options
from nameonly.serve.sources import Allowed, fetch, read_file

FIELD = "files"
MAX_JSON = 1 << 20
MAX_OTHER_FIELDS = 8


class Refusal(Exception):  # noqa: N818  an answer, not an error
    """A request that is not worked on.

    Attributes:
        status: Of the answer.
        detail: Says what was expected and what to do.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass
class Budget:
    """Bytes of bodies that all requests together hold."""

    most: int
    taken: int = field(default=0, init=False)


@dataclass(frozen=True)
class Named:
    """An image of a request.

    Attributes:
        name: The file's name, path or address; empty for a bare body.
        source: Its bytes, or what fetches them.
    """

    name: str
    source: Source


class Body:
    """Reads one request's body within the limits; to be used in a ``with`` statement.

    Args:
        request: Of Starlette.
        options: The limits.
        budget: Of all requests; what this one took is given back at the end.
    """

    def __init__(self, request: Any, options: Options, budget: Budget) -> None:
        self._request = request
        self._options = options
        self._budget = budget
        self._taken = 0
        self._whole = False

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.taken -= self._taken

    async def sources(self) -> list[Named]:
        """Return the images of the request.

        Raises:
            Refusal: If it holds none, or too many, or more bytes than are taken, or is damaged.
        """
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            found = await self._multipart()
        elif kind == "application/json":
            found = await self._named()
        elif kind.startswith("image/") or kind == "application/octet-stream":
            found = [Named("", b"".join([part async for part in self._parts()]))]
        else:
            raise Refusal(
                415,
                f"expected multipart/form-data with the field {FIELD!r}, an image/... or "
                f"application/json, got the content type {kind!r}",
            )
        if len(found) > self._options.max_images:
            raise Refusal(413, self._too_many())
        if not found:
            raise Refusal(422, f"no image: expected one file or several in the field {FIELD!r}")
        return found

    def _too_many(self) -> str:
        return f"more than {self._options.max_images} images in one request; send several requests"

    async def _parts(self, most: int | None = None) -> AsyncIterator[bytes]:
        """Give the body's parts, and refuse it once they are too many bytes."""
        most = self._options.max_bytes if most is None else most
        told = self._request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > most:
            raise Refusal(413, f"the body is larger than {most} bytes")
        while not self._whole:
            part = await self._next()
            self._taken += len(part)
            self._budget.taken += len(part)
            if self._taken > most:
                raise Refusal(413, f"the body is larger than {most} bytes")
            if self._budget.taken > self._budget.most:
                raise Refusal(503, "too many bytes are under way; try again")
            yield part

    async def _next(self) -> bytes:
        message = await self._request.receive()
        self._whole = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client went away")
        part: bytes = message.get("body", b"")
        return part

    async def _multipart(self) -> list[Named]:
        from python_multipart.multipart import parse_options_header
        from starlette.datastructures import Headers, UploadFile
        from starlette.formparsers import MultiPartException, MultiPartParser

        _, options = parse_options_header(self._request.headers["content-type"])
        boundary = options.get(b"boundary", b"").decode("latin-1")
        if not boundary:
            raise Refusal(400, "the form is damaged: its content type names no boundary")
        # the boundary alone: names in a character set of the client's choice need no support
        headers = Headers({"content-type": f'multipart/form-data; boundary="{boundary}"'})
        stream: Any = self._parts()
        parser = MultiPartParser(
            headers,
            stream,
            max_files=self._options.max_images,
            max_fields=MAX_OTHER_FIELDS,
        )
        # bodies are small enough for memory; a file on disk costs a change of threads each write
        parser.spool_max_size = self._options.max_bytes + 1
        try:
            form = await parser.parse()
        except MultiPartException as error:
            many = "Too many files" in error.message
            detail = self._too_many() if many else f"the form is damaged: {error.message}"
            raise Refusal(413 if many else 400, detail) from error
        found = []
        try:
            for key, value in form.multi_items():
                if key != FIELD or not isinstance(value, UploadFile):
                    raise Refusal(422, f"expected files in the field {FIELD!r}, got {key!r}")
                found.append(Named(value.filename or "", await value.read()))
        finally:
            await form.close()
        return found

    async def _named(self) -> list[Named]:
        """Read ``{"url": ...}``, ``{"path": ...}`` or a list of such."""
        data = b"".join([part async for part in self._parts(MAX_JSON)])
        try:
            given = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"the body is not JSON: {error}") from error
        entries = given if isinstance(given, list) else [given]
        return [self._named_source(entry) for entry in entries]

    def _named_source(self, entry: Any) -> Named:
        keys = set(entry) if isinstance(entry, dict) else set()
        if len(keys) != 1 or not keys <= {"url", "path"}:
            raise Refusal(422, 'expected {"url": "https://..."}, {"path": "..."} or a list of such')
        ((key, value),) = entry.items()
        if not isinstance(value, str):
            raise Refusal(422, f"expected text for {key!r}, got {type(value).__name__}")
        return Named(value, partial(_source_for(key, self._options.allowed), value))


def _source_for(key: str, allowed: Allowed) -> Any:
    if key == "url":
        if not allowed.urls:
            raise Refusal(403, "addresses are not fetched; the server runs without --allow-urls")
        return partial(fetch, allowed=allowed)
    if allowed.folder is None:
        raise Refusal(403, "the server's files are not read; it runs without --allow-folder")
    return partial(read_file, allowed=allowed)
