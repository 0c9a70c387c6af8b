"""A table of labels: read, or taken from folder names, and matched with images."""

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
import pyarrow
import pyarrow.parquet
from jaxtyping import Int

from nameonly.label_tables.matching import find_labels, plain_path, shown_items
from nameonly.types import class_key

LABEL_COLUMNS = ("label", "class", "truth", "target", "y")
# a person's answer, in a table that has the run's own label too
TRUE_LABEL = "true_label"
KEY_COLUMNS = ("path", "source", "file", "filename", "id", "stem")
By = Literal["auto", "path", "stem", "id", "folder"]
SHOWN = 10
ROW_NUMBER = -1


@dataclass(frozen=True)
class MatchedLabels:
    """Labels of images.

    Attributes:
        labels: Class index of every image, -1 = the table has none (n).
        matched_by: What the images were found by: path, stem, id or folder.
        read_as_positions: True when the table held numbers that are no class names, so that they
            were read as positions in the class names, counted from 0.
    """

    labels: Int[np.ndarray, " n"]
    matched_by: str
    read_as_positions: bool = False

    @property
    def n_without_label(self) -> int:
        """How many images have none."""
        return int((self.labels < 0).sum())


def read_labels(
    path: Path, *, label_column: str | None = None, key_column: str | None = None
) -> dict[str, str]:
    """Return the label of every key (a path, stem or id) in a CSV or parquet table.

    Rows without a label are left out. A parquet table without a key column is taken for the one
    that the images came from: its rows are matched by number. Without named columns, the label
    column is true_label, or else the one called label, class, truth, target or y, and the key
    column the first of path, source, file, filename, id, stem; case does not matter.

    Raises:
        ValueError: If the file is missing, is no such table, lacks a column or has two that could
            hold the label, or gives a key two different labels.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give a CSV or parquet table of labels")
    if path.suffix.lower() == ".parquet":
        columns, rows = _open_parquet(path)
    else:
        columns, rows = _open_csv(path)
    answered = TRUE_LABEL in (column.strip().casefold() for column in columns)
    usual = (TRUE_LABEL,) if answered else LABEL_COLUMNS
    label = _column(path, columns, "label", label_column, usual)
    key = _key_column(path, columns, key_column)
    table: dict[str, str] = {}
    for where, row_key, row_label in rows(key, label):
        if not row_label:
            continue
        if not row_key:
            raise ValueError(
                f"{path}, {where}: the {columns[key]!r} of label {row_label!r} is empty"
            )
        if table.setdefault(row_key, row_label) != row_label:
            raise ValueError(
                f"{path}, {where}: {row_key!r} is {row_label!r} here and {table[row_key]!r} before"
            )
    if not table:
        raise ValueError(f"{path} holds no label in its column {columns[label]!r}")
    return table


Rows = Callable[[int, int], Iterator[tuple[str, str, str]]]


def _open_csv(path: Path) -> tuple[list[str], Rows]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV table in UTF-8: {error}") from None
    if not lines:
        raise ValueError(f"{path} is empty; give a CSV table with a header")
    columns = lines[0][1]

    def rows(key: int, label: int) -> Iterator[tuple[str, str, str]]:
        for index, (number, row) in enumerate(lines[1:]):
            if len(row) != len(columns):
                raise ValueError(
                    f"{path}, line {number}: {len(row)} fields, but the header has {len(columns)}"
                )
            row_key = f"{path.name}#{index}" if key == ROW_NUMBER else row[key].strip()
            yield f"line {number}", row_key, row[label].strip()

    return columns, rows


def _open_parquet(path: Path) -> tuple[list[str], Rows]:
    try:
        schema = pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is no parquet table: {error}") from None
    _check_up_to_date(path, (schema.metadata or {}).get(b"nameonly", b"{}"))
    columns = list(schema.names)

    def rows(key: int, label: int) -> Iterator[tuple[str, str, str]]:
        wanted = [label] if key == ROW_NUMBER else [key, label]
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                table = file.read(columns=[columns[i] for i in wanted])
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path} is a damaged parquet table: {error}") from None
        if key == ROW_NUMBER:
            keys: list[Any] = [f"{path.name}#{i}" for i in range(len(table))]
        else:
            keys = table[columns[key]].to_pylist()
        pairs = zip(keys, table[columns[label]].to_pylist(), strict=True)
        for number, (row_key, row_label) in enumerate(pairs, 1):
            yield f"row {number}", _cell(row_key, path), _cell(row_label, path)

    return columns, rows


def _check_up_to_date(path: Path, facts: bytes) -> None:
    """Refuse a table that `nameonly review` made before a kill, without its last decisions."""
    found = json.loads(facts)
    journal = path.with_name(str(found.get("journal", "")) or path.name)
    if journal == path or not journal.is_file():
        return
    newest = journal.read_bytes().count(b"\n")
    if newest > found["revision"]:
        raise ValueError(
            f"{path} holds {found['revision']} of the {newest} decisions in {journal.name}; bring "
            f"it up to date with `nameonly review {path.parent} --finish`"
        )


def _cell(value: Any, path: Path) -> str:
    if value is None or value != value:  # NaN is how pandas writes a gap
        return ""
    if isinstance(value, float) and value.is_integer():  # pandas turns whole numbers with gaps so
        return str(int(value))
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"{path}: keys and labels are text or whole numbers, got a {type(value).__name__}"
        )
    return str(value).strip()


def _key_column(path: Path, columns: Sequence[str], named: str | None) -> int:
    """Return the key's column; a table of images that has none is matched row by row."""
    plain = {column.strip().casefold() for column in columns}
    if named is None and not plain & set(KEY_COLUMNS) and path.suffix.lower() == ".parquet":
        return ROW_NUMBER
    return _column(path, columns, "key", named, KEY_COLUMNS)


