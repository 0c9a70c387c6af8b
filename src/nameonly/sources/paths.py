"""What the user names (folders, files, globs, brace lists) to the files that hold images."""

import itertools
import json
import math
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from os import DirEntry, scandir
from pathlib import Path

from nameonly.sources.locations import reason
from nameonly.sources.remote import (
    check_url,
    is_remote,
    is_web,
    list_folder,
    list_objects,
    public,
)

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TABLE_SUFFIXES = (".arrow", ".csv", ".parquet")
SHARD_SUFFIXES = (".tar",)

# what a run of ours writes is no input: a folder with these in it is passed over
RUN_FILES = {"run.json", "labels.parquet", "report.html"}

_FOLDER_CONTAINERS = (".parquet", ".tar")
_MAX_BRACE_FILES = 100_000
_MAGIC = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_BRACE_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, slots=True)
class Found:
    """A file or an object in a store, or a folder that could not be listed.

    Attributes:
        name: The short name: relative to the one folder given, or as the user wrote it.
        given: The path or URL as the user wrote it, continued to this file; a URL may hold secrets.
        problem: Why it cannot be read, or None.
        size: In bytes, where a store's listing told it.
    """

    name: str
    given: str = field(repr=False)
    problem: str | None = None
    size: int | None = None

    @property
    def place(self) -> str:
        """Where it is whatever the working folder, with secrets."""
        return self.given if is_remote(self.given) else str(Path(self.given).absolute())


def has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether the name ends in one of the suffixes, in any letter case."""
    return name.lower().endswith(suffixes)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is left out when it was not named itself."""
    return name == "__MACOSX" or (name.startswith(".") and name not in (".", ".."))


def find_files(spec: str | Path | Sequence[str | Path]) -> list[Found]:
    """List the files of a source, each once, sorted by name.

    Raises:
        ValueError: If nothing is named, or something that does not exist or is of no known kind.
    """
    items = [spec] if isinstance(spec, str | Path) else list(spec)
    if not items:
        raise ValueError("no source given; name a folder, files, a table, tar shards or a glob")
    found = {
        file.place: file for item in items for file in _resolve(str(item), alone=len(items) == 1)
    }
    return sorted(found.values(), key=lambda file: (file.name, file.given))


def _resolve(item: str, alone: bool) -> list[Found]:
    if not item.strip():
        raise ValueError("a source is an empty path; name a folder, files, a table or tar shards")
    if is_remote(item):
        return _resolve_remote(item, alone)
    if _exists(item):
        return _in_folder(item, alone) if Path(item).is_dir() else [_named_file(item)]
    if _BRACES.search(item):
        return [file for part in _expand_braces(item) for file in _resolve(part, alone=False)]
    if _MAGIC.search(item):
        return _from_glob(item)
    raise ValueError(f"the source {public(item)!r} does not exist")


def _exists(item: str) -> bool:
    try:
        return Path(item).exists()
    except OSError as error:
        raise ValueError(f"the source {item!r} cannot be read: {error.strerror}") from error


def _named_file(given: str) -> Found:
    shown = public(given)
    if has_suffix(shown, IMAGE_SUFFIXES):
        return Found(shown, given)
    if has_suffix(shown, TABLE_SUFFIXES + SHARD_SUFFIXES):
        return Found(Path(shown).name, given)
    known = ", ".join(IMAGE_SUFFIXES + TABLE_SUFFIXES + SHARD_SUFFIXES)
    unpack = "; unpack it first" if has_suffix(shown, (".gz", ".tgz", ".zip", ".zst")) else ""
    raise ValueError(f"the source {shown!r} is of no known kind ({known}){unpack}")


def _in_folder(given: str, alone: bool) -> list[Found]:
    """List the images in a folder or, where it has none, its tables and tar shards."""
    names = _dataset_files(Path(given))
    failures: list[tuple[str, str]] = []
    if names is None:
        names, failures = _walk(given)
        images = [name for name in names if has_suffix(name, IMAGE_SUFFIXES)]
        names = images or [name for name in names if has_suffix(name, _FOLDER_CONTAINERS)]
    folder = Path(given).as_posix()
    outcomes = [(name, None) for name in names] + failures
    return [
        Found(name if alone else f"{folder}/{name}", f"{folder}/{name}", problem)
        for name, problem in outcomes
    ]


