"""Single files as the place of an image's bytes, and the checks that all such places share."""

import stat
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class FileLocation:
    """Encoded bytes that are one file."""

    path: str

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            OSError: If it is gone, unreadable, empty, too large or no regular file.
        """
        check_bytes(check_regular(self.path)[1])
        return Path(self.path).read_bytes()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The place of a row whose problem is known before it is read."""

    reason: str

    def read(self) -> bytes:
        """Raise the problem.

        Raises:
            OSError: Always, with the reason.
        """
        raise OSError(self.reason)


def check_regular(path: str) -> tuple[int, int, int]:
    """Look at a file without opening it, since opening a named pipe would wait for ever.

    Returns:
        A stamp that changes with the file: inode, size in bytes, time of change in nanoseconds.

    Raises:
        OSError: If it is missing, empty or no regular file.
    """
    try:
        status = Path(path).stat()
    except ValueError as error:  # a null character, possible in the cell of a table
        raise OSError(f"not a path: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file (a folder, named pipe, socket or device)")
    if status.st_size == 0:
        raise OSError("zero bytes")
    return status.st_ino, status.st_size, status.st_mtime_ns


def check_bytes(size: int) -> None:
    """Refuse what no encoded image is, before it fills the memory.

    Raises:
        OSError: If the size is zero or above ``MAX_BYTES``.
    """
    if size == 0:
        raise OSError("zero bytes")
    if size > MAX_BYTES:
        raise OSError(f"{size} bytes; an encoded image of at most {MAX_BYTES} is read")


def reason(error: OSError) -> str:
    """Return why reading failed, without the path that the row's source already tells."""
    if isinstance(error, FileNotFoundError):
        return "no such file (it vanished, or a link points to nothing)"
    return error.strerror or str(error)
