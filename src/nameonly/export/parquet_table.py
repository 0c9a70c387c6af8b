"""A parquet table, one row per source: for pandas, polars, DuckDB, Spark and Arrow.

All that the run knows of a source, and who labelled it. Class names stand in the schema's metadata
under ``nameonly``, as JSON.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nameonly.export.labelled import LabelledRun

PROBABILITIES = ("p_", "top_")


def full_table(run: LabelledRun) -> pa.Table:
    """Return the run's table with the label's position and who labelled."""
    place = {name: i for i, name in enumerate(run.class_names)}
    label = run.table["label"].to_pylist()
    index = pa.array([None if name is None else place[name] for name in label], pa.int64())
    at = run.table.column_names.index("label") + 1
    table = run.table.add_column(at, "label_index", index)
    if "method" in table.column_names:  # the recipe's name, told below with the rest
        table = table.drop_columns(["method"])
    first = next((i for i, n in enumerate(table.column_names) if n.startswith(PROBABILITIES)), None)
    at = len(table.column_names) if first is None else first
    for key, value in reversed(run.provenance.items()):
        table = table.add_column(at, key, pa.array([value] * len(run), pa.string()))
    return table


def write(run: LabelledRun, place: Path) -> dict[str, Any]:
    """Write ``labels.parquet``.

    Raises:
        OSError: If it cannot be written.
    """
    pq.write_table(full_table(run), place / "labels.parquet")
    return {"exported": len(run)}
