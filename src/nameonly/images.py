"""Folders, files, tables and tar shards to an ``ImageSet``; what cannot be read is set aside.

Opening reads and hashes every image but decodes none; ``load`` decodes one row when it is needed.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
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
from nameonly.sources.remote import RemoteFile, is_far, is_remote, look, public
from nameonly.sources.shards import list_members
from nameonly.sources.tables import list_rows
from nameonly.types import ImageSet, Location

__all__ = [
    "BadImageError",
    "Quarantined",
    "Transform",
    "content_id",
    "decode",
    "hash_rows",
    "load",
    "open_images",
    "shortened",
    "upright_rgb",
]

_THREADS = 8
_REMOTE_THREADS = 32
ROWS_AT_ONCE = 256

# yields for each location its content id and None, or an empty id and the reason why there is none
HashAll = Callable[
    [Sequence[Location], Callable[[int, int], None] | None], Iterator[tuple[str, str | None]]
]

# makes of an image's id and its pixels, RGB and upright, those that are encoded in their place
Transform = Callable[[str, Image.Image], Image.Image]

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
    hash_all: HashAll | None = None,
) -> tuple[ImageSet, list[Quarantined]]:
    """Find images and hash their bytes.

    Args:
        spec: One or several of: an image file, a folder (read with its subfolders), a glob, a
            .parquet, .csv or .arrow table, a folder that Hugging Face ``save_to_disk`` wrote, a
            .tar shard, a brace list such as ``a-{000..003}.tar``. A folder without images gives
            the .parquet tables and .tar shards in it. URLs of object stores (``s3://``, ``gs://``,
            ``az://``) are taken alike, and ``https://`` ones of files.
        column: The tables' column of encoded images or of paths; guessed when None.
        limit: How many sources to draw at random, before any is read; all when None.
        seed: Decides the draw.
        on_progress: Called with the rows read so far and the rows in all.
        hash_all: Reads and hashes; an engine's, or None for ``hash_locations``.

    Returns:
        The images sorted by source, table rows in table order; and the rows that cannot be read.

    Raises:
        ValueError: If a source does not exist, no image is found, none can be read, a table's
            column is not clear, ``limit`` is below 1, a store cannot be listed or answers no more,
            or the extra ``cloud`` is needed and not installed.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None for all images, got {limit}")
    rows = _list_sources(find_files(spec), column)
    if not rows:
        raise ValueError(
            f"no image found in {shortened(spec)}: looked for {', '.join(IMAGE_SUFFIXES)}; "
            "without any, for rows of .parquet and members of .tar (a .csv must be named itself)"
        )
    if limit is not None and limit < len(rows):
        drawn = random.Random(seed).sample(range(len(rows)), limit)
        rows = [rows[i] for i in sorted(drawn)]
    return hash_rows(rows, on_progress, hash_all)


def load(images: ImageSet, row: int) -> Image.Image:
    """Read and decode one row: RGB, upright.

    Raises:
        BadImageError: If its bytes cannot be read, have changed since, or are no whole image.
    """
    return load_as(images.locations[row], images.ids[row])


def load_as(location: Location, image_id: str) -> Image.Image:
    """Read and decode the image of a content id: RGB, upright.

    Raises:
        BadImageError: If its bytes cannot be read, have changed since, or are no whole image.
    """
    try:
        data = location.read()
    except OSError as error:
        raise BadImageError(reason(error)) from error
    if content_id(data) != image_id:
        raise BadImageError("changed while running: its bytes are not those that were opened")
    return decode(data)


def content_id(data: bytes) -> str:
    """Return the hash of an image's encoded bytes: 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _list_sources(files: Sequence[Found], column: str | None) -> list[tuple[str, Location]]:
    """List every row of every file with a source string of its own."""
    if column is not None and not any(_is_table(file) for file in files):
        raise ValueError(f"column={column!r} was given, but there is no table among the sources")
    sources: list[str] = []
    locations: list[Location] = []
    # of many objects, each costs the time of a few requests
    at_once = _REMOTE_THREADS if any(is_remote(file.given) for file in files) else 1
    with ThreadPoolExecutor(at_once) as pool:
        listed = list(pool.map(_list_file, files, repeat(column)))
    for name, rows in zip(_names(files), listed, strict=True):
        for suffix, location in rows:
            sources.append(name + suffix)
            locations.append(location)
    return list(zip(_unique(sources), locations, strict=True))


def _list_file(file: Found, column: str | None) -> list[tuple[str, Location]]:
    # Absolute, so that a later change of the working folder loses no image.
    path, remote = file.place, is_remote(file.given)
    if file.problem is not None:
        return [("", Unreadable(file.problem))]
    try:
        if has_suffix(public(path), SHARD_SUFFIXES):
            return list_members(look(path) if remote else path)
        if _is_table(file):
            return list_rows(look(path) if remote else path, column)
    except OSError as error:
        return [("", Unreadable(reason(error)))]
    return [("", RemoteFile(path, file.size) if remote else FileLocation(path))]


def _is_table(file: Found) -> bool:
    return has_suffix(public(file.given), TABLE_SUFFIXES)


def _names(files: Sequence[Found]) -> list[str]:
    """Return the files' short names, longer ones where the short ones are the same."""
    names = [file.name for file in files]
    for longer in ([file.given for file in files], [file.place for file in files]):
        counts = Counter(names)
        names = [
            public(path) if counts[name] > 1 else name
            for name, path in zip(names, longer, strict=True)
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
    rows: Sequence[tuple[str, Location]],
    on_progress: Callable[[int, int], None] | None = None,
    hash_all: HashAll | None = None,
) -> tuple[ImageSet, list[Quarantined]]:
    """Read and hash images whose places are known.

    Args:
        rows: A source, unique, and a location for each image.
        on_progress: Called with the rows read so far and the rows in all.
        hash_all: Reads and hashes; an engine's, or None for ``hash_locations``.

    Returns:
        The images in the given order; and the rows that cannot be read.

    Raises:
        ValueError: If none can be read.
    """
    good: list[tuple[str, str, Location]] = []
    quarantined: list[Quarantined] = []
    hashed = (hash_all or hash_locations)([location for _, location in rows], on_progress)
    for (source, location), (image_id, problem) in zip(rows, hashed, strict=True):
        if problem is None:
            good.append((source, image_id, location))
        else:
            quarantined.append(Quarantined(source, problem))
    if not good:
        first = "; ".join(f"{bad.source}: {bad.reason}" for bad in quarantined[:3])
        raise ValueError(f"none of {len(rows)} images can be read: {first}")
    sources, ids, locations = zip(*good, strict=True)
    return ImageSet(sources, ids, locations), quarantined


def hash_locations(
    locations: Sequence[Location], on_progress: Callable[[int, int], None] | None
) -> Iterator[tuple[str, str | None]]:
    """Yield for each location its content id and None, or an empty id and the reason.

    Args:
        locations: Read by threads, a block at a time.
        on_progress: Called with the rows read so far and the rows in all.
    """
    far = any(is_far(location) for location in locations[:1])
    with ThreadPoolExecutor(_REMOTE_THREADS if far else _THREADS) as pool:
        for start in range(0, len(locations), ROWS_AT_ONCE):
            block = locations[start : start + ROWS_AT_ONCE]
            yield from pool.map(_hash_bytes, block)
            if on_progress is not None:
                on_progress(start + len(block), len(locations))


def _hash_bytes(location: Location) -> tuple[str, str | None]:
    """Return the content id and None, or an empty id and the reason why there is none."""
    try:
        return content_id(location.read()), None
    except OSError as error:
        return "", reason(error)


def shortened(spec: str | Path | Sequence[str | Path]) -> str:
    """Return what names images, without secrets and the first few alone, for a message."""
    items = [spec] if isinstance(spec, str | Path) else list(spec)
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(repr(public(str(item))) for item in items[:3]) + more
