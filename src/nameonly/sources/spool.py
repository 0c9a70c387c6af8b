"""Cells of tables that were fetched once: their bytes lie in a file that goes with the process."""

import os
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import IO

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from nameonly.sources.remote import nameless_file


@dataclass(frozen=True, eq=False)
class Spooled:
    """Where the images of one row group lie.

    Attributes:
        file: Holds them.
        places: For each row the start and the length of the image and of the path beside it, a
            length of -1 for what is not there.
    """

    file: IO[bytes]
    places: Int64[np.ndarray, "n 4"]

    def bytes_and_path(self, row: int) -> tuple[bytes | None, bytes | None]:
        """Return the bytes of an image and the path beside them, None for what is not there."""
        start, length, path_start, path_length = (int(place) for place in self.places[row])
        return self._piece(start, length), self._piece(path_start, path_length)

    def _piece(self, start: int, length: int) -> bytes | None:
        return None if length < 0 else os.pread(self.file.fileno(), length, start)


_spooled: dict[Hashable, Spooled] = {}
_writing = threading.Lock()


@cache
def _file(process: int) -> IO[bytes]:
    return nameless_file()


def spooled(key: Hashable, read: Callable[[], pa.ChunkedArray]) -> Spooled:
    """Return a row group that was fetched, fetching it where it was not.

    Args:
        key: Of the row group.
        read: Fetches its column of images.

    Raises:
        OSError: If it cannot be fetched, or the folder for temporary files is full.
    """
    with _writing:
        if (key, os.getpid()) not in _spooled:
            _spooled[key, os.getpid()] = _write(_file(os.getpid()), read())
        return _spooled[key, os.getpid()]


def _write(file: IO[bytes], cells: pa.ChunkedArray) -> Spooled:
    places = np.full((len(cells), 4), -1, np.int64)
    at = file.seek(0, os.SEEK_END)
    for row, cell in enumerate(cells):
        for field, piece in enumerate(bytes_and_path(cell)):
            if piece is not None:
                file.write(piece)
                places[row, 2 * field : 2 * field + 2] = at, len(piece)
                at += len(piece)
    file.flush()
    return Spooled(file, places)


def bytes_and_path(cell: pa.Scalar) -> tuple[bytes | None, bytes | None]:
    """Return what a cell holds: an image's bytes, or Hugging Face's struct of bytes and path."""
    path = None
    if pa.types.is_struct(cell.type) and cell.is_valid:
        path = cell.get("path")
        cell = cell["bytes"]
    data = cell.as_py()
    return data, None if path is None else path.cast(pa.binary()).as_py()
