"""An audit of a run: which labels to check by hand, and what the answers say of all of them."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.label_tables.reading import TRUE_LABEL, match_labels, read_labels
from nameonly.ops.intervals import effective_number
from nameonly.report.audit import audit_parts
from nameonly.report.places import fill_places
from nameonly.trust import audit
from nameonly.trust.answers import (
    LEVEL,
    Answers,
    audit_classes,
    confidence_errors,
    diagram,
    temperature_and_sets,
)
from nameonly.types import class_key

SAMPLE, RESULT, REPORT = "audit.csv", "audit.json", "report.html"
ANSWER = TRUE_LABEL
# how a person says that an image shows none of the classes
NONE = "none"


@dataclass(frozen=True)
class AuditedRun:
    """The labels of a run, one row per distinct image with an open label.

    Attributes:
        names: The classes.
        paths: One source of each image.
        ids: Of the images.
        labels: Class index (m).
        confidence: Of the labels (m).
        probs: Of every class, where the run wrote them (m, c).
        facts: Content of ``run.json``.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Int[Tensor, " m"]
    confidence: Float[Tensor, " m"]
    probs: Float[Tensor, "m c"] | None
    facts: Mapping[str, Any]


def read_audited(folder: Path) -> AuditedRun:
    """Read the labels that a run gave; those that it was given, and images without one, stay out.

    Raises:
        ValueError: If the folder is no run's, or no label is left.
    """
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        table = pq.read_table(folder / "labels.parquet")
        names = tuple(facts["classes"])
        place = {name: i for i, name in enumerate(names)}
        known = (
            table.column("given_label").to_pylist() if "given_label" in table.schema.names else []
        )
        rows: dict[str, int] = {}
        for i, (image_id, label) in enumerate(
            zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
        ):
            if label is not None and not (known and known[i]):
                rows.setdefault(image_id, i)
        rows = dict(sorted(rows.items()))  # as the report has them, which shows the same sample
        chosen = table.take(list(rows.values()))
        labels = torch.tensor([place[name] for name in chosen["label"].to_pylist()])
        confidence = torch.tensor(chosen["confidence"].to_numpy())
        probs = None
        if all(f"p_{name}" in table.schema.names for name in names):
            columns = [torch.tensor(chosen[f"p_{name}"].to_numpy()) for name in names]
            probs = torch.stack(columns, dim=1)
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise ValueError(f"{folder} is no whole run of `nameonly label`: {error}") from error
    if not rows:
        raise ValueError(f"{folder} holds no label that could be audited")
    paths = tuple(chosen["path"].to_pylist())
    return AuditedRun(names, paths, tuple(rows), labels.long(), confidence.float(), probs, facts)


def audit_order(run: AuditedRun, n_images: int, seed: int = 0) -> audit.AuditSample:
    """Return the sample to check; asked for more later, it begins with the same images."""
    return audit.audit_sample(run.confidence, n_images, seed=seed)


def draw_audit(folder: Path, n_images: int | None = None, margin: float = 0.05) -> dict[str, Any]:
    """Write ``audit.csv``: the images to check, with a column for what they truly show.

    Answers that are in the file already stay.

    Args:
        folder: Of a run.
        n_images: How many; by default as many as the margin needs.
        margin: Half the width of the interval that is wanted, in (0, 1).

    Raises:
        ValueError: If the folder is no run's, or a figure is out of range.
        OSError: If the file cannot be written.
    """
    run = read_audited(folder)
    expected = run.facts.get("estimated_accuracy") or 0.5
    wanted = n_images or audit.images_needed(margin, LEVEL, expected)
    sample = audit_order(run, wanted)
    before = _filled(folder / SAMPLE) if (folder / SAMPLE).is_file() else {}
    partial = folder / f".{SAMPLE}.partial"
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "id", "label", ANSWER))
        for row in sample.rows.tolist():
            image_id = run.ids[row]
            label = run.names[int(run.labels[row])]
            writer.writerow((run.paths[row], image_id, label, before.get(image_id, "")))
    partial.replace(folder / SAMPLE)
    return {
        "file": str(folder / SAMPLE),
        "images": len(sample.rows),
        "labels": len(run.ids),
        "expected_margin": _margin(len(sample.rows), len(run.ids), expected),
        "level": LEVEL,
    }


def audit_queue(folder: Path, n_images: int | None = None) -> list[int]:
    """Return the rows of ``labels.parquet`` that an audit asks about, in its order.

    Args:
        folder: Of a run.
        n_images: Draws so many first; without it, what was drawn before, or nothing.

    Raises:
        ValueError: If the folder is no run's, or ``audit.csv`` is damaged.
        OSError: If the file cannot be written.
    """
    path = folder / SAMPLE
    if n_images is not None:
        draw_audit(folder, n_images)
    if not path.is_file():
        return []
    rows: dict[str, int] = {}
    for i, image_id in enumerate(pq.read_table(folder / "labels.parquet")["id"].to_pylist()):
        rows.setdefault(image_id, i)
    with path.open(encoding="utf-8-sig", newline="") as file:
        asked = [row.get("id", "") for row in csv.DictReader(file)]
    return [rows[image_id] for image_id in asked if image_id in rows]


def _margin(n: int, total: int, accuracy: float) -> float:
    low, high = audit.interval_of_variance(
        accuracy, accuracy * (1 - accuracy) / n * (1 - n / total), LEVEL
    )
    return round((high - low) / 2, 4)


