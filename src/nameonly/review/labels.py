"""What a run says of its images, one entry for each distinct image: what is to be reviewed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

LABELS, RUN = "labels.parquet", "run.json"


@dataclass(frozen=True)
class RunLabels:
    """A run's labels. Copies of the same bytes are one image; ``n`` counts images, not files.

    Attributes:
        folder: Of the run.
        source: Where its images came from, as the run was told.
        column: Of a table of images, None where there is none.
        backbone: Name of the model, empty where it is not known.
        class_names: In column order.
        paths: Of every row of ``labels.parquet``.
        image_of_row: Which image each of these rows is.
        ids: Of the images.
        first_row: The first row of each image.
        label: The run's class of each image, -1 where it left it without one.
        probability: Of that class, or of the most probable one.
        runner_up: The best other class.
        margin: Between the two.
        zero_shot: Zero-shot's class, -1 where it is not known.
        unknown_score: How much an image looks like none of the classes; None if it is not known.
        confidence: That its label is right, calibrated; None if it is not known.
        suspected: Whether the score stands out; None if it is not known.
    """

    folder: Path
    source: str
    column: str | None
    backbone: str
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    image_of_row: Int[np.ndarray, " rows"]
    ids: tuple[str, ...]
    first_row: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    probability: Float[np.ndarray, " n"]
    runner_up: Int[np.ndarray, " n"]
    margin: Float[np.ndarray, " n"]
    zero_shot: Int[np.ndarray, " n"]
    unknown_score: Float[np.ndarray, " n"] | None = None
    confidence: Float[np.ndarray, " n"] | None = None
    suspected: Bool[np.ndarray, " n"] | None = None

    @property
    def sureness(self) -> Float[np.ndarray, " n"]:
        """How sure each label is: its calibrated confidence, or the margin where there is none."""
        return self.margin if self.confidence is None else self.confidence

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def copies(self) -> Int[np.ndarray, " n"]:
        """How many rows each image has."""
        return np.bincount(self.image_of_row, minlength=len(self))

    @cached_property
    def image_of_id(self) -> dict[str, int]:
        """Which image has an id."""
        return {image_id: i for i, image_id in enumerate(self.ids)}

    def name(self, index: int) -> str | None:
        """Return the name of a class, None for -1."""
        return self.class_names[index] if index >= 0 else None


def read_run(folder: Path) -> RunLabels:
    """Read a folder that ``label`` or ``predict`` wrote.

    Raises:
        ValueError: If it is none, or is damaged.
    """
    if not ((folder / LABELS).is_file() and (folder / RUN).is_file()):
        raise ValueError(
            f"{folder} holds nothing to review: expected {LABELS} and {RUN}, as "
            "`nameonly label DIR` writes them"
        )
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        table = pq.read_table(folder / LABELS)
        return _labels(folder, run, table)
    except Exception as error:  # JSON, parquet, missing keys and columns each raise their own
        raise ValueError(f"{folder} is no whole run of `nameonly label`: {error}") from error


def _labels(folder: Path, run: dict[str, Any], table: pa.Table) -> RunLabels:
    names = tuple(str(name) for name in run["classes"])
    ids = table["id"].to_pylist()
    if not ids:
        raise ValueError(f"{LABELS} has no rows")
    place = {image_id: i for i, image_id in enumerate(dict.fromkeys(ids))}
    image_of_row = np.array([place[image_id] for image_id in ids])
    first_row = np.unique(image_of_row, return_index=True)[1]
    rows = table.take(pa.array(first_row))
    known = table.column_names
    return RunLabels(
        folder,
        str(run["input"]),
        run.get("column"),
        str(run.get("backbone", {}).get("name", "")),
        names,
        tuple(table["path"].to_pylist()),
        image_of_row,
        tuple(place),
        first_row,
        _classes(rows["label"], names),
        _numbers(rows["probability"]),
        _classes(rows["runner_up"], names),
        _numbers(rows["margin"]),
        _classes(rows["zero_shot_label"], names),
        _numbers(rows["unknown_score"]) if "unknown_score" in known else None,
        _numbers(rows["confidence"]) if "confidence" in known else None,
        _suspected(rows["suspected_unknown"]) if "suspected_unknown" in known else None,
    )


def _suspected(column: Any) -> Bool[np.ndarray, " n"]:
    """Return where a column says true; a gap is no suspicion."""
    return np.asarray(pc.fill_null(column, False).to_numpy(), dtype=bool)


def _classes(column: Any, names: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Return the class index of every row, -1 for none."""
    found = pc.index_in(column, value_set=pa.array(names, pa.string()))
    if found.null_count > column.null_count:
        other = next(v for v in column.to_pylist() if v is not None and v not in names)
        raise ValueError(f"the label {other!r} is none of the classes {list(names[:10])}")
    return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)


def _numbers(column: Any) -> Float[np.ndarray, " n"]:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), dtype=np.float64)
