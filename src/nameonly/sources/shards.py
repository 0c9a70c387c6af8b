"""Images in webdataset shards: uncompressed tar files, read in place and never unpacked."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nameonly.sources.locations import Unreadable, check_bytes, check_regular
from nameonly.sources.paths import IMAGE_SUFFIXES, has_suffix, is_hidden
from nameonly.sources.remote import RangeFile, Remote, UnreachableError, open_remote
from nameonly.types import Location


@dataclass(frozen=True, slots=True)
class TarLocation:
    """Encoded bytes of one member of a shard.

    Attributes:
        path: The shard: a file, or an object in a store.
        offset: Where the member's bytes begin.
        size: How many bytes the member has.
        pieces: For a sparse member, the (start, length) of each stored piece; zeros lie between.
    """

    path: str | Remote
    offset: int
    size: int
    pieces: tuple[tuple[int, int], ...] | None = None

    def read(self) -> bytes:
        """Return the bytes of the member.

        Raises:
            OSError: If the shard is gone, or shorter than its table of contents says.
        """
        check_bytes(self.size)
        pieces = ((0, self.size),) if self.pieces is None else self.pieces
        data = bytearray()
        with _open_unread(self.path) as shard:
            shard.seek(self.offset)
            for start, length in pieces:
                data += bytes(max(0, min(start, self.size) - len(data)))
                piece = shard.read(min(length, self.size - len(data)))
                if len(piece) < length:
                    raise OSError(f"the shard ends after {len(piece)} of the {length} bytes")
                data += piece
        return bytes(data.ljust(self.size, b"\0"))


@contextmanager
def _open_unread(path: str | Remote) -> Iterator[IO[bytes] | RangeFile]:
    """Open a shard for reads of what is asked for and no more."""
    if isinstance(path, Remote):
        yield RangeFile(path)
        return
    check_regular(path)
    with Path(path).open("rb") as shard:
        yield shard


@contextmanager
def _open_archive(path: str | Remote) -> Iterator[tarfile.TarFile]:
    # "r:" takes uncompressed archives alone: members of others cannot be read by their offset.
    if isinstance(path, Remote):
        with open_remote(path) as shard, tarfile.open(fileobj=shard, mode="r:") as archive:
            yield archive
        return
    check_regular(path)
    with tarfile.open(path, "r:") as archive:
        yield archive


def list_members(path: str | Remote) -> list[tuple[str, Location]]:
    """List the image members of a shard by name, as ``::name`` and location.

    A shard that breaks off keeps the members before the break; a last row names the problem.

    Raises:
        OSError: If the shard is gone, empty or no regular file.
    """
    rows: list[tuple[str, Location]] = []
    try:
        with _open_archive(path) as archive:
            end = -1
            while (member := archive.next()) is not None:
                if archive.offset <= end:
                    raise tarfile.ReadError("a header has a negative size")
                end = archive.offset
                # The archive would keep every member that it has read.
                archive.members = []  # type: ignore[attr-defined]
                if _is_image(member):
                    rows.append((f"::{member.name}", _locate(path, member)))
    except (OSError, UnreachableError):
        raise
    except Exception as error:
        # Malformed headers make tarfile raise nearly any kind: ValueError, RecursionError and more.
        where = f"after {len(rows)} images " if rows else ""
        problem = f"not an uncompressed tar shard: {where}{error or type(error).__name__}"
        rows.append(("", Unreadable(problem)))
    return sorted(rows, key=lambda row: row[0])


def _is_image(member: tarfile.TarInfo) -> bool:
    visible = not any(is_hidden(part) for part in member.name.split("/"))
    return visible and not member.isdir() and has_suffix(member.name, IMAGE_SUFFIXES)


def _locate(path: str | Remote, member: tarfile.TarInfo) -> Location:
    if not member.isreg():
        return Unreadable("not a regular file in the shard (a link or device)")
    sparse = getattr(member, "sparse", None)
    pieces = None if sparse is None else tuple((start, length) for start, length in sparse)
    return TarLocation(path, member.offset_data, member.size, pieces)
