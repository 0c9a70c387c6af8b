"""``review.parquet``: the decisions that stand, one row for every file, read by ``--given``.

It is rewritten as soon as something was decided, at most once in ``SECONDS``, at the start and at
the end. So a kill leaves it at most about a second behind the journal. It says how many lines of
the journal it was made from, so that ``--given`` refuses one that lacks some; the next start, or
``nameonly review DIR --finish``, brings it up to date.
"""

import json
import os
import threading
from collections.abc import Callable
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nameonly.review.decisions import ACCEPTED, CORRECTED, JOURNAL, Decision, Decisions
from nameonly.review.labels import RunLabels

TABLE = "review.parquet"
SECONDS = 1.0
COLUMNS = (
    *("path", "id", "label", "decision", "previous_label", "probability", "queue"),
    *("decided_at", "revision"),
)


def valid(labels: RunLabels, decisions: Decisions) -> list[Decision]:
    """Return the standing decisions about images and classes that the run has."""
    ids, names = set(labels.ids), {*labels.class_names, None}
    return [d for d in decisions.standing() if d.id in ids and d.label in names]


def review_table(labels: RunLabels, decisions: Decisions) -> pa.Table:
    """Return a row for every file of every decided image, in the run's order.

    ``label`` is empty where the decision is none or unsure, so that nobody reads it as a class.
    """
    revision = decisions.revision
    of_image = {d.id: d for d in valid(labels, decisions)}
    decided = np.array([image_id in of_image for image_id in labels.ids])
    rows = decided[labels.image_of_row].nonzero()[0]
    images = labels.image_of_row[rows]
    found = [of_image[labels.ids[i]] for i in images.tolist()]
    table = pa.table(
        {
            "path": pa.array([labels.paths[i] for i in rows.tolist()], pa.string()),
            "id": pa.array([d.id for d in found], pa.string()),
            "label": pa.array([d.label for d in found], pa.string()),
            "decision": pa.array([d.decision for d in found], pa.string()),
            "previous_label": pa.array([d.previous_label for d in found], pa.string()),
            "probability": pa.array(labels.probability[images], pa.float32()),
            "queue": pa.array([d.queue for d in found], pa.string()),
            "decided_at": pa.array([d.decided_at for d in found], pa.string()),
            "revision": pa.array([d.revision for d in found], pa.int64()),
        }
    )
    facts = {"class_names": labels.class_names, "journal": JOURNAL, "revision": revision}
    return table.replace_schema_metadata({"nameonly": json.dumps(facts, ensure_ascii=False)})


def write_table(labels: RunLabels, decisions: Decisions) -> None:
    """Write ``review.parquet`` into the run's folder: the whole new table, or the old one stays.

    Raises:
        OSError: If it cannot be written.
    """
    target = labels.folder / TABLE
    partial = target.with_name(f".{TABLE}.partial")
    with partial.open("wb") as file:
        pq.write_table(review_table(labels, decisions), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def counts(labels: RunLabels, decisions: Decisions) -> dict[str, int]:
    """Return how many images there are and how many were decided, and how."""
    standing = valid(labels, decisions)
    kinds = [d.decision for d in standing]
    named = {kind: kinds.count(kind) for kind in (ACCEPTED, CORRECTED, "none", "unsure")}
    left_out = len(decisions.standing()) - len(standing)
    return {"images": len(labels), "decided": len(standing), **named, "left_out": left_out}


class TableKeeper:
    """Keeps ``review.parquet`` close behind the journal, in a thread of its own."""

    def __init__(
        self,
        labels: RunLabels,
        decisions: Decisions,
        on_problem: Callable[[str], None] | None = None,
    ) -> None:
        """Write the table once and begin to keep it.

        Args:
            labels: Of the run.
            decisions: About it.
            on_problem: Told when a table could not be written; it is tried again a second later.

        Raises:
            OSError: If the table cannot be written.
        """
        self._labels, self._decisions, self._on_problem = labels, decisions, on_problem
        self._written = -1
        self._decided, self._ends = threading.Event(), threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._keep, name="review-table", daemon=True)

    def __enter__(self) -> "TableKeeper":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        self._decided.set()
        self._thread.join()
        self._write()

    def note(self) -> None:
        """Note that something was decided."""
        self._decided.set()

    def _write(self) -> None:
        revision = self._decisions.revision
        if revision != self._written:
            write_table(self._labels, self._decisions)
            self._written = revision

    def _keep(self) -> None:
        while not self._ends.is_set():
            self._decided.wait()
            self._decided.clear()
            try:
                self._write()
            except OSError as error:
                if self._on_problem is not None:
                    self._on_problem(f"review.parquet could not be written now: {error}")
                self._decided.set()
            self._ends.wait(SECONDS)
