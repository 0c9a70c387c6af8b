"""Data sets whose images lie together in one file: MNIST, CIFAR, parquet, the bundled digits."""

import gzip
import io
import math
import threading
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, UInt8
from PIL import Image

from nameonly.datasets.layouts import Folder, Layout, Listing, Row
from nameonly.sources.locations import check_regular, reason
from nameonly.sources.tables import list_rows
from nameonly.tiny.digits import halves, load_digits_images

_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801
_unpacking = threading.Lock()


@dataclass(frozen=True, slots=True)
class PixelLocation:
    """Raw pixels in the middle of a file, read as an encoded image.

    The encoding is BMP: its bytes, and so the image's id, follow from the pixels alone, where those
    of a PNG change with the version of zlib.

    Attributes:
        path: The file; one that ends in .gz is unpacked in memory.
        offset: Where the pixels begin.
        shape: Channels, height, width; one channel is grey, three are red, green and blue planes.
    """

    path: str
    offset: int
    shape: tuple[int, int, int]

    def read(self) -> bytes:
        """Return the image as the bytes of a BMP file.

        Raises:
            OSError: If the file is gone or ends too early.
        """
        size = math.prod(self.shape)
        if self.path.endswith(".gz"):
            raw = _content(Path(self.path))[self.offset : self.offset + size]
        else:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                raw = file.read(size)
        if len(raw) < size:
            raise OSError(f"the file ends after {len(raw)} of the image's {size} bytes")
        planes = np.frombuffer(raw, np.uint8).reshape(self.shape)
        return _bmp(planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1))


@dataclass(frozen=True, slots=True)
class MemoryLocation:
    """Encoded bytes that are held in memory."""

    data: bytes

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data


@dataclass(frozen=True, kw_only=True)
class Idx(Layout):
    """MNIST's files of big-endian header and raw bytes, packed by gzip or not.

    Attributes:
        train: What the names of the training files begin with.
        test: What the names of the test files begin with.
    """

    train: str
    test: str

    def files(self) -> tuple[str, ...]:
        """Return the two files of each split."""
        return tuple(
            f"{split}-{kind}-ubyte"
            for split in (self.train, self.test)
            for kind in ("images-idx3", "labels-idx1")
        )

    def missing(self, folder: Folder) -> list[str]:
        """Return the files that are there neither as they are, nor packed, nor with a dot."""
        return [f"{name} or {name}.gz" for name in self.files() if _find_idx(folder, name) is None]

    def read(self, folder: Folder) -> Listing:
        """List the images of both splits."""
        names = self.files()
        return Listing(_idx_rows(folder, *names[:2]), _idx_rows(folder, *names[2:]))


def _find_idx(folder: Folder, name: str) -> Path | None:
    spellings = (name, name.replace("-idx", ".idx"))
    found = (folder.find(spelling + end) for spelling in spellings for end in ("", ".gz"))
    return next((path for path in found if path is not None and path.is_file()), None)


def _idx_rows(folder: Folder, images: str, labels: str) -> list[Row]:
    path, labels_path = _find_idx(folder, images), _find_idx(folder, labels)
    assert path is not None and labels_path is not None, "missing() has looked"
    (n, height, width), _ = _open_idx(path, _IDX_IMAGES)
    (n_labels,), values = _open_idx(labels_path, _IDX_LABELS)
    if n != n_labels:
        raise ValueError(f"{path.name} holds {n} images, {labels_path.name} {n_labels} labels")
    return [
        Row(f"{images}#{i}", PixelLocation(str(path), 16 + i * height * width, shape), str(label))
        for shape in [(1, height, width)]
        for i, label in enumerate(values.tolist())
    ]


def _open_idx(path: Path, magic: int) -> tuple[list[int], UInt8[np.ndarray, " n"]]:
    """Return the sizes that an idx file states, and its bytes."""
    try:
        content = _content(path)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {reason(error)}") from error
    n_axes = magic & 0xFF
    n_header = 4 * (n_axes + 1)
    if len(content) < n_header or int.from_bytes(content[:4], "big") != magic:
        raise ValueError(f"{path.name} is no idx file of {n_axes} axes: {content[:4]!r} leads it")
    sizes = np.frombuffer(content[4:n_header], ">u4").tolist()
    values = np.frombuffer(content, np.uint8, offset=n_header)
    if len(values) != math.prod(sizes):
        raise ValueError(
            f"{path.name} states {' x '.join(map(str, sizes))} bytes and holds {len(values):,}; "
            "it was cut short or changed"
        )
    return sizes, values


def _content(path: Path) -> bytes:
    # Threads that reach a packed file together unpack it once.
    with _unpacking:
        return _unpack(str(path), check_regular(str(path)))


