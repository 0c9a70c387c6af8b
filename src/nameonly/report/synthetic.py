"""The page of a folder of synthetic images: what was made, what it is worth, some of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from nameonly.report.templates import environment
from nameonly.report.thumbnails import Thumbnail, make_thumbnail
from nameonly.trust.synthetic import Measured, Worth

MOST_CLASSES = 40
PER_CLASS = 8
PAIRS_PER_TRICK = 6


@dataclass(frozen=True)
class Picture:
    """One synthetic image on the page."""

    thumbnail: Thumbnail | None
    class_name: str
    trick: str
    guidance_scale: float
    prompt: str
    kind: str = "synthetic"

    @property
    def alt(self) -> str:
        """What stands in place of the picture."""
        return f"{self.kind} {self.class_name}: {self.prompt}"


@dataclass(frozen=True)
class BeforeAfter:
    """The same requests answered by the model as it is and by the adapted one.

    Attributes:
        before: What the images of the model as it is are worth.
        after: The same of the adapted model's.
        rows: Of the table, of the requests that both answered.
        folder: Of the images before, within that of the images after.
    """

    before: Measured
    after: Measured
    rows: Sequence[Mapping[str, Any]]
    folder: str


@dataclass(frozen=True)
class MadeImages:
    """Synthetic images of a folder.

    Attributes:
        rows: Of ``synthetic.parquet``.
        measured: What the kept images are worth; None where no backbone looked at them.
        open_image: Opens the image at a path of the table.
    """

    rows: Sequence[Mapping[str, Any]]
    measured: Measured | None
    open_image: Callable[[str], Image.Image]


def shown_images(made: MadeImages) -> dict[str, Any]:
    """Return what a page says of synthetic images: figures, and the first ones of every class."""
    kept = [row for row in made.rows if row["kept"]]
    names = list(dict.fromkeys(str(row["class_name"]) for row in made.rows))
    galleries = [
        (name, _pictures([row for row in kept if row["class_name"] == name], made.open_image))
        for name in names[:MOST_CLASSES]
    ]
    measured = made.measured
    return {
        "n_kept": len(kept),
        "n_asked": len(made.rows),
        "n_classes": len(names),
        "first": made.rows[0],
        "worth": [] if measured is None else _table(measured),
        "compared": measured is not None and measured.all.n_real > 0,
        "galleries": galleries,
        "n_other_classes": max(0, len(names) - MOST_CLASSES),
    }


def write_synthetic_report(
    path: Path,
    made: MadeImages,
    dropped: Mapping[str, int],
    before_after: BeforeAfter | None = None,
) -> None:
    """Write the page; an older one is replaced.

    Args:
        path: Where the page goes.
        made: The images.
        dropped: How many of them are left out, by reason.
        before_after: What an adaptation of the model changed, where it was adapted.

    Raises:
        OSError: If it cannot be written.
    """
    page = (
        environment()
        .get_template("synthetic.html.jinja")
        .render(
            made=shown_images(made),
            dropped=dict(dropped),
            changes=[] if before_after is None else _changes(before_after),
            pairs=[] if before_after is None else _pairs(before_after, made.open_image),
        )
    )
    path.write_text(page, encoding="utf-8")


def _pictures(
    rows: Sequence[Mapping[str, Any]],
    open_image: Callable[[str], Image.Image],
    kind: str = "synthetic",
) -> list[Picture]:
    shown = rows[:PER_CLASS]
    return [
        Picture(
            make_thumbnail(lambda i: open_image(str(shown[i]["path"])), i),
            str(row["class_name"]),
            str(row["trick"]),
            float(row["guidance_scale"]),
            str(row["prompt"]),
            kind,
        )
        for i, row in enumerate(shown)
    ]


def _changes(both: BeforeAfter) -> list[tuple[str, list[str], list[str]]]:
    """Return name and figures before and after, of all images and of every trick's."""
    return [
        ("all images", _figures(both.before.all), _figures(both.after.all)),
        *(
            (name, _figures(worth), _figures(both.after.tricks[name]))
            for name, worth in both.before.tricks.items()
        ),
    ]


def _pairs(
    both: BeforeAfter, open_image: Callable[[str], Image.Image]
) -> list[tuple[str, list[tuple[Picture, Picture]]]]:
    """Return pictures of the same requests, by trick: the first of every class, then the second."""
    found = []
    for trick in both.before.tricks:
        turns: dict[str, int] = {}
        ranked = []
        for row in both.rows:
            if row["trick"] == trick:
                turn = turns[row["class_name"]] = turns.get(row["class_name"], -1) + 1
                ranked.append((turn, row))
        rows = [row for _, row in sorted(ranked, key=lambda pair: pair[0])][:PAIRS_PER_TRICK]
        earlier = [{**row, "path": f"{both.folder}/{row['path']}"} for row in rows]
        before = _pictures(earlier, open_image, "before adaptation")
        after = _pictures(rows, open_image, "after adaptation")
        found.append((trick, list(zip(before, after, strict=True))))
    return found


def _table(measured: Measured) -> list[tuple[str, str, list[str]]]:
    """Return kind, name and figures of every line of the table."""
    classes = list(measured.classes.items())[:MOST_CLASSES]
    return [
        ("all", "all images", _figures(measured.all)),
        *(("trick", name, _figures(worth)) for name, worth in measured.tricks.items()),
        *(("class", name, _figures(worth)) for name, worth in classes),
    ]


def _figures(worth: Worth) -> list[str]:
    def spelt(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        f"{worth.n:,}",
        spelt(worth.recognised, ".0%"),
        spelt(worth.distance, ".2f"),
        spelt(worth.vendi, ".1f"),
        spelt(worth.coverage, ".1%"),
        spelt(worth.mmd, ".2f"),
        spelt(worth.told_apart, ".0%"),
    ]
