"""The files of a run. A folder appears whole or not at all."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.assessment import Assessment
from nameonly.images import Quarantined
from nameonly.ops.selection import filled, row_blocks
from nameonly.pipeline import Outcome
from nameonly.store import default_cache
from nameonly.types import Predictions

RUN = "run.json"
LABELS = "labels.parquet"
REPLACED = ".run.json.replaced"
PARTIAL = ".nameonly-partial"
MAX_PROBABILITY_COLUMNS = 100
TOP = 5
# of labels.parquet and labels.csv, held while they are written: rows, and probabilities of theirs
ROWS_AT_ONCE, VALUES_AT_ONCE = 32_768, 2**23
CSV_COLUMNS = (
    *("path", "id", "label", "probability", "confidence", "runner_up", "margin"),
    "zero_shot_label",
)


def check_free(out: Path, overwrite: bool) -> None:
    """Refuse an output folder that must not be written.

    Raises:
        ValueError: If it exists and ``overwrite`` is not set, or it is no output folder of ours.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"the output folder {out} is a file; choose another with --out")
    if all(entry.name == PARTIAL for entry in out.iterdir()):
        return
    if not (out / RUN).exists() and not (out / REPLACED).exists():
        raise ValueError(
            f"the output folder {out} exists and holds other files than a run's; "
            "choose a new one with --out"
        )
    if not overwrite and (out / RUN).exists():
        raise ValueError(
            f"{out} holds a finished run; pass --overwrite to replace it, or another --out"
        )


@contextmanager
def staging(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a hidden folder; what it holds at the end becomes the content of ``out``.

    A run that is stopped leaves ``out`` as it was; its remains are cleared by the next.

    Raises:
        ValueError: If ``out`` must not be written (see ``check_free``), or another run writes it.
        OSError: If it cannot be written.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(out)
    try:
        check_free(out, overwrite)
        # beside a new folder, inside one that exists: it may be a file system of its own
        partial = out / PARTIAL if out.exists() else out.parent / f".{out.name}{PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _publish(partial, out)
    finally:
        lock.release()


def _lock(out: Path) -> FileLock:
    """Lock an output folder; the lock's file lies in the cache and stays there."""
    name = hashlib.sha256(os.fsencode(out)).hexdigest()[:24]
    folder = default_cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another run is writing {out} now; wait for it, or choose another"
        ) from None
    return lock


def _publish(partial: Path, out: Path) -> None:
    """Move the files of a finished run into place; run.json goes first and comes last.

    Raises:
        OSError: If a file cannot be moved; the finished run is kept and named.
    """
    try:
        if partial.parent != out:
            partial.rename(out)
            return
        if (out / RUN).exists():
            (out / RUN).replace(out / REPLACED)
        old = partial / ".old"
        old.mkdir()
        for item in sorted(partial.iterdir(), key=lambda p: p.name == RUN):
            if item == old:
                continue
            if os.path.lexists(out / item.name):
                (out / item.name).rename(old / item.name)
            item.rename(out / item.name)
        (out / REPLACED).unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise OSError(f"cannot move the finished run from {partial} to {out}: {error}") from error