def _filled(path: Path) -> dict[str, str]:
    """Return the answers that a person has written into ``audit.csv``, by image."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["id"]: row[ANSWER].strip() for row in rows if row[ANSWER].strip()}
    except (OSError, KeyError, AttributeError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no longer the table that `nameonly audit` wrote ({error!r}); "
            "remove it and draw the sample again"
        ) from error


def read_answers(run: AuditedRun, path: Path) -> dict[str, int]:
    """Return the true class of images by id; the number of classes stands for none of them.

    Args:
        run: Whose images they are.
        path: ``audit.csv`` with its column filled in, ``review.parquet``, or any table of labels.

    Raises:
        ValueError: If the table is damaged, names another class, or is about other images.
    """
    decided = path.suffix == ".parquet" and path.is_file()
    if decided and "decision" in pq.read_schema(path).names:
        table = pq.read_table(path, columns=["id", "label", "decision"]).to_pylist()
        told = {
            r["id"]: NONE if r["decision"] == NONE else r["label"]
            for r in table
            if r["decision"] == NONE or r["label"] is not None
        }
    elif path.name == SAMPLE:
        told = _filled(path)
    else:
        told = read_labels(path)
    if not told:
        return {}
    spare = NONE not in {class_key(name) for name in run.names}
    names = (*run.names, NONE) if spare else run.names
    found = match_labels(run.paths, run.ids, told, names)
    return {
        image_id: label
        for image_id, label in zip(run.ids, found.labels.tolist(), strict=True)
        if label >= 0
    }


def answer_audit(folder: Path, answers: Path | None = None) -> dict[str, Any]:
    """Write ``audit.json``: the accuracy that the answers show, and what else follows from them.

    The run's report shows it too; where that has no place for it, ``report_problem`` says why.

    Answers to images that ``audit.csv`` does not name are left out: a person chose them, so that
    they say nothing of the others.

    Args:
        folder: Of a run, in which a sample was drawn.
        answers: See ``read_answers``; ``audit.csv`` itself by default.

    Raises:
        ValueError: If no sample was drawn, or nothing of it has an answer.
        OSError: If the file cannot be written.
    """
    path = folder / SAMPLE
    if not path.is_file():
        raise ValueError(f"{folder} has no {SAMPLE}; draw a sample first: nameonly audit {folder}")
    run = read_audited(folder)
    given = read_answers(run, answers or path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        drawn = {row.get("id") for row in csv.DictReader(file)}
    truth = torch.tensor([given.get(i, -1) if i in drawn else -1 for i in run.ids])
    checked = truth >= 0
    if not checked.any():
        raise ValueError(f"none of the {len(drawn)} images of {path} has an answer yet")
    sample = audit_order(run, len(run.ids))
    weights = audit.audit_weights(sample, checked)
    told = Answers(run.labels, run.confidence, run.probs, truth, weights)
    result = audit.audit_accuracy(sample, checked, told.right, LEVEL)
    found = {
        **asdict(result),
        "hoeffding": _hoeffding(result.accuracy, weights),
        "answered": int(checked.sum()),
        "asked": len(drawn),
        "estimated_accuracy_before": run.facts.get("estimated_accuracy"),
        "estimated_accuracy_interval_before": run.facts.get("estimated_accuracy_interval"),
        "classes": _class_rows(run, told),
        "reliability": diagram(told),
        "calibration_errors": confidence_errors(told),
        "temperature_before": (run.facts.get("trust") or {}).get("temperature"),
        **temperature_and_sets(told),
    }
    _write_whole(folder / RESULT, json.dumps(found, indent=2) + "\n")
    return {**found, "file": str(folder / RESULT), **_show(folder / REPORT, found)}


def _write_whole(path: Path, text: str) -> None:
    """Write a file; whoever is stopped on the way leaves the old one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(text.encode("utf-8"))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _show(path: Path, found: Mapping[str, Any]) -> dict[str, str | None]:
    """Put the results into the run's report; return its path, or why they are not there."""
    parts, why = audit_parts(found), None
    try:
        _write_whole(path, fill_places(path.read_bytes().decode("utf-8"), parts))
    except FileNotFoundError:
        why = f"no page shows this: {path} is missing"
    except OSError as error:
        why = f"{path} does not show this: {error.strerror}"
    except ValueError:
        why = f"{path} has no place to show this: it was edited, is older, or estimates nothing"
    return {"report": None if why else str(path), "report_problem": why}


def _hoeffding(accuracy: float, weights: Float[Tensor, " m"]) -> dict[str, Any] | None:
    """Return the interval without a distribution; None where a stratum has no answer."""
    if round(float(weights.sum())) < len(weights):
        return None
    low, high = audit.hoeffding_interval(accuracy, effective_number(weights), LEVEL)
    assumes = "the images checked are a random sample of each stratum; nothing else"
    return {"low": low, "high": high, "level": LEVEL, "assumes": assumes}


def _class_rows(run: AuditedRun, told: Answers) -> list[dict[str, Any]]:
    """Return what the answers say of each class, beside what the run had estimated."""
    estimated = (run.facts.get("trust") or {}).get("accuracy_of_labels") or {}
    rows = []
    for found in audit_classes(told):
        row = asdict(found)
        name = run.names[row.pop("label")]
        before = estimated.get(name)
        below = before is not None and found.high < before
        rows.append({"class": name, **row, "estimated_accuracy": before, "below_estimate": below})
    return rows
