"""Features on disk: content-addressed, memory-mapped, written shard by shard, resumable.

A store is a folder for one key (model, revision, preprocessing, dtype). A shard is a ``.npy`` of
float32 rows and a parquet index of their ids that also carries the shard's checksum. The index is
written last, by an atomic rename: a shard without its index does not exist.

Many rows are read through one more file, in which they lie in the order asked for: its pages come
from the disk when they are looked at and can go again, so that features need not fit into memory.
It holds nothing that the shards do not, and the last one is kept for the next run.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.room import MAPPED_BYTES

FORMAT = "1"
INDEX_FILES = "[0-9][0-9][0-9][0-9][0-9][0-9].parquet"
GATHERED = "gathered-"
ROWS_AT_ONCE = 4096


def default_cache() -> Path:
    """Return ``$NAMEONLY_CACHE``, or ``nameonly`` in the user's cache folder."""
    if chosen := os.environ.get("NAMEONLY_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nameonly"


def store_folder(cache: Path, kind: str, key: Mapping[str, str]) -> Path:
    """Return the folder of a key: readable, with a hash of the whole key."""
    digest = hashlib.sha256(json.dumps({**key, "format": FORMAT}, sort_keys=True).encode())
    readable = re.sub(r"[^\w.-]+", "-", key["backbone"]).strip("-")[-60:]
    return cache / kind / f"{readable}-{digest.hexdigest()[:16]}"


class FeatureStore:
    """The features of one key.

    Attributes:
        repairs: What was found damaged and dropped, in words; those features are made again.
    """

    def __init__(self, folder: Path, key: Mapping[str, str], *, create: bool = True) -> None:
        """Open the store in a folder.

        Args:
            folder: See ``store_folder``.
            key: What the features depend on.
            create: Make the folder; False only reads what there is.

        Raises:
            ValueError: If the folder holds features of another key.
            OSError: If the folder cannot be read or written.
        """
        self.folder = folder
        self.repairs: list[str] = []
        self._writable = create
        self._key = {**key, "format": FORMAT}
        # one number for shard and row: of millions of images a pair each would be felt
        self._places: dict[str, int] = {}
        self._widths: dict[int, int] = {}
        self._verified: set[int] = set()
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        self._check_key(create)
        for index in sorted(folder.glob(INDEX_FILES)):
            self._open_shard(index)

    def _lock(self) -> FileLock:
        return FileLock(self.folder / ".lock")

    def _check_key(self, create: bool) -> None:
        path = self.folder / "key.json"
        if not path.exists():
            if create:
                _write_atomically(path, json.dumps(self._key, indent=1, sort_keys=True).encode())
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != self._key:
            raise ValueError(
                f"the feature store {self.folder} belongs to another model or is damaged "
                "(its key.json does not fit); delete that folder, or choose another with --cache"
            )

    def _open_shard(self, index: Path) -> None:
        number = int(index.stem)
        try:
            table = pq.read_table(index)
            values = np.load(index.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
            ids = table.column("id").to_pylist()
            sound = values.dtype == np.float32 and values.ndim == 2 and len(values) == len(ids)
        except Exception as error:  # pyarrow and numpy raise many kinds on damaged files
            self._drop(number, str(error).splitlines()[0])
            return
        if not sound:
            self._drop(number, f"{values.shape} {values.dtype} for {len(ids)} ids")
            return
        self._widths[number] = values.shape[1]
        self._places.update(zip(ids, range(number << 32, (number << 32) + len(ids)), strict=True))

    def _shard(self, number: int) -> Float[np.ndarray, "r d"]:
        return _mapped(self.folder / f"{number:06d}.npy", "r")

    def _drop(self, number: int, reason: str) -> None:
        self._widths.pop(number, None)
        self._places = {k: v for k, v in self._places.items() if v >> 32 != number}
        for suffix in (".parquet", ".npy") if self._writable else ():
            (self.folder / f"{number:06d}{suffix}").unlink(missing_ok=True)
        self.repairs.append(
            f"shard {number} of {self.folder.name} was damaged ({reason}); it was dropped, and its "
            "features are made again"
        )

    def _verify(self, ids: Iterable[str]) -> None:
        """Check the bytes of every shard that holds one of these ids, once."""
        touched = {self._places[i] >> 32 for i in ids if i in self._places} - self._verified
        for number in sorted(touched):
            metadata = pq.read_schema(self.folder / f"{number:06d}.parquet").metadata or {}
            checksum = zlib.crc32(self._shard(number).data)
            if metadata.get(b"crc32") == str(checksum).encode():
                self._verified.add(number)
            else:
                self._drop(number, "its checksum does not fit")

    def __len__(self) -> int:
        return len(self._places)

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return the ids that have no sound feature here, in the given order."""
        ids = list(ids)
        self._verify(ids)
        return [i for i in ids if i not in self._places]

    def add(self, ids: Sequence[str], values: Float[Tensor, "n d"]) -> None:
        """Write one shard; it exists whole or not at all.

        Raises:
            ValueError: If ids and rows do not match.
            OSError: If the disk is full or cannot be written.
        """
        if len(ids) != len(values):
            raise ValueError(f"{len(ids)} ids for {len(values)} rows")
        if not ids:
            return
        array = np.ascontiguousarray(values.numpy(), dtype=np.float32)
        table = pa.table({"id": pa.array(ids, pa.string())})
        table = table.replace_schema_metadata({"crc32": str(zlib.crc32(array.data))})
        with self._lock():
            number = 1 + max((int(p.stem) for p in self.folder.glob(INDEX_FILES)), default=-1)
            data, index = (self.folder / f"{number:06d}{s}" for s in (".npy", ".parquet"))
            with data.with_suffix(".npy.partial").open("wb") as file:
                # np.save would not tell why a write fails
                header = np.lib.format.header_data_from_array_1_0(array)
                np.lib.format.write_array_header_1_0(file, header)
                file.write(array.data)
                os.fsync(file.fileno())
            data.with_suffix(".npy.partial").replace(data)
            with index.with_suffix(".parquet.partial").open("wb") as file:
                pq.write_table(table, file)
                os.fsync(file.fileno())
            index.with_suffix(".parquet.partial").replace(index)
        self._verified.add(number)
        self._open_shard(index)

    def get(self, ids: Sequence[str]) -> Float[Tensor, "n d"]:
        """Return rows in the order of ``ids``: a copy, or of many rows a map of a file.

        What is written into the rows of a map stays in memory and never reaches the file.

        Raises:
            KeyError: If an id is not here; ask ``missing`` first.
        """
        self._verify(ids)
        places = np.fromiter((self._places[i] for i in ids), np.int64, len(ids))
        width = next(iter(self._widths.values()), 0)
        if self._writable and 4 * len(ids) * width > MAPPED_BYTES:
            with suppress(OSError):  # on a full disk, or one to be read only, memory must do
                return torch.from_numpy(self._gathered(ids, places, width))
        return torch.from_numpy(self._copied(places, width))

    def _copied(self, places: Int[np.ndarray, " n"], width: int) -> Float[np.ndarray, "n d"]:
        out = np.empty((len(places), width), dtype=np.float32)
        shard_of, row_of = places >> 32, places & (2**32 - 1)
        for number in np.unique(shard_of):
            here = shard_of == number
            out[here] = self._shard(int(number))[row_of[here]]
        return out

    def _gathered(
        self, ids: Sequence[str], places: Int[np.ndarray, " n"], width: int
    ) -> Float[np.ndarray, "n d"]:
        """Map the file of these rows in this order; it is written where there is none."""
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(ids), ROWS_AT_ONCE):
            digest.update("".join(f"{i}\n" for i in ids[start : start + ROWS_AT_ONCE]).encode())
        path = self.folder / f"{GATHERED}{digest.hexdigest()}.npy"
        with self._lock():
            if not _is_whole(path, (len(ids), width)):
                for old in self.folder.glob(f"{GATHERED}*"):
                    with suppress(OSError):  # Windows keeps what another run looks at
                        old.unlink()
                self._gather(path, places, width)
            return _mapped(path, "c")

    def _gather(self, path: Path, places: Int[np.ndarray, " n"], width: int) -> None:
        """Write the rows, then their checksum: without it the file is not believed."""
        partial, checksum = path.with_suffix(".npy.partial"), 0
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(places), width)}
        with partial.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(places), ROWS_AT_ONCE):
                rows = self._copied(places[start : start + ROWS_AT_ONCE], width)
                checksum = zlib.crc32(rows.data, checksum)
                file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _write_atomically(path.with_suffix(".crc32"), str(checksum).encode())


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """Return whether a gathered file holds what was written, all of it."""
    try:
        expected, values = path.with_suffix(".crc32").read_text(), _mapped(path, "r")
    except (OSError, ValueError, EOFError):
        return False
    if values.shape != shape or values.dtype != np.float32:
        return False
    checksum = 0
    for start in range(0, len(values), ROWS_AT_ONCE):
        checksum = zlib.crc32(values[start : start + ROWS_AT_ONCE].data, checksum)
    return expected == str(checksum)


def _mapped(path: Path, mode: Literal["r", "c"]) -> Float[np.ndarray, "n d"]:
    values: np.ndarray = np.load(path, mmap_mode=mode, allow_pickle=False)
    return values


def _write_atomically(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + f".partial-{os.getpid()}")
    with partial.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    partial.replace(path)