@dataclass(frozen=True)
class LabelRows:
    """What ``labels.parquet`` says of n sources: its columns, made a few rows at a time.

    Attributes:
        class_names: In the order of the columns.
        method: Name of what labelled.
        sources: One per row.
        predictions: Of every source.
        confidence: See ``confidences``.
        zero_shot: What the text classifier alone says, where it was asked.
        unknown_scores: Higher for images that no name fits, where a run knows.
        suspected: Which of them stand out.
        given: The known labels, -1 = none, where there were any.
    """

    class_names: tuple[str, ...]
    method: str
    sources: tuple[str, ...]
    predictions: Predictions
    confidence: Float[Tensor, " n"]
    zero_shot: Int[Tensor, " n"] | None = None
    unknown_scores: Float[Tensor, " n"] | None = None
    suspected: Bool[Tensor, " n"] | None = None
    given: Int[Tensor, " n"] | None = None

    @classmethod
    def of(cls, outcome: Outcome, method: str) -> "LabelRows":
        """Return the rows of a run."""
        found, rows = outcome.assessment, outcome.inputs.feature_rows()
        return cls(
            outcome.classifier.label_space.class_names,
            method,
            outcome.inputs.sources,
            outcome.predictions,
            confidences(outcome),
            outcome.zero_shot,
            None if found is None else found.unknown_scores[rows],
            None if found is None else found.suspected[rows],
            outcome.given,
        )

    def table(self) -> pa.Table:
        """Return all rows: label, its probability, the best other class, margin, the rest.

        Where the decision abstained, probability and runner-up are those of the most probable
        class. ``confidence`` is calibrated as far as it can be without labels, see
        ``assessment.py``.

        Up to ``MAX_PROBABILITY_COLUMNS`` classes every class has a column ``p_<name>``; above that
        the five most probable stand in ``top_labels`` and ``top_probabilities``.
        """
        return pa.Table.from_batches(list(self.batches()))

    def batches(self, size: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the table in parts; one without rows where there is no source.

        Args:
            size: Rows of a part; by default as many as are held while files are written.
        """
        size = size or max(1, min(ROWS_AT_ONCE, VALUES_AT_ONCE // len(self.class_names)))
        names = json.dumps({"class_names": self.class_names}, ensure_ascii=False)
        for start in range(0, max(1, len(self.sources)), size):
            columns = self._columns(slice(start, start + size))
            yield pa.record_batch(columns).replace_schema_metadata({"nameonly": names})

    def _columns(self, rows: slice) -> dict[str, Any]:
        named, labels = pa.array(self.class_names, pa.string()), self.predictions.labels[rows]
        probs = self.predictions.probs[rows]
        top = probs.topk(min(TOP, len(self.class_names)), dim=1)
        answer = torch.where(labels >= 0, labels, top.indices[:, 0])[:, None]
        probability = probs.gather(1, answer)[:, 0]
        runner_up = probs.scatter(1, answer, -1.0).max(dim=1)
        columns: dict[str, Any] = {
            "path": pa.array(self.sources[rows], pa.string()),
            "id": pa.array(self.predictions.ids[rows], pa.string()),
            "label": named.take(pa.array(labels.numpy(), mask=(labels < 0).numpy())),
            "probability": probability.numpy(),
            "confidence": self.confidence[rows].numpy(),
            "runner_up": named.take(pa.array(runner_up.indices.numpy())),
            "margin": (probability - runner_up.values).numpy(),
            "method": pa.array([self.method] * len(probs), pa.string()),
            "zero_shot_label": pa.nulls(len(probs), pa.string())
            if self.zero_shot is None
            else named.take(pa.array(self.zero_shot[rows].numpy())),
        }
        if self.unknown_scores is not None and self.suspected is not None:
            columns["unknown_score"] = self.unknown_scores[rows].numpy()
            columns["suspected_unknown"] = self.suspected[rows].numpy()
        if self.given is not None:
            known = self.given[rows]
            columns["given_label"] = named.take(pa.array(known.numpy(), mask=(known < 0).numpy()))
        return columns | self._probabilities(probs, top.values, top.indices)

    def _probabilities(
        self,
        probs: Float[Tensor, "b c"],
        top: Float[Tensor, "b k"],
        classes: Int[Tensor, "b k"],
    ) -> dict[str, Any]:
        if len(self.class_names) <= MAX_PROBABILITY_COLUMNS:
            columns = probs.T.contiguous().numpy()
            return {f"p_{name}": columns[j] for j, name in enumerate(self.class_names)}
        named, size = pa.array(self.class_names, pa.string()), top.shape[1]
        found = {
            "top_labels": named.take(pa.array(classes.flatten().numpy())),
            "top_probabilities": pa.array(top.flatten().numpy()),
        }
        return {k: pa.FixedSizeListArray.from_arrays(v, size) for k, v in found.items()}


def confidences(outcome: Outcome) -> Float[Tensor, " n"]:
    """Return how sure the most probable class of every source is, calibrated.

    A run knows its images together and judges each among them; a saved classifier has its
    temperature alone.
    """
    if outcome.assessment is not None:
        return outcome.assessment.confidence[outcome.inputs.feature_rows()]
    probs, calibrated = outcome.predictions.probs, outcome.classifier.calibrated
    tops = ((rows, calibrated(probs[rows]).amax(dim=1)) for rows in row_blocks(*probs.shape))
    return filled(torch.empty(len(probs)), tops)


def write_labels(folder: Path, rows: LabelRows, size: int | None = None) -> None:
    """Write ``labels.parquet``, and ``labels.csv`` without the probabilities of every class.

    Both grow by ``size`` rows at a time (see ``batches``), so that no more of them are held.
    """
    batches = rows.batches(size)
    first = next(batches)
    with (
        pq.ParquetWriter(folder / LABELS, first.schema) as parquet,
        (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for batch in chain([first], batches):
            parquet.write_batch(batch)
            columns = [batch.column(key).to_pylist() for key in CSV_COLUMNS]
            writer.writerows(
                ["" if v is None else f"{v:.6f}" if isinstance(v, float) else v for v in row]
                for row in zip(*columns, strict=True)
            )


def write_quarantine(folder: Path, quarantined: Sequence[Quarantined]) -> None:
    """Write ``quarantine.parquet``: one row per bad source, none where all were good."""
    table = pa.table(
        {
            "path": pa.array([q.source for q in quarantined], pa.string()),
            "reason": pa.array([q.reason for q in quarantined], pa.string()),
        }
    )
    pq.write_table(table, folder / "quarantine.parquet")


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Write ``run.json``."""
    text = json.dumps(run, indent=2, ensure_ascii=False, default=str)
    (folder / RUN).write_text(text + "\n", encoding="utf-8", errors="replace")


def duplicate_groups(outcome: Outcome) -> tuple[tuple[str, ...], ...]:
    """Return the sources that share their bytes, one group per image that has more than one."""
    seen: set[str] = set()
    repeated: set[str] = set()
    for image_id in outcome.predictions.ids:
        (repeated if image_id in seen else seen).add(image_id)
    groups: dict[str, list[str]] = {}
    if repeated:
        for source, image_id in zip(outcome.inputs.sources, outcome.predictions.ids, strict=True):
            if image_id in repeated:
                groups.setdefault(image_id, []).append(source)
    return tuple(tuple(group) for group in groups.values())


def estimates(found: Assessment, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return what a run estimates of its own labels, for ``run.json``."""
    accuracy = found.accuracy
    interval = None if accuracy is None else [round(accuracy.low, 4), round(accuracy.high, 4)]
    return {
        "estimated_accuracy": None if accuracy is None else round(accuracy.value, 4),
        "estimated_accuracy_interval": interval,
        "trust": found.as_dict(class_names),
    }


def synthetic(outcome: Outcome) -> dict[str, Any]:
    """Return what a run's synthetic images are, where they lie and what all of them are worth."""
    support = outcome.support
    assert support is not None and outcome.worth is not None
    return {
        "folder": str(support.folder),
        "model": support.rows[0]["model"],
        "lora": support.rows[0]["lora"],
        **asdict(outcome.worth.all),
    }


def counts(outcome: Outcome) -> dict[str, Any]:
    """Return how many sources, images, duplicates, ... a run had."""
    labels = outcome.predictions.labels
    names = outcome.classifier.label_space.class_names
    n_sources, n_images = len(labels), len(outcome.inputs.features)
    found: dict[str, Any] = {
        "sources": n_sources,
        "images": n_images,
        "duplicates": n_sources - n_images,
        "quarantined": len(outcome.inputs.quarantined),
        "labelled": int((labels >= 0).sum()),
        "abstained": int((labels < 0).sum()),
        "encoded_now": outcome.inputs.n_encoded,
        "per_class": dict(
            zip(
                names,
                torch.bincount(labels[labels >= 0], minlength=len(names)).tolist(),
                strict=True,
            )
        ),
    }
    if outcome.task is not None and len(outcome.task.features) < n_images:
        found["adapted_on"] = len(outcome.task.features)
    if outcome.given is not None:
        found["given"] = int((outcome.given >= 0).sum())
    if outcome.zero_shot is not None:
        changed = outcome.zero_shot != outcome.predictions.probs.argmax(dim=1)
        found["changed_by_adaptation"] = int(changed.sum())
    if outcome.pseudo_labels is not None:
        per_class = outcome.pseudo_labels.candidates.sum(dim=0).tolist()
        found["pseudo_labels"] = dict(zip(names, per_class, strict=True))
    return found