def _walk(root: str) -> tuple[list[str], list[tuple[str, str]]]:
    """List all visible files below a folder, and the folders that cannot be listed with reasons.

    Each real folder is entered once, so a loop of links ends. Links wait until the real folders
    are done, so that a file is listed under its own folder's name where that is below the root.
    """
    files: list[str] = []
    failures: list[tuple[str, str]] = []
    visited: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()
    while folders or links:
        relative = (folders or links).pop()
        try:
            status = Path(root, relative).stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with scandir(Path(root, relative)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            failures.append((relative or ".", f"folder cannot be listed: {reason(error)}"))
            continue
        if relative and {entry.name for entry in entries} >= RUN_FILES:
            continue
        for entry in entries:
            name = f"{relative}/{entry.name}" if relative else entry.name
            if is_hidden(entry.name):
                continue
            if not _is_folder(entry):
                files.append(name)
            else:
                (links if entry.is_symlink() else folders).append(name)
    return files, failures


def _is_folder(entry: DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a closed folder: reading it will say so
        return False


def _dataset_files(folder: Path) -> list[str] | None:
    """List the Arrow files of a folder that Hugging Face ``save_to_disk`` wrote, else None."""
    try:
        if not (folder / "dataset_dict.json").is_file():
            return _split_files(folder)
        splits = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
        files = {split: _split_files(folder / split) for split in splits}
    except PermissionError:
        return None  # listing the folder will tell
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{str(folder)!r} is not what save_to_disk writes: {error!r}") from error
    absent = [split for split, names in files.items() if names is None]
    if absent:
        raise ValueError(f"the dataset {str(folder)!r} lacks its splits {absent}")
    return [f"{split}/{name}" for split, names in files.items() for name in names or ()]


def _split_files(folder: Path) -> list[str] | None:
    if not ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()):
        return None
    state = json.loads((folder / "state.json").read_bytes())
    if state.get("_indices_data_files"):
        raise ValueError("rows are chosen by an index file; flatten_indices() and save again")
    return [Path(file["filename"]).name for file in state["_data_files"]]


def _expand_braces(item: str) -> list[str]:
    """Fill brace lists: ``{000..003}`` counts with its zeros kept, ``{a,b}`` chooses."""
    texts = _BRACES.split(item)
    choices = [[text] if i % 2 == 0 else _brace_choices(text) for i, text in enumerate(texts)]
    if math.prod(map(len, choices)) > _MAX_BRACE_FILES:
        raise ValueError(f"{item!r} stands for more than {_MAX_BRACE_FILES} files")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _brace_choices(text: str) -> list[str]:
    counted = _BRACE_RANGE.fullmatch(text)
    if counted is None:
        return text.split(",")
    first, last = counted.groups()
    if not 0 <= int(last) - int(first) < _MAX_BRACE_FILES:
        raise ValueError(f"{{{text}}} must count upwards, over at most {_MAX_BRACE_FILES} files")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _from_glob(pattern: str) -> list[Found]:
    """List what matches: image files and whole folders or, without any, tables and shards."""
    found, files = list[Found](), list[str]()
    for path, problem in sorted(_glob(pattern), key=lambda match: match[0]):
        if problem is not None:
            found.append(Found(path, path, problem))
        elif Path(path).is_dir():
            found += _in_folder(path, alone=False)
        else:
            files.append(path)
    return _images_or_else(found, files)


def _images_or_else(found: list[Found], files: Sequence[str]) -> list[Found]:
    """Return what folders gave and the image files or, without any, the tables and shards."""
    images = [path for path in files if has_suffix(path, IMAGE_SUFFIXES)]
    if found or images:
        return found + [_named_file(path) for path in images]
    return [
        _named_file(path) for path in files if has_suffix(path, TABLE_SUFFIXES + SHARD_SUFFIXES)
    ]


def _glob(pattern: str) -> Iterator[tuple[str, str | None]]:
    """Yield the paths that match, and the folders below ``**`` that cannot be listed."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    deep = parts.index("**") if "**" in parts else len(parts)
    base = Path(*parts[:fixed])
    for folder in [base] if fixed == deep else base.glob("/".join(parts[fixed:deep])):
        new = zip(folder.relative_to(base).parts, parts[fixed:], strict=False)
        if any(is_hidden(name) and not part.startswith(".") for name, part in new):
            continue
        if deep == len(parts):
            yield str(folder), None
        elif folder.is_dir():
            names, failures = _walk(str(folder))
            yield from (
                (str(folder / name), None)
                for name in names
                if _matches(name.split("/"), parts[deep:])
            )
            yield from ((str(folder / name), problem) for name, problem in failures)


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Return whether a path, or a folder that it lies in, matches the parts of a pattern."""
    if not parts:
        return True
    if parts[0] == "**" and _matches(names, parts[1:]):
        return True
    if not names:
        return False
    rest = parts if parts[0] == "**" else parts[1:]
    return (parts[0] == "**" or fnmatchcase(names[0], parts[0])) and _matches(names[1:], rest)


def _resolve_remote(url: str, alone: bool) -> list[Found]:
    check_url(url)
    if _BRACES.search(url):
        return [file for part in _expand_braces(url) for file in _resolve_remote(part, alone=False)]
    known = has_suffix(public(url), IMAGE_SUFFIXES + TABLE_SUFFIXES + SHARD_SUFFIXES)
    if is_web(url):
        if not known:
            raise ValueError(
                f"{public(url)!r} names no image, table or tar shard, and a web server lists no "
                "folder; name the files, for instance with {000..003}, or a table of their URLs"
            )
        return [_named_file(url)]
    try:
        if _MAGIC.search(url):
            return _from_store_glob(url)
        return [_named_file(url)] if known else _in_store_folder(url, alone)
    except OSError as error:
        raise ValueError(f"{public(url)!r} cannot be listed: {reason(error)}") from None


def _in_store_folder(url: str, alone: bool) -> list[Found]:
    """List what ``_in_folder`` does, of a store."""
    folder = url.rstrip("/")
    sizes = dict(list_objects(folder))
    if {"state.json", "dataset_info.json"} <= sizes.keys() or "dataset_dict.json" in sizes:
        raise ValueError(
            f"{public(url)!r} is what save_to_disk writes, whose Arrow files have no index to be "
            "read by; copy it here first, or write it with to_parquet"
        )
    names = _visible(sizes)
    images = [name for name in names if has_suffix(name, IMAGE_SUFFIXES)]
    return [
        Found(name if alone else f"{public(folder)}/{name}", f"{folder}/{name}", size=sizes[name])
        for name in images or [name for name in names if has_suffix(name, _FOLDER_CONTAINERS)]
    ]


def _visible(sizes: Mapping[str, int]) -> list[str]:
    """Return the names that are neither hidden nor in the folder of a run."""
    folders = {posixpath.dirname(name) for name in sizes} - {""}
    runs = [f for f in folders if all(f"{f}/{file}" in sizes for file in RUN_FILES)]
    return [
        name
        for name in sizes
        if not any(map(is_hidden, name.split("/")))
        and not any(name.startswith(f"{run}/") for run in runs)
    ]


def _from_store_glob(pattern: str) -> list[Found]:
    parts = [part for part in pattern.split("/")[2:] if part]
    fixed = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    if not fixed:
        raise ValueError(f"{public(pattern)!r} must name its bucket or container")
    base = pattern[: pattern.index("://") + 3] + "/".join(parts[:fixed])
    found, files = list[Found](), list[str]()
    for name, is_folder in sorted(_store_matches(base, parts[fixed:])):
        if is_folder:
            found += _in_store_folder(f"{base}/{name}", alone=False)
        else:
            files.append(f"{base}/{name}")
    return _images_or_else(found, files)


def _store_matches(base: str, parts: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield what matches the parts of a pattern, and whether it is a folder."""
    if parts[0] == "**":
        names = _visible(dict(list_objects(base)))
        yield from ((name, False) for name in names if _matches(name.split("/"), parts))
        return
    for name, size in list_folder(base):
        hidden = is_hidden(name) and not parts[0].startswith(".")
        if hidden or not fnmatchcase(name, parts[0]):
            continue
        if len(parts) == 1:
            yield name, size is None
        elif size is None:
            inner = _store_matches(f"{base}/{name}", parts[1:])
            yield from ((f"{name}/{rest}", is_folder) for rest, is_folder in inner)
