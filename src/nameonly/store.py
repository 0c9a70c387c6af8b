"""Features on disk: content-addressed, memory-mapped, written shard by shard, resumable.

A store is a folder for one key (model, revision, preprocessing, dtype). A shard is a ``.npy`` of
float32 rows and a parquet index of their ids that also carries the shard's checksum. The index is
written last, by an atomic rename: a shard without its index does not exist.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor

FORMAT = "1"
INDEX_FILES = "[0-9][0-9][0-9][0-9][0-9][0-9].parquet"


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
        self._rows: dict[str, tuple[int, int]] = {}
        self._shards: dict[int, np.ndarray] = {}
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
        self._shards[number] = values
        for row, image_id in enumerate(ids):
            self._rows[image_id] = (number, row)

    def _drop(self, number: int, reason: str) -> None:
        self._shards.pop(number, None)
        self._rows = {k: v for k, v in self._rows.items() if v[0] != number}
        for suffix in (".parquet", ".npy") if self._writable else ():
            (self.folder / f"{number:06d}{suffix}").unlink(missing_ok=True)
        self.repairs.append(
            f"shard {number} of {self.folder.name} was damaged ({reason}); it was dropped, and its "
            "features are made again"
        )

    def _verify(self, ids: Iterable[str]) -> None:
        """Check the bytes of every shard that holds one of these ids, once."""
        touched = {self._rows[i][0] for i in ids if i in self._rows} - self._verified
        for number in sorted(touched):
            metadata = pq.read_schema(self.folder / f"{number:06d}.parquet").metadata or {}
            values = self._shards[number]
            if metadata.get(b"crc32") == str(zlib.crc32(values.data)).encode():
                self._verified.add(number)
            else:
                self._drop(number, "its checksum does not fit")

    def __len__(self) -> int:
        return len(self._rows)

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return the ids that have no sound feature here, in the given order."""
        ids = list(ids)
        self._verify(ids)
        return [i for i in ids if i not in self._rows]

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
                np.save(file, array, allow_pickle=False)
                os.fsync(file.fileno())
            data.with_suffix(".npy.partial").replace(data)
            with index.with_suffix(".parquet.partial").open("wb") as file:
                pq.write_table(table, file)
                os.fsync(file.fileno())
            index.with_suffix(".parquet.partial").replace(index)
        self._verified.add(number)
        self._open_shard(index)

    def get(self, ids: Sequence[str]) -> Float[Tensor, "n d"]:
        """Return rows in the order of ``ids``.

        Raises:
            KeyError: If an id is not here; ask ``missing`` first.
        """
        self._verify(ids)
        places = [self._rows[i] for i in ids]
        dim = next(iter(self._shards.values())).shape[1] if self._shards else 0
        out = np.empty((len(ids), dim), dtype=np.float32)
        shard_of = np.array([p[0] for p in places], dtype=np.int64)
        row_of = np.array([p[1] for p in places], dtype=np.int64)
        for number in np.unique(shard_of):
            here = shard_of == number
            out[here] = self._shards[int(number)][row_of[here]]
        return torch.from_numpy(out)


def _write_atomically(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + f".partial-{os.getpid()}")
    with partial.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    partial.replace(path)
