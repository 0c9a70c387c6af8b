"""The page of a folder of synthetic images: what was made, what it is worth, some of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from nameonly.report.html import environment
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


def write_synthetic_report(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    dropped: Mapping[str, int],
    measured: Measured | None,
    open_image: Callable[[str], Image.Image],
    before_after: BeforeAfter | None = None,
) -> None:
    """Write the page; an older one is replaced.

    Args:
        path: Where the page goes.
        rows: Of ``synthetic.parquet``.
        dropped: How many images are left out, by reason.
        measured: What the kept images are worth; None where no backbone looked at them.
        open_image: Opens the image at a path of the table.
        before_after: What an adaptation of the model changed, where it was adapted.

    Raises:
        OSError: If it cannot be written.
    """
    kept = [row for row in rows if row["kept"]]
    names = list(dict.fromkeys(str(row["class_name"]) for row in rows))
    galleries = [
        (name, _pictures([row for row in kept if row["class_name"] == name], open_image))
        for name in names[:MOST_CLASSES]
    ]
    page = (
        environment()
        .get_template("synthetic.html.jinja")
        .render(
            n_kept=len(kept),
            n_asked=len(rows),
            n_classes=len(names),
            first=rows[0],
            dropped=dict(dropped),
            worth=[] if measured is None else _table(measured),
            compared=measured is not None and measured.all.n_real > 0,
            changes=[] if before_after is None else _changes(before_after),
            pairs=[] if before_after is None else _pairs(before_after, open_image),
            galleries=galleries,
            n_other_classes=max(0, len(names) - MOST_CLASSES),
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