@lru_cache(maxsize=2)
def _unpack(path: str, stamp: tuple[int, int, int]) -> bytes:
    raw = Path(path).read_bytes()
    try:
        return gzip.decompress(raw) if path.endswith(".gz") else raw
    except (EOFError, zlib.error) as error:
        raise OSError(f"the gzip file is cut short or broken: {error}") from error


@dataclass(frozen=True, kw_only=True)
class CifarBinary(Layout):
    """CIFAR's binary version: records of labels, then a red, a green and a blue plane of 32 x 32.

    Attributes:
        train: Files of the training split.
        test: Files of the test split.
        label_bytes: Labels that lead a record; the last one is the class.
        pickled: A file of the python version, which is not read.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    pickled: str

    def files(self) -> tuple[str, ...]:
        """Return the files of both splits."""
        return (*self.train, *self.test)

    def missing(self, folder: Folder) -> list[str]:
        """Return the files that are not there.

        Raises:
            ValueError: If the python version is there in their place.
        """
        missing = super().missing(folder)
        pickled = folder.find(self.pickled) or folder.find(Path(self.pickled).name)
        if missing and pickled is not None and pickled.is_file():
            raise ValueError(
                f"{pickled} belongs to the python version; it is a pickle, which can run any code "
                "when it is read, so it is not. Get the binary version from the same page"
            )
        return missing

    def read(self, folder: Folder) -> Listing:
        """List the records of both splits."""
        train, test = (
            [row for name in names for row in self._rows(folder.file(name), name)]
            for names in (self.train, self.test)
        )
        return Listing(train, test)

    def _rows(self, path: Path, name: str) -> list[Row]:
        shape = (3, 32, 32)
        record = self.label_bytes + math.prod(shape)
        size = path.stat().st_size
        if size == 0 or size % record:
            raise ValueError(
                f"{name} holds {size:,} bytes, no whole number of {record}-byte records; "
                "it was cut short or is of another version"
            )
        records = np.memmap(path, np.uint8, mode="r").reshape(-1, record)
        starts = range(self.label_bytes, size, record)
        labels = records[:, self.label_bytes - 1].tolist()
        return [
            Row(f"{name}#{i}", PixelLocation(str(path), start, shape), str(label))
            for i, (start, label) in enumerate(zip(starts, labels, strict=True))
        ]


@dataclass(frozen=True, kw_only=True)
class Parquet(Layout):
    """A parquet table for each split, with encoded images and labels (names or positions).

    Attributes:
        train: Table of the training split.
        test: Table of the test split.
        image: Column of encoded bytes, or of Hugging Face's struct of bytes and path.
        label: Column of labels.
    """

    train: str
    test: str
    image: str
    label: str

    def files(self) -> tuple[str, ...]:
        """Return both tables."""
        return self.train, self.test

    def read(self, folder: Folder) -> Listing:
        """List the rows of both tables."""
        return Listing(self._rows(folder, self.train), self._rows(folder, self.test))

    def _rows(self, folder: Folder, name: str) -> list[Row]:
        path = folder.file(name)
        try:
            rows = list_rows(str(path), self.image)
            with pq.ParquetFile(path) as table:
                if self.label not in table.schema_arrow.names:
                    raise ValueError(f"the columns are {table.schema_arrow.names}")
                labels = table.read(columns=[self.label]).column(self.label).to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ValueError(
                f"{name} is no table of images in {self.image!r} and labels in {self.label!r}: "
                f"{error}"
            ) from error
        empty = [i for i, label in enumerate(labels) if label is None]
        if empty:
            raise ValueError(f"{name}: {len(empty)} rows have no label, row {empty[0]} first")
        return [
            Row(name + number, location, str(label))
            for (number, location), label in zip(rows, labels, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class BundledDigits(Layout):
    """The digits that come with scikit-learn, cut into halves as ``nameonly.tiny.digits`` does."""

    bundled: ClassVar[bool] = True

    def files(self) -> tuple[str, ...]:
        """Return nothing: no folder is read."""
        return ()

    def read(self, folder: Folder) -> Listing:
        """Return the development half to adapt on and the final half to score."""
        pictures, labels, ids = load_digits_images()
        rows = [
            Row(name, MemoryLocation(_bmp(np.asarray(picture))), str(label))
            for name, picture, label in zip(ids, pictures, labels.tolist(), strict=True)
        ]
        train, test = (_chosen(rows, half) for half in halves())
        return Listing(train, test)


def _chosen(rows: list[Row], half: Int[np.ndarray, " m"]) -> list[Row]:
    return [rows[i] for i in half.tolist()]


def _bmp(pixels: UInt8[np.ndarray, "height width *channels"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "BMP")
    return buffer.getvalue()
