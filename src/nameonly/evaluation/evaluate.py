"""A labelling run against ground truth."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from jaxtyping import Float, Int

from nameonly.evaluation.metrics import (
    ClassRow,
    accuracy_score,
    confusion_matrix,
    expected_calibration_error,
    label_coverage,
    label_precision,
    mean_class_accuracy_score,
    per_class_table,
    wilson_interval,
)
from nameonly.label_tables.reading import By, MatchedLabels, match_labels, read_labels

LABELS = "labels.parquet"
COLUMNS = ("path", "id", "label", "probability", "zero_shot_label")
CALIBRATED = "confidence"
# Above this the table of classes by classes grows past what a page or a JSON file can hold.
MAX_CONFUSION_CLASSES = 1000


@dataclass(frozen=True)
class LabelTable:
    """What a run wrote about its n sources.

    Attributes:
        class_names: In column order (c).
        paths: One source per row.
        ids: Content hashes; duplicates share one.
        labels: Class index, -1 = abstained.
        confidence: Top probability of every row; None where the run wrote none.
        calibrated: The column ``confidence`` of every row; None where the run wrote none.
        zero_shot: What zero-shot said; None where the run did not keep it.
    """

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"] | None
    zero_shot: Int[np.ndarray, " n"] | None
    calibrated: Float[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class Evaluation:
    """How good the labels of a run are. A figure that cannot be known is None.

    Attributes:
        n: Sources with a true class; every figure is about these alone.
        n_without_truth: Sources without.
        matched_by: How true classes were found: path, stem, id or folder.
        read_as_positions: True when the truth held class positions, not names.
        accuracy: Share of right labels; an image that abstained counts as wrong.
        accuracy_interval: Wilson interval of the accuracy at 95 %.
        mean_class_accuracy: Mean accuracy of the classes that have an image.
        coverage: Share of images with a label.
        accuracy_when_labelled: Share of right labels among these.
        expected_calibration_error: Gap between the column probability and accuracy among these, 15
            bins.
        confidence_calibration_error: The same of the column confidence.
        zero_shot_accuracy: Share of images that zero-shot gets right.
        class_names: In column order (c).
        per_class: One row per class.
        confusion: Images by true class (rows) and label (columns), without those that abstained;
            None above 1000 classes.
    """

    n: int
    n_without_truth: int
    matched_by: str
    read_as_positions: bool
    accuracy: float
    accuracy_interval: tuple[float, float]
    mean_class_accuracy: float
    coverage: float
    accuracy_when_labelled: float | None
    expected_calibration_error: float | None
    confidence_calibration_error: float | None
    zero_shot_accuracy: float | None
    class_names: tuple[str, ...]
    per_class: tuple[ClassRow, ...]
    confusion: list[list[int]] | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def evaluate_labels(
    labels_path: Path,
    truth_path: Path | None = None,
    *,
    by: By = "auto",
    label_column: str | None = None,
    key_column: str | None = None,
) -> Evaluation:
    """Compare the labels of a run with the truth.

    Args:
        labels_path: ``labels.parquet`` of a run, or the run's folder.
        truth_path: CSV or parquet table of true labels; None with ``by="folder"``.
        by: How images are found in the truth, see ``match_labels``.
        label_column: Column of the true labels, where its name is not a usual one.
        key_column: Column of paths, stems or ids, likewise.

    Raises:
        ValueError: If a file is missing or has another structure, or no image has a truth.
    """
    table = read_label_table(labels_path)
    truth = None
    if truth_path is not None:
        truth = read_labels(truth_path, label_column=label_column, key_column=key_column)
    matched = match_labels(table.paths, table.ids, truth, table.class_names, by)
    return _evaluation(table, matched)


def _evaluation(table: LabelTable, matched: MatchedLabels) -> Evaluation:
    rows = np.flatnonzero(matched.labels >= 0)
    y_true, labels = matched.labels[rows], table.labels[rows]
    labelled = bool((labels >= 0).any())
    confusion = None
    if len(table.class_names) <= MAX_CONFUSION_CLASSES:
        confusion = confusion_matrix(y_true, labels, len(table.class_names)).tolist()

    def gap(sure: Float[np.ndarray, " n"] | None) -> float | None:
        if sure is None or not labelled:
            return None
        return expected_calibration_error(y_true, sure[rows], labels)

    return Evaluation(
        n=len(rows),
        n_without_truth=matched.n_without_label,
        matched_by=matched.matched_by,
        read_as_positions=matched.read_as_positions,
        accuracy=accuracy_score(y_true, labels),
        accuracy_interval=wilson_interval(int((y_true == labels).sum()), len(rows)),
        mean_class_accuracy=mean_class_accuracy_score(y_true, labels),
        coverage=label_coverage(labels),
        accuracy_when_labelled=label_precision(y_true, labels) if labelled else None,
        expected_calibration_error=gap(table.confidence),
        confidence_calibration_error=gap(table.calibrated),
        zero_shot_accuracy=None
        if table.zero_shot is None
        else accuracy_score(y_true, table.zero_shot[rows]),
        class_names=table.class_names,
        per_class=tuple(per_class_table(y_true, labels, table.class_names)),
        confusion=confusion,
    )


def read_label_table(path: Path) -> LabelTable:
    """Read ``labels.parquet`` of a run, given itself or by the run's folder.

    Raises:
        ValueError: If it is missing, or no such table.
    """
    path = path / LABELS if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give {LABELS} of a run, or the run's folder")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            wanted = (*COLUMNS, CALIBRATED)
            table = file.read(columns=[c for c in wanted if c in schema.names])
        class_names = _class_names(schema.metadata or {})
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is no table of labels: {error}") from None
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; give {LABELS} of a run")
    if not len(table):
        raise ValueError(f"{path} holds no image")
    cells = {column: table[column].to_pylist() for column in COLUMNS}
    if not all(isinstance(text, str) for text in cells["path"] + cells["id"]):
        raise ValueError(f"{path} has rows without path or id; give {LABELS} of a run")
    if not all(isinstance(text, str | None) for text in cells["label"] + cells["zero_shot_label"]):
        raise ValueError(f"{path}: the columns label and zero_shot_label should hold class names")
    if not all(isinstance(value, float | None) for value in cells["probability"]):
        raise ValueError(f"{path}: the column probability should hold fractions")
    confidence, zero_shot = cells["probability"], cells["zero_shot_label"]
    return LabelTable(
        class_names,
        tuple(cells["path"]),
        tuple(cells["id"]),
        _positions(cells["label"], class_names, path),
        None if None in confidence else np.array(confidence, dtype=np.float64),
        None if None in zero_shot else _positions(zero_shot, class_names, path),
        _calibrated(table, path),
    )


def _calibrated(table: pyarrow.Table, path: Path) -> Float[np.ndarray, " n"] | None:
    """Return the column of calibrated confidence, which older runs have not."""
    if CALIBRATED not in table.column_names:
        return None
    values = table[CALIBRATED].to_pylist()
    if not all(isinstance(value, float) for value in values):
        raise ValueError(f"{path}: the column {CALIBRATED} should hold fractions")
    return np.array(values, dtype=np.float64)


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    written = json.loads(metadata.get(b"nameonly", b"{}"))
    names = written.get("class_names") if isinstance(written, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its metadata does not hold the class names that a run writes")
    return tuple(names)


def _positions(
    labels: Sequence[str | None], class_names: Sequence[str], path: Path
) -> Int[np.ndarray, " n"]:
    columns: dict[str | None, int] = {name: i for i, name in enumerate(class_names)}
    columns[None] = -1
    unknown = sorted({str(label) for label in labels if label not in columns})
    if unknown:
        raise ValueError(f"{path} holds labels that are none of its class names: {unknown[:10]}")
    return np.array([columns[label] for label in labels], dtype=np.int64)
