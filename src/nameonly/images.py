"""Folders, files, tables and tar shards to an ``ImageSet``; what cannot be read is set aside.

Opening reads and hashes every image but decodes none; ``load`` decodes one row when it is needed.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from nameonly.sources.decoding import BadImageError, decode, upright_rgb
from nameonly.sources.locations import FileLocation, Unreadable, reason
from nameonly.sources.paths import (
    IMAGE_SUFFIXES,
    SHARD_SUFFIXES,
    TABLE_SUFFIXES,
    Found,
    find_files,
    has_suffix,
)
from nameonly.sources.shards import list_members
from nameonly.sources.tables import list_rows
from nameonly.types import ImageSet, Location

__all__ = [
    "BadImageError",
    "Quarantined",
    "content_id",
    "decode",
    "hash_rows",
    "load",
    "open_images",
    "upright_rgb",
]

_THREADS = 8
_ROWS_AT_ONCE = 256
_UNPRINTABLE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Quarantined:
    """A row that is left out.

    Attributes:
        source: Where the row came from, as in ``ImageSet.sources``.
        reason: What is wrong with it.
    """

    source: str
    reason: str


def open_images(
    spec: str | Path | Sequence[str | Path],
    *,
    column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[ImageSet, list[Quarantined]]:
    """Find images and hash their bytes.

    Args:
        spec: One or several of: an image file, a folder (read with its subfolders), a glob, a
            .parquet, .csv or .arrow table, a folder that Hugging Face ``save_to_disk`` wrote, a
            .tar shard, a brace list such as ``a-{000..003}.tar``. A folder without images gives
            the .parquet tables and .tar shards in it.
        column: The tables' column of encoded images or of paths; guessed when None.
        limit: How many sources to draw at random, before any is read; all when None.
        seed: Decides the draw.
        on_progress: Called with the rows read so far and the rows in all.

    Returns:
        The images sorted by source, table rows in table order; and the rows that cannot be read.

    Raises:
        ValueError: If a source does not exist, no image is found, none can be read, a table's
            column is not clear, or ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None for all images, got {limit}")
    rows = _list_sources(find_files(spec), column)
    if not rows:
        raise ValueError(
            f"no image found in {_shortened(spec)}: looked for {', '.join(IMAGE_SUFFIXES)}; "
            "without any, for rows of .parquet and members of .tar (a .csv must be named itself)"
        )
    if limit is not None and limit < len(rows):
        drawn = random.Random(seed).sample(range(len(rows)), limit)
        rows = [rows[i] for i in sorted(drawn)]
    return hash_rows(rows, on_progress)


def load(images: ImageSet, row: int) -> Image.Image:
    """Read and decode one row: RGB, upright.

    Raises:
        BadImageError: If its bytes cannot be read, have changed since, or are no whole image.
    """
    try:
        data = images.locations[row].read()
    except OSError as error:
        raise BadImageError(reason(error)) from error
    if content_id(data) != images.ids[row]:
        raise BadImageError("changed while running: its bytes are not those that were opened")
    return decode(data)


def content_id(data: bytes) -> str:
    """Return the hash of an image's encoded bytes: 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _list_sources(files: Sequence[Found], column: str | None) -> list[tuple[str, Location]]:
    """List every row of every file with a source string of its own."""
    if column is not None and not any(has_suffix(file.given, TABLE_SUFFIXES) for file in files):
        raise ValueError(f"column={column!r} was given, but there is no table among the sources")
    sources: list[str] = []
    locations: list[Location] = []
    for name, file in zip(_names(files), files, strict=True):
        for suffix, location in _list_file(file, column):
            sources.append(name + suffix)
            locations.append(location)
    return list(zip(_unique(sources), locations, strict=True))


def _list_file(file: Found, column: str | None) -> list[tuple[str, Location]]:
    # Absolute, so that a later change of the working folder loses no image.
    path = str(Path(file.given).absolute())
    if file.problem is not None:
        return [("", Unreadable(file.problem))]
    try:
        if has_suffix(path, SHARD_SUFFIXES):
            return list_members(path)
        if has_suffix(path, TABLE_SUFFIXES):
            return list_rows(path, column)
    except OSError as error:
        return [("", Unreadable(reason(error)))]
    return [("", FileLocation(path))]


def _names(files: Sequence[Found]) -> list[str]:
    """Return the files' short names, longer ones where the short ones are the same."""
    names = [file.name for file in files]
    for longer in (lambda path: path, lambda path: str(Path(path).absolute())):
        counts = Counter(names)
        names = [
            longer(file.given) if counts[name] > 1 else name
            for name, file in zip(names, files, strict=True)
        ]
    return names


def _unique(sources: Sequence[str]) -> list[str]:
    """Make sources printable, and number those that are the same thereafter."""
    printable = [_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", source) for source in sources]
    taken, used = set(printable), set[str]()
    unique = []
    for source in printable:
        name, number = source, 1
        while name in used or (number > 1 and name in taken):
            number += 1
            name = f"{source} ({number})"
        used.add(name)
        unique.append(name)
    return unique


def hash_rows(
    rows: Sequence[tuple[str, Location]], on_progress: Callable[[int, int], None] | None = None
) -> tuple[ImageSet, list[Quarantined]]:
    """Read and hash images whose places are known.

    Args:
        rows: A source, unique, and a location for each image.
        on_progress: Called with the rows read so far and the rows in all.

    Returns:
        The images in the given order; and the rows that cannot be read.

    Raises:
        ValueError: If none can be read.
    """
    good: list[tuple[str, str, Location]] = []
    quarantined: list[Quarantined] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            block = rows[start : start + _ROWS_AT_ONCE]
            hashed = pool.map(_hash_bytes, [location for _, location in block])
            for (source, location), (image_id, problem) in zip(block, hashed, strict=True):
                if problem is None:
                    good.append((source, image_id, location))
                else:
                    quarantined.append(Quarantined(source, problem))
            if on_progress is not None:
                on_progress(start + len(block), len(rows))
    if not good:
        first = "; ".join(f"{bad.source}: {bad.reason}" for bad in quarantined[:3])
        raise ValueError(f"none of {len(rows)} images can be read: {first}")
    sources, ids, locations = zip(*good, strict=True)
    return ImageSet(sources, ids, locations), quarantined


def _hash_bytes(location: Location) -> tuple[str, str | None]:
    """Return the content id and None, or an empty id and the reason why there is none."""
    try:
        return content_id(location.read()), None
    except OSError as error:
        return "", reason(error)


def _shortened(spec: str | Path | Sequence[str | Path]) -> str:
    items = [spec] if isinstance(spec, str | Path) else list(spec)
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(repr(str(item)) for item in items[:3]) + more
