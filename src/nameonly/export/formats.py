"""What a run can be exported as, and the export itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nameonly.export import (
    cleanlab,
    csv_table,
    cvat,
    fiftyone,
    huggingface,
    imagefolder,
    label_studio,
    parquet_table,
    ultralytics,
)
from nameonly.export.labelled import LabelledRun, read_run
from nameonly.export.pictures import Pictures, open_pictures
from nameonly.images import Quarantined
from nameonly.journal import Journal
from nameonly.pipeline import ImageSpec

WriteTable = Callable[[LabelledRun, Path], dict[str, Any]]
WriteImages = Callable[..., dict[str, Any]]
TABLES: dict[str, WriteTable] = {
    "csv": csv_table.write,
    "parquet": parquet_table.write,
    "cleanlab": cleanlab.write,
}
WITH_IMAGES: dict[str, WriteImages] = {
    "imagefolder": imagefolder.write,
    "huggingface": huggingface.write,
    "label-studio": label_studio.write,
    "fiftyone": fiftyone.write,
    "cvat": cvat.write,
    "ultralytics": ultralytics.write,
}


@dataclass(frozen=True)
class Wanted:
    """What an export was asked for.

    Attributes:
        to: A key of ``TABLES`` or of ``WITH_IMAGES``.
        min_confidence: Leave out what is less certain.
        images: Where the images lie now; None for where they lay.
        column: Of a table of images; None for the run's.
        link: Put symbolic links in place of copies.
        val_share: Of ultralytics; None for its default.
    """

    to: str
    min_confidence: float = 0.0
    images: ImageSpec | None = None
    column: str | None = None
    link: bool = False
    val_share: float | None = None

    def __post_init__(self) -> None:
        if self.to not in TABLES | WITH_IMAGES:
            known = ", ".join([*TABLES, *WITH_IMAGES])
            raise ValueError(f"no format {self.to!r}; there are: {known}")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(
                f"--min-confidence must lie between 0 and 1, got {self.min_confidence}"
            )
        if self.to in TABLES and (self.images is not None or self.link):
            raise ValueError(
                f"{self.to} holds no images: leave out --images and --link (they go with "
                f"{', '.join(WITH_IMAGES)})"
            )
        if self.val_share is not None and self.to != "ultralytics":
            raise ValueError(f"--val-share goes with ultralytics, not with {self.to}")


def export_run(
    folder: Path, wanted: Wanted, place: Path, journal: Journal | None = None
) -> dict[str, Any]:
    """Write a run into an empty folder, in another form.

    Args:
        folder: Of the run.
        wanted: What is asked for.
        place: Folder to write into.
        journal: Times the stages.

    Returns:
        Counts: ``exported``, ``sources`` of the run, ``abstained`` and ``below`` (less certain than
        asked for) among them; ``unreadable``, with reasons; ``notes`` for a person.

    Raises:
        ValueError: If the run, its images or what is asked for is bad, or nothing is left.
        OSError: If a file cannot be written.
    """
    journal = journal or Journal()
    run = read_run(folder)
    chosen = run.at_least(wanted.min_confidence)
    if not len(chosen):
        raise ValueError(
            f"nothing to export: none of the {len(run)} rows of {folder} is as certain as "
            f"{wanted.min_confidence}"
        )
    skipped: list[Quarantined] = []
    if wanted.to in TABLES:
        with journal.stage("write"):
            found = TABLES[wanted.to](chosen, place)
    else:
        with journal.stage("ingest"):
            pictures = _open(run, wanted, journal)
        pictures.total = len(chosen)
        share = {} if wanted.val_share is None else {"val_share": wanted.val_share}
        with journal.stage("write"):
            found = WITH_IMAGES[wanted.to](chosen, pictures, place, **share)
        skipped = pictures.skipped
    if not found["exported"]:
        raise ValueError(_nothing(run, chosen, skipped))
    return {
        "format": wanted.to,
        "run": str(folder),
        **run.provenance,
        "classes": list(run.class_names),
        "min_confidence": wanted.min_confidence,
        "sources": len(run),
        "abstained": chosen.n_abstained,
        "below": len(run) - len(chosen),
        "unreadable": [{"path": bad.source, "reason": bad.reason} for bad in skipped],
        "notes": [],
        **found,
    }


def _open(run: LabelledRun, wanted: Wanted, journal: Journal) -> Pictures:
    pictures = open_pictures(run, wanted.images, wanted.column, wanted.link, journal.on_progress)
    pictures.on_progress = journal.on_progress
    return pictures


def _nothing(run: LabelledRun, chosen: LabelledRun, skipped: list[Quarantined]) -> str:
    why = [f"{chosen.n_abstained} have no label"] if chosen.n_abstained else []
    if skipped:
        first = skipped[0]
        why.append(f"{len(skipped)} images could not be put ({first.source}: {first.reason})")
    return f"nothing to export from the {len(run)} rows of {run.folder}: {'; '.join(why)}"
