"""A CSV table, one row per source: for spreadsheets, pandas, and whatever reads RFC 4180.

UTF-8 without a byte order mark. A spreadsheet takes a cell that begins with ``=``, ``+``, ``-``,
``@``, a tab or a carriage return for a formula, and a file may be called ``=cmd|...``. So a path
that begins so has ``./`` before it, which is the same path, and other text has an apostrophe, which
spreadsheets do not show (OWASP, "CSV Injection"). Numbers stay numbers. The parquet table has every
text as it was.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nameonly.export.labelled import ROWS_AT_ONCE, LabelledRun
from nameonly.export.parquet_table import full_table

FORMULA = ("=", "+", "-", "@", "\t", "\r")
PATHS = ("path", "file_name")


def cell(value: Any, column: str = "") -> Any:
    """Return a value as it is written: nothing for None, floats of single precision in full."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".9g")
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"./{value}" if column in PATHS else f"'{value}"
    return value


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows under a header.

    Raises:
        OSError: If the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([cell(column) for column in columns])
        for row in rows:
            writer.writerow([cell(v, c) for v, c in zip(row, columns, strict=True)])


def write(run: LabelledRun, place: Path) -> dict[str, Any]:
    """Write ``labels.csv``.

    Raises:
        OSError: If it cannot be written.
    """
    table = full_table(run)
    rows = (
        row
        for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE)
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    write_csv(place / "labels.csv", table.column_names, rows)
    return {"exported": len(run)}
