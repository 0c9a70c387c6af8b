"""Room for what is large: whether scores fit into memory, and arrays that lie on the disk."""

import errno
import math
import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

BYTES = 4
# fewer bytes are kept in memory
MAPPED_BYTES = 64 * 2**20
# what a file system says that cannot give out its room beforehand
UNABLE = (errno.EINVAL, errno.EOPNOTSUPP)


def free_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes that are free or can be freed; None where the system does not say."""
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((1024 * int(kilobytes) for kilobytes in found), None)


def check_room(n: int, c: int, arrays: int, free: int | None) -> None:
    """Refuse scores that memory cannot hold, before anything is done for them.

    Args:
        n: Images.
        c: Classes.
        arrays: How many float32 arrays of n x c are held at once.
        free: Bytes that there are; None where that is not known, which is taken as enough.

    Raises:
        ValueError: If they do not fit; it says how many images would.
    """
    needed = arrays * n * c * BYTES
    if free is None or needed <= free:
        return
    fit = free // (arrays * c * BYTES)
    raise ValueError(
        f"scores of {n:,} images x {c:,} classes need about {needed:,} bytes of memory "
        f"({arrays} arrays of 4 bytes each), and {free:,} are free; learn from a random sample and "
        f"label all the same: --adapt-on N, where here about {fit:,} fit"
    )


def free_disk(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or would be made."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def check_disk(n: int, c: int, folder: Path, free: int | None) -> None:
    """Refuse probabilities that neither the disk nor memory can hold.

    Args:
        n: Images.
        c: Classes.
        folder: Where ``large_matrix`` would put them.
        free: Bytes of memory that there are; None where that is not known.

    Raises:
        ValueError: If there is no room for them.
    """
    needed, disk = n * c * BYTES, free_disk(folder)
    if free is None or needed <= max(free, disk):
        return
    raise ValueError(
        f"probabilities of {n:,} images x {c:,} classes need {needed:,} bytes for as long as the "
        f"run lasts; {disk:,} are free on the disk of {folder} and {free:,} in memory. Name a "
        "folder with more room with --cache, or predict in parts"
    )


def large_matrix(shape: tuple[int, int], folder: Path) -> Float[Tensor, "n d"]:
    """Return a float32 matrix to be filled; a large one lies in a file without a name.

    Where the disk has no room for that file, memory must do.

    Args:
        shape: Of the matrix.
        folder: Of the file.
    """
    if BYTES * math.prod(shape) > MAPPED_BYTES:
        with suppress(OSError):
            return torch.from_numpy(nameless_array(shape, np.float32, folder))
    return torch.empty(shape)


def nameless_array(shape: tuple[int, ...], dtype: type[np.generic], folder: Path) -> np.ndarray:
    """Return an array of zeros in a file without a name, which not even a kill leaves behind.

    Args:
        shape: Of the array, none of it zero.
        dtype: Of its numbers.
        folder: Of the file; it is made where there is none.

    Raises:
        OSError: If the folder has no room for the file or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        reserve(file.fileno(), math.prod(shape) * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=shape)


def reserve(file: int, n_bytes: int) -> None:
    """Take an open file's room from the disk, where the system can do so beforehand.

    A write to a mapped file on a full disk kills the process without a word.

    Raises:
        OSError: If there is not as much.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, n_bytes)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
