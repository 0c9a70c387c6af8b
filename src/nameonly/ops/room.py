"""Room for what is large: whether scores fit into memory, and arrays that lie on the disk."""

import errno
import math
import os
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

BYTES = 4
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
        f"({arrays} arrays of 4 bytes each), and {free:,} are free; take fewer images at once "
        f"(here about {fit:,} fit: --limit, then `nameonly predict` for the others in parts), or "
        "fewer classes"
    )


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
