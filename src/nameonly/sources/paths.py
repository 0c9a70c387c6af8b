"""What the user names (folders, files, globs, brace lists) to the files that hold images."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import DirEntry, scandir
from pathlib import Path

from nameonly.sources.locations import reason

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
    """A file, or a folder that could not be listed.

    Attributes:
        name: The short name: relative to the one folder given, or as the user wrote it.
        given: The path as the user wrote it, continued to this file.
        problem: Why it cannot be read, or None.
    """

    name: str
    given: str
    problem: str | None = None


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
        Path(file.given).absolute(): file
        for item in items
        for file in _resolve(str(item), alone=len(items) == 1)
    }
    return sorted(found.values(), key=lambda file: (file.name, file.given))


def _resolve(item: str, alone: bool) -> list[Found]:
    if not item.strip():
        raise ValueError("a source is an empty path; name a folder, files, a table or tar shards")
    if _exists(item):
        return _in_folder(item, alone) if Path(item).is_dir() else [_named_file(item)]
    if _BRACES.search(item):
        return [file for part in _expand_braces(item) for file in _resolve(part, alone=False)]
    if _MAGIC.search(item):
        return _from_glob(item)
    raise ValueError(f"the source {item!r} does not exist")


def _exists(item: str) -> bool:
    try:
        return Path(item).exists()
    except OSError as error:
        raise ValueError(f"the source {item!r} cannot be read: {error.strerror}") from error


def _named_file(given: str) -> Found:
    if has_suffix(given, IMAGE_SUFFIXES):
        return Found(given, given)
    if has_suffix(given, TABLE_SUFFIXES + SHARD_SUFFIXES):
        return Found(Path(given).name, given)
    known = ", ".join(IMAGE_SUFFIXES + TABLE_SUFFIXES + SHARD_SUFFIXES)
    unpack = "; unpack it first" if has_suffix(given, (".gz", ".tgz", ".zip", ".zst")) else ""
    raise ValueError(f"the source {given!r} is of no known kind ({known}){unpack}")


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
