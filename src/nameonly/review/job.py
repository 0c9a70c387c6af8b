"""The verb: review a run's labels until the person stops."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nameonly.extras import import_extra
from nameonly.review import server
from nameonly.review.answers import Review
from nameonly.review.decisions import Decisions
from nameonly.review.guard import LOOPBACK
from nameonly.review.labels import RunLabels, read_run
from nameonly.review.pictures import ImageSpec, Pictures, find_images
from nameonly.review.queues import build_queues
from nameonly.review.table import TABLE, TableKeeper, counts, write_table


@dataclass(frozen=True)
class Wanted:
    """What a review was asked for.

    Attributes:
        images: Where the images lie now; None for where they lay.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        show: Open the page in the browser.
        queues: Further queues by name, as rows of ``labels.parquet``.
        on_note: Called with a line for a person.
        on_progress: Called with images read and images in all.
    """

    images: ImageSpec | None = None
    host: str = "127.0.0.1"
    port: int = 0
    show: bool = True
    queues: Mapping[str, Sequence[int]] = field(default_factory=dict)
    on_note: Callable[[str], None] = print
    on_progress: Callable[[int, int], None] | None = None


def review(folder: Path, wanted: Wanted) -> dict[str, Any]:
    """Serve the page for a run's folder until Ctrl-C.

    Returns:
        What was decided, see ``summary``.

    Raises:
        ValueError: If the folder is no run, its images are not found, another review has it open,
            or the extra is not installed.
        OSError: If the folder cannot be written or the address is taken.
    """
    for package in ("fastapi", "uvicorn"):
        import_extra(package, package, "review")
    labels = read_run(folder)
    queues = build_queues(labels, wanted.queues)
    with server.listen(wanted.host, wanted.port) as listening, Decisions(folder) as decisions:
        found, rows = find_images(labels, wanted.images, wanted.on_progress)
        if missing := int((rows < 0).sum()):
            wanted.on_note(f"{missing:,} of {len(labels):,} images were not found")
        with TableKeeper(labels, decisions, wanted.on_note) as keeper:
            subject = Review(labels, queues, decisions)
            site = server.Site(subject, Pictures(found, rows), keeper.note)
            if wanted.host not in LOOPBACK:
                wanted.on_note("whoever has the link and reaches this machine sees the images")
            wanted.on_note(f"review  {server.address(listening, site)}")
            wanted.on_note("Ctrl-C stops; every answer is on disk at once")
            server.serve(site, listening, wanted.host, wanted.show)
        return summary(labels, decisions)


def finish(folder: Path) -> dict[str, Any]:
    """Make ``review.parquet`` from the journal, and return what was decided.

    Raises:
        ValueError: If the folder is no run, or a review has it open.
        OSError: If the folder cannot be written.
    """
    labels = read_run(folder)
    with Decisions(folder) as decisions:
        write_table(labels, decisions)
        return summary(labels, decisions)


def summary(labels: RunLabels, decisions: Decisions) -> dict[str, Any]:
    """Return counts of decisions, the table's path and the command that learns from it."""
    table = labels.folder / TABLE
    return {
        **counts(labels, decisions),
        "table": str(table),
        "next": next_command(labels, table),
    }


def next_command(labels: RunLabels, table: Path) -> str:
    """Return the command that labels the same images again, with the decisions given."""
    simple = all(name == name.strip() and "," not in name for name in labels.class_names)
    named = ",".join(labels.class_names)
    folder = labels.folder.with_name(f"{labels.folder.resolve().name}-reviewed")
    words = ["nameonly", "label", labels.source, "--classes"]
    words += [named if simple and len(named) <= 300 else "CLASSES"]
    words += ["--backbone", labels.backbone] if labels.backbone else []
    words += ["--given", str(table), "--out", str(folder)]
    return shlex.join(words)