def _column(
    path: Path, columns: Sequence[str], what: str, named: str | None, usual: Sequence[str]
) -> int:
    wanted = usual if named is None else (named,)
    plain = [column.strip().casefold() for column in columns]
    found = [i for name in wanted for i, c in enumerate(plain) if c == name.strip().casefold()]
    if not found:
        raise ValueError(
            f"{path} has no {what} column ({', '.join(wanted)}), only {', '.join(columns)}; "
            f"name it with --{what}-column ({what}_column in Python)"
        )
    if len(found) > 1 and (what == "label" or plain[found[0]] == plain[found[1]]):
        names = " and ".join(repr(columns[i]) for i in found)
        raise ValueError(
            f"{path}: {names} could be the {what} column; name it with --{what}-column "
            f"({what}_column in Python)"
        )
    return found[0]


def match_labels(
    paths: Sequence[str],
    ids: Sequence[str],
    table: Mapping[str, str] | None,
    class_names: Sequence[str],
    by: By = "auto",
) -> MatchedLabels:
    """Return the class of every image.

    ``auto`` looks for the same path, then for stems where the table names no folders, then for the
    id, and takes the first of them that finds any image. Two paths are the same if one ends in the
    other (``photos/a/1.jpg`` and ``a/1.jpg``). ``folder`` needs no ``table``: the name of an
    image's parent folder is its class. Class names are compared without case and spacing.

    Raises:
        ValueError: If no image is found, an image or a row of the table has several partners, or
            the table holds labels that are no class names.
    """
    if by not in get_args(By):
        raise ValueError(f"by is one of {', '.join(get_args(By))}, got {by!r}")
    if by == "folder":
        if table is not None:
            raise ValueError("by='folder' takes labels from folder names; leave the table out")
        labels: list[str | None] = [PurePosixPath(plain_path(p)).parent.name or None for p in paths]
        matched_by = "folder"
        if not any(labels):
            raise ValueError(f"no image lies in a folder that could name its class: {paths[:3]}")
    elif table is None:
        raise ValueError(f"by={by!r} needs a table of labels; by='folder' needs none")
    else:
        labels, matched_by = find_labels(paths, ids, table, by)
    found, read_as_positions = _indices(labels, class_names)
    return MatchedLabels(found, matched_by, read_as_positions)


def _indices(
    labels: Sequence[str | None], class_names: Sequence[str]
) -> tuple[Int[np.ndarray, " n"], bool]:
    columns = {_key(name): i for i, name in enumerate(class_names)}
    counts = Counter(label for label in labels if label is not None)
    unknown = {label: n for label, n in counts.items() if _key(label) not in columns}
    positions = len(unknown) == len(counts) and all(
        re.fullmatch("[0-9]{1,9}", label) and int(label) < len(class_names) for label in counts
    )
    if unknown and not positions:
        listed = ", ".join(f"{t!r} ({n} images)" for t, n in Counter(unknown).most_common(SHOWN))
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise ValueError(
            f"there are labels that are no class names: {listed}{more}; class names are "
            f"{shown_items(class_names, SHOWN)} (or their positions, 0 to {len(class_names) - 1})"
        )
    index = {label: int(label) if positions else columns[_key(label)] for label in counts}
    rows = [-1 if label is None else index[label] for label in labels]
    return np.array(rows, dtype=np.int64), positions


def _key(name: str) -> str:
    return class_key(unicodedata.normalize("NFC", name))
