"""Images in tables: parquet, CSV and Arrow files with a column of paths or of encoded bytes.

No other column is read, so that no label can come in with an image.
"""

import csv
import io
import os
import posixpath
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from nameonly.sources.locations import (
    MAX_BYTES,
    FileLocation,
    Unreadable,
    check_bytes,
    check_regular,
    reason,
)
from nameonly.sources.paths import has_suffix
from nameonly.sources.remote import (
    RangeFile,
    Remote,
    RemoteFile,
    check_url,
    is_remote,
    public,
    read_range,
)
from nameonly.sources.spool import bytes_and_path, spooled
from nameonly.types import Location

USUAL_NAMES = (
    "image", "img", "path", "file", "filename", "file_name", "filepath", "image_path", "bytes",
)  # fmt: skip

# A file's (path, inode, size, time of change), or an object: what is cached ends when it changes.
_Stamp = tuple[str, int, int, int] | Remote
_reading = threading.Lock()


@dataclass(frozen=True, slots=True)
class TableLocation:
    """Encoded bytes in one cell: binary, or Hugging Face's struct of bytes and path.

    Attributes:
        path: The table: a file, or an object in a store.
        column: The column of images.
        row: From 0.
    """

    path: str | Remote
    column: str
    row: int

    def read(self) -> bytes:
        """Return the bytes of the cell, or of the file that the cell names in their place.

        Raises:
            OSError: If the table is gone or broken, or the cell is null or empty.
        """
        stamp = _stamp(self.path)
        try:
            # Threads that reach a new row group together read it once.
            with _reading:
                starts = _block_starts(stamp, self.column)
                block = bisect_right(starts, self.row) - 1
                data, named = _cell(stamp, self.column, block, self.row - starts[block])
        except (pa.ArrowException, LookupError) as error:
            raise OSError(f"the table is broken or has changed: {error}") from error
        if data is not None:
            check_bytes(len(data))
            return bytes(data)
        return _path_cell(self.path, named).read()


@dataclass(frozen=True, slots=True)
class PathCell:
    """A file that a cell of a table names.

    Attributes:
        path: The file, the table's own folder put before it.
        cell: The path as it stands in the table.
    """

    path: str
    cell: str

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            OSError: As of ``FileLocation``, with the cell named.
        """
        try:
            return FileLocation(self.path).read()
        except OSError as error:
            raise OSError(f"{reason(error)}: {self.cell}") from error


@dataclass(frozen=True, slots=True)
class UrlCell:
    """An object that a cell of a table names.

    Attributes:
        url: Where it is.
    """

    url: str = field(repr=False)

    def read(self) -> bytes:
        """Return the bytes of the object.

        Raises:
            OSError: As of ``RemoteFile``, with the object named.
            UnreachableError: If its server answers no more.
        """
        try:
            return RemoteFile(self.url).read()
        except OSError as error:
            raise OSError(f"{reason(error)}: {public(self.url)}") from None


def list_rows(path: str | Remote, column: str | None) -> list[tuple[str, Location]]:
    """List the rows of a table in their order, as ``#row`` (from 0) and location.

    Args:
        path: A .parquet, .csv or .arrow (stream) file; an object may not be an .arrow one.
        column: The column of images or paths; guessed when None.

    Raises:
        ValueError: If the column is absent, ambiguous or of another type.
        OSError: If the file is gone or not readable as what its name says.
    """
    stamp = _stamp(path)
    try:
        schema = _schema(stamp)
        column = choose_column(schema, column, _name(stamp))
        if _holds_bytes(schema.field(column).type):
            count = range(_block_starts(stamp, column)[-1])
            return [(f"#{row}", TableLocation(path, column, row)) for row in count]
        cells = _path_cells(stamp, column)
        return [(f"#{row}", _path_cell(path, cell)) for row, cell in enumerate(cells)]
    except (pa.ArrowException, csv.Error, UnicodeError, OSError) as error:
        kind = Path(_name(stamp)).suffix.lower()
        text = reason(error) if isinstance(error, OSError) else str(error)
        text = " ".join(text.split())
        raise OSError(f"not readable as a {kind} file: {text}") from error


def choose_column(schema: pa.Schema, column: str | None, path: str) -> str:
    """Return the one column that holds images or their paths.

    Without a name: the only column of bytes, else the only one that is usually called so.

    Raises:
        ValueError: If there is no such column, or more than one, or it is of another type.
    """
    listed = ", ".join(f"{field.name!r} ({_type_name(field.type)})" for field in schema)
    has = f"the columns of {path!r} are: {listed}"
    if column is None:
        of_bytes = [field.name for field in schema if _holds_bytes(field.type)]
        of_paths = [field.name for field in schema if _holds_paths(field.type)]
        names = of_bytes
        if len(names) != 1:
            names = [n for n in of_bytes or of_paths if n.strip().casefold() in USUAL_NAMES]
        if len(names) != 1:
            found = f"several could be ({names})" if names else "none is known by its name or type"
            raise ValueError(f"which column holds the images? {found}; name it with column; {has}")
        column = names[0]
    if schema.names.count(column) != 1:
        raise ValueError(f"column {column!r} is there {schema.names.count(column)} times; {has}")
    kind = schema.field(column).type
    if not (_holds_bytes(kind) or _holds_paths(kind)):
        raise ValueError(
            f"column {column!r} holds neither bytes (binary) nor paths (string); {has}"
        )
    return column


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _type_name(kind: pa.DataType) -> str:
    return "struct" if pa.types.is_struct(kind) else str(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        inner = [field.type for field in kind if field.name == "bytes"]
        return len(inner) == 1 and _is_binary(inner[0])
    return _is_binary(_value_type(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _holds_paths(kind: pa.DataType) -> bool:
    return str(_value_type(kind)) in ("string", "large_string", "string_view")


def _stamp(path: str | Remote) -> _Stamp:
    return path if isinstance(path, Remote) else (path, *check_regular(path))


def _name(stamp: _Stamp) -> str:
    """Return the table's path, fit to be shown."""
    return public(stamp.url) if isinstance(stamp, Remote) else stamp[0]


