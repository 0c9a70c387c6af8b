"""Files of features: what they may hold, and how they are read without all of them in memory."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from nameonly.ops.room import large_matrix
from nameonly.sources.remote import is_remote

SUFFIXES = (".npz", ".safetensors")
EXPECTED = (
    "expected an npz or safetensors file with 'features' (n, d) and 'text_weights' (c, d), and as "
    "you like 'ids' (n), 'class_names' (c), 'logit_scale' (default 100)"
)
FEATURES = "features"
MEMBER = f"{FEATURES}.npy"
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class NpzRows:
    """The features of an npz, of which a few rows at a time are in memory.

    Attributes:
        path: The npz.
        shape: Of the array.
        dtype: Of the array.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the rows in order.

        Raises:
            Exception: Of whatever kind zipfile, zlib and numpy have for a damaged file.
        """
        n, width = self.shape
        with ZipFile(self.path) as archive, archive.open(MEMBER) as member:
            _header(member)
            for start in range(0, n, ROWS_AT_ONCE):
                rows = min(ROWS_AT_ONCE, n - start)
                # torch wants memory that could be written
                data = bytearray(member.read(rows * width * self.dtype.itemsize))
                yield np.frombuffer(data, self.dtype).reshape(rows, width)


def _npz_rows(path: Path) -> NpzRows | None:
    """Return the features of an npz; None where they lie column by column.

    Raises:
        ValueError: If the file holds other than it says, or pickled objects.
    """
    with ZipFile(path) as archive, archive.open(MEMBER) as member:
        shape, by_column, dtype = _header(member)
        claimed = member.tell() + math.prod(shape) * dtype.itemsize
        held = archive.getinfo(MEMBER).file_size
    if dtype.hasobject:
        raise ValueError(f"{FEATURES!r} holds pickled objects, which are never loaded")
    if claimed != held:
        raise ValueError(f"{FEATURES!r} of shape {shape} takes {claimed} bytes, found {held}")
    return None if by_column else NpzRows(path, shape, dtype)


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether columns come first, and dtype."""
    form = np.lib.format
    first = form.read_magic(member) == (1, 0)
    read = form.read_array_header_1_0 if first else form.read_array_header_2_0
    shape, by_column, dtype = read(member)
    return shape, by_column, dtype


def is_feature_file(source: object) -> bool:
    """Return whether a source names a file of features rather than images."""
    named = isinstance(source, str | Path) and str(source).lower().endswith(SUFFIXES)
    return named and not is_remote(str(source))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # numpy, zipfile, zlib and safetensors each raise their own
        raise ValueError(f"cannot read {path}: {error}; {EXPECTED}") from error


def read_arrays(path: Path) -> dict[str, Any]:
    """Read the arrays of a feature file, all but the features, which ``unit_matrix`` reads.

    Text in safetensors is JSON in its metadata.

    Raises:
        ValueError: If the file is missing, damaged, or holds pickled objects.
    """
    if not path.is_file():
        raise ValueError(f"no feature file at {path}; {EXPECTED}")
    with _reading(path):
        if path.suffix.lower() != ".npz":
            return _read_safetensors(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key != FEATURES}
            if FEATURES in archive.files:
                rows = _npz_rows(path)
                arrays[FEATURES] = archive[FEATURES] if rows is None else rows
        return arrays


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:  # its tensors are mapped
        arrays: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    for key in ("ids", "class_names"):
        if key in metadata:
            arrays[key] = json.loads(metadata[key])
    if "logit_scale" in metadata:
        arrays["logit_scale"] = float(metadata["logit_scale"])
    return arrays


def unit_matrix(path: Path, key: str, value: Any) -> Float[Tensor, "n d"]:
    """Return a matrix as float32 unit rows; a large one lies in a temporary file.

    That file has no name and takes 4 n d bytes where the system keeps such files (``TMPDIR``);
    where they do not fit there, memory must do.

    Args:
        path: Of the file.
        key: Of the matrix.
        value: What ``read_arrays`` found.

    Raises:
        ValueError: If it is not a finite matrix of numbers, or a row is zero.
    """
    rows = value if isinstance(value, Tensor | NpzRows) else np.asarray(value)
    shape, dtype = tuple(rows.shape), rows.dtype
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{path}: {key!r} must be a matrix with rows, got shape {shape}")
    if dtype.is_complex if isinstance(dtype, torch.dtype) else dtype.kind not in "fiu":
        raise ValueError(f"{path}: {key!r} must hold numbers, got {dtype}")
    bad, start = list[int](), 0
    with _reading(path):
        out = large_matrix(shape, Path(gettempdir()))
        for block in _blocks(rows):
            matrix = torch.as_tensor(block).float()
            wrong = ~torch.isfinite(matrix).all(dim=1) | (matrix == 0).all(dim=1)
            bad += (wrong.nonzero().flatten() + start).tolist()
            out[start : start + len(matrix)] = normalize(matrix, dim=1)
            start += len(matrix)
    if bad:
        raise ValueError(
            f"{path}: {key!r} has {len(bad)} rows that are zero or not finite, first {bad[:5]}"
        )
    return out


def _blocks(rows: Any) -> Iterator[Any]:
    if isinstance(rows, NpzRows):
        yield from rows.blocks()
    else:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield rows[start : start + ROWS_AT_ONCE]
