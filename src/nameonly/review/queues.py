"""In which order a person looks at images."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from nameonly.review.labels import RunLabels

UNCERTAIN, CHANGED, UNKNOWN, NO_LABEL, AUDIT = (
    "uncertain",
    "changed",
    "suspected unknown",
    "no label",
    "audit",
)
CLASS = "class: "
Queues = dict[str, Sequence[int]]
ABOUT = {
    AUDIT: "A random sample: what you decide here tells how good all labels are.",
    UNCERTAIN: "Least sure first: the images on which an answer is worth most.",
    CHANGED: "The run answers otherwise than zero-shot; least sure first.",
    UNKNOWN: "Least like any of the classes first.",
    NO_LABEL: "The run abstained.",
}


def build_queues(labels: RunLabels, more: Mapping[str, Sequence[int]] | None = None) -> Queues:
    """Return the images of every queue, by its name.

    Args:
        labels: Of the run.
        more: Rows of ``labels.parquet`` of further queues, such as ``{"audit": rows}``; they come
            first and keep their order.

    Raises:
        ValueError: If a further queue names a row that is not there.
    """
    queues: Queues = {name: _of_rows(labels, name, rows) for name, rows in (more or {}).items()}
    least_sure = np.argsort(labels.sureness, kind="stable")  # NaN goes last
    queues[UNCERTAIN] = least_sure.tolist()
    differs = (labels.zero_shot >= 0) & (labels.label >= 0) & (labels.label != labels.zero_shot)
    queues[CHANGED] = least_sure[differs[least_sure]].tolist()
    if labels.unknown_score is not None:
        order = np.argsort(-labels.unknown_score, kind="stable")  # NaN goes last
        known = ~np.isnan(labels.unknown_score[order])
        if labels.suspected is not None:
            known &= labels.suspected[order]
        queues[UNKNOWN] = order[known].tolist()
    if (labels.label < 0).any():
        queues[NO_LABEL] = least_sure[labels.label[least_sure] < 0].tolist()
    return queues | _of_classes(labels, least_sure)


def _of_classes(labels: RunLabels, order: Int[np.ndarray, " n"]) -> Queues:
    """Return a queue for every class, each in the given order."""
    answers = labels.label[order]
    grouped = order[np.argsort(answers, kind="stable")]
    ends = np.searchsorted(np.sort(answers), np.arange(len(labels.class_names) + 1))
    return {
        f"{CLASS}{name}": grouped[ends[i] : ends[i + 1]].tolist()
        for i, name in enumerate(labels.class_names)
    }


def _of_rows(labels: RunLabels, name: str, rows: Sequence[int]) -> list[int]:
    """Return the images of rows of ``labels.parquet``, each once."""
    n = len(labels.image_of_row)
    if bad := [row for row in rows if not 0 <= row < n]:
        raise ValueError(f"queue {name!r}: row {bad[0]} does not exist; rows are 0 to {n - 1}")
    return list(dict.fromkeys(labels.image_of_row[list(rows)].tolist()))