def _source(stamp: _Stamp) -> Any:
    """Return what pyarrow opens."""
    return RangeFile(stamp) if isinstance(stamp, Remote) else stamp[0]


def _schema(stamp: _Stamp) -> pa.Schema:
    path = _name(stamp)
    if has_suffix(path, (".parquet",)):
        return _parquet_layout(stamp).schema.to_arrow_schema()
    if has_suffix(path, (".arrow",)):
        if isinstance(stamp, Remote):
            raise OSError("it has no index to be read by; copy it here first, or make it parquet")
        with pa.memory_map(path) as source:
            return pa.ipc.open_stream(source).schema
    if isinstance(stamp, Remote):
        return _header(io.StringIO(_whole(stamp).decode("utf-8-sig", "surrogateescape"), ""))
    with Path(path).open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
        return _header(lines)


def _header(lines: Iterable[str]) -> pa.Schema:
    names = next((row for row in csv.reader(lines) if row), [])
    return pa.schema([(name, pa.string()) for name in names])


@lru_cache(maxsize=2)
def _whole(remote: Remote) -> bytes:
    return read_range(remote, 0, MAX_BYTES if remote.size is None else remote.size)


def _path_cells(stamp: _Stamp, column: str) -> Iterator[bytes | None]:
    """Yield the paths in their bytes: not every file system's paths are valid UTF-8."""
    if has_suffix(_name(stamp), (".csv",)):
        table = pyarrow.csv.read_csv(
            io.BytesIO(_whole(stamp)) if isinstance(stamp, Remote) else stamp[0],
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[column],
                column_types={column: pa.binary()},
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        yield from table.column(0).to_pylist()
        return
    for block in range(len(_block_starts(stamp, column)) - 1):
        for cells in _read_block(stamp, column, block).chunks:
            if pa.types.is_dictionary(cells.type):
                cells = cells.dictionary_decode()
            yield from cells.cast(pa.large_binary()).to_pylist()


def _path_cell(table: str | Remote, cell: bytes | None) -> Location:
    if not cell:
        return Unreadable("the cell of the table is null or empty")
    written = os.fsdecode(cell)
    if is_remote(written):
        return _url_cell(written)
    if not isinstance(table, Remote):
        return PathCell(str(Path(table).parent / written), written)
    place = public(table.url).split("/")
    key = posixpath.normpath("/".join([*place[3:-1], written]))
    if written.startswith("/") or key.split("/")[0] == "..":
        return Unreadable(f"a table in a store names a file outside of it: {written}")
    # the credentials of the web are part of the address
    server = "/".join(table.url.split("/")[:3])
    return _url_cell(f"{server}/{key}")


def _url_cell(url: str) -> Location:
    try:
        check_url(url)
    except ValueError as error:
        return Unreadable(str(error))
    return UrlCell(url)


def _cell(stamp: _Stamp, column: str, block: int, row: int) -> tuple[bytes | None, bytes | None]:
    """Return the bytes of an image and the path beside them, None for what is not there."""
    if isinstance(stamp, Remote):
        # images are asked for in an order of their own: each row group is fetched once, all of it
        found = spooled((stamp, column, block), lambda: _read_block(stamp, column, block))
        return found.bytes_and_path(row)
    return bytes_and_path(_read_block(stamp, column, block)[row])


@lru_cache(maxsize=8)
def _parquet_layout(stamp: _Stamp) -> pq.FileMetaData:
    return pq.read_metadata(_source(stamp))


@lru_cache(maxsize=4096)
def _block_starts(stamp: _Stamp, column: str) -> tuple[int, ...]:
    """Return the first row of each row group, and the number of rows after the last."""
    if has_suffix(_name(stamp), (".parquet",)):
        layout = _parquet_layout(stamp)
        sizes = [layout.row_group(group).num_rows for group in range(layout.num_row_groups)]
    else:
        sizes = [len(_read_block(stamp, column, 0))]
    return tuple(accumulate(sizes, initial=0))


@lru_cache(maxsize=2)
def _read_block(stamp: _Stamp, column: str, block: int) -> pa.ChunkedArray:
    """Return one column of one row group; an Arrow file is one block, mapped and not copied."""
    if has_suffix(_name(stamp), (".parquet",)):
        with pq.ParquetFile(_source(stamp), metadata=_parquet_layout(stamp)) as table:
            return table.read_row_group(block, columns=[column]).column(column)
    assert not isinstance(stamp, Remote)  # the schema was read before
    with pa.memory_map(stamp[0]) as source:
        column_index = pa.ipc.open_stream(source).schema.get_field_index(column)
        source.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=[column_index])
        cells = pa.ipc.open_stream(source, options=options).read_all().column(0)
    # The stream is taken as it lies on the disk: a damaged offset would end the process.
    cells.validate(full=True)
    return cells
