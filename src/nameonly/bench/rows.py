"""One row a run: its columns, and the files that hold all rows."""

import csv
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nameonly.bench.runs import Run
from nameonly.methods import ROOT, STAGES

Row = dict[str, Any]
TEXT, WHOLE, NUMBER = pa.string(), pa.int64(), pa.float64()
COLUMNS: dict[str, pa.DataType] = {
    "method": TEXT,
    "recipe": TEXT,
    "set": TEXT,
    "tuned_with_labels": TEXT,
    "learner": TEXT,
    "data": TEXT,
    "setting": TEXT,
    "pool": TEXT,
    "imbalance": NUMBER,
    "batch_size": WHOLE,
    "batch_classes": WHOLE,
    "seed": WHOLE,
    "split_seed": WHOLE,
    "draw": WHOLE,
    "backbone": TEXT,
    "dtype": TEXT,
    "n_pool": WHOLE,
    "n_given": WHOLE,
    "n_test": WHOLE,
    "n_test_in_pool": WHOLE,
    "accuracy": NUMBER,
    "mean_class_accuracy": NUMBER,
    "seen_accuracy": NUMBER,
    "unseen_accuracy": NUMBER,
    "harmonic_mean": NUMBER,
    "zero_shot_accuracy": NUMBER,
    "zero_shot_harmonic_mean": NUMBER,
    "pool_accuracy": NUMBER,
    "zero_shot_pool_accuracy": NUMBER,
    "pseudo_label_precision": NUMBER,
    "pseudo_label_coverage": NUMBER,
    "fit_seconds": NUMBER,
    "peak_memory_mb": NUMBER,
    "memory_before_mb": NUMBER,
    "peak_memory_of": TEXT,
    "device": TEXT,
    "threads": WHOLE,
    "nameonly": TEXT,
    "code": TEXT,
    "torch": TEXT,
    "transformers": TEXT,
    "numpy": TEXT,
    "python": TEXT,
    "error": TEXT,
}
PACKAGES = ("nameonly", "torch", "transformers", "numpy")
CODE = (*STAGES, "ops", "datasets")
CODE_FILES = (
    *("types.py", "loop.py", "task.py", "learning.py", "encoding.py"),
    *("bench/data.py", "bench/draws.py", "bench/fitting.py", "bench/scoring.py"),
    *("evaluation/metrics.py", "evaluation/settings.py"),
)


def row_of(run: Run, facts: Mapping[str, Any]) -> Row:
    """Return the columns that a run has before it is made.

    Args:
        run: The run.
        facts: See ``run_facts``.
    """
    learner = facts["parts"].get("prompt_learning", facts["parts"].get("adapters", {}))
    return {
        "method": run.method.label,
        "recipe": run.method.recipe,
        "set": json.dumps(dict(run.method.set)) if run.method.set else None,
        "tuned_with_labels": run.method.tuned_with_labels or None,
        "learner": learner.get("method"),
        "data": run.data.title,
        "setting": run.setting,
        "pool": run.pool,
        "imbalance": run.imbalance,
        "batch_size": None if run.batch is None else run.batch.size,
        "batch_classes": None if run.batch is None else run.batch.classes,
        "seed": run.seed,
        "split_seed": run.split_seed,
        "draw": None if run.batch is None else run.draw,
    }


def score_of(row: Row, prefix: str = "") -> float | None:
    """Return a run's main figure: the harmonic mean in TRZSL, else the accuracy.

    Args:
        row: The run.
        prefix: ``"zero_shot_"`` for that of the class texts alone on the same images.
    """
    name = "harmonic_mean" if row["setting"] == "TRZSL" else "accuracy"
    score: float | None = row[prefix + name]
    return score


@cache
def versions() -> dict[str, str]:
    """Return versions of packages and of Python, and a hash of the code that decides figures."""
    digest = hashlib.sha256()
    files = [path for name in CODE for path in sorted((ROOT / name).glob("*.py"))]
    for path in (*files, *(ROOT / name for name in CODE_FILES)):
        digest.update(path.read_bytes())
    found = {name: version(name) for name in PACKAGES}
    return {**found, "python": platform.python_version(), "code": digest.hexdigest()[:12]}


def write_results(folder: Path, rows: Sequence[Row]) -> None:
    """Write ``results.parquet`` and ``results.csv``."""
    schema = pa.schema(list(COLUMNS.items()))
    _replace(folder / "results.parquet", lambda path: pq.write_table(_table(rows, schema), path))

    def as_csv(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    _replace(folder / "results.csv", as_csv)


def _table(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row[name] for name in COLUMNS} for row in rows], schema)


def _replace(path: Path, write: Any) -> None:
    """Write a file beside and rename it: a reader sees the old one or the new one, whole."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)
