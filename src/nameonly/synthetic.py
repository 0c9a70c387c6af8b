"""Synthetic images on disk: what is asked for, what was made, and how each came to be.

A folder holds ``images/CLASS/NUMBER.webp`` (or .png) and ``synthetic.parquet`` with a row for each.
An image carries its row in its own metadata (EXIF ImageDescription, JSON), so that the table can be
made again from the images, and a run that was stopped knows what it has.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from nameonly.images import BadImageError, Quarantined, decode, hash_rows
from nameonly.journal import OnProgress
from nameonly.sources.locations import FileLocation
from nameonly.types import ImageSet, LabelSpace, class_key

TABLE = "synthetic.parquet"
COLUMNS = ("path", "class_name", "number", "prompt", "trick", "guidance_scale", "seed")
DESCRIPTION = 0x010E  # EXIF's ImageDescription
# why an image of an earlier call is not kept; whoever asks for it again has it back
UNASKED = "not asked for"
# lossless at the least effort: a tenth larger, and twenty times as fast as what Pillow does unasked
FASTEST: dict[str, dict[str, Any]] = {
    ".webp": {"lossless": True, "method": 0},
    ".png": {"compress_level": 1},
}
# names that a file cannot have on Windows
RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)\d")
ImageFormat = Literal["webp", "png"]


@dataclass(frozen=True)
class ImageRequest:
    """One synthetic image to make.

    Attributes:
        class_name: The class it shall show.
        number: Its place among the images of its class, from 0.
        prompt: The text that it is made from.
        trick: The prompt trick that wrote the text, see ``synthesis/prompt_tricks.py``.
        guidance_scale: Weight of the text against none; 1 and below go without guidance.
        seed: Of its noise.
        source: The real image that it varies, by its id; empty where it is made from noise alone.
        strength: How much of that image is made anew, in (0, 1]; 1 where it is made from noise.
    """

    class_name: str
    number: int
    prompt: str
    trick: str
    guidance_scale: float
    seed: int
    source: str = ""
    strength: float = 1.0

    def path(self, image_format: ImageFormat) -> Path:
        """Return its place in the folder."""
        return Path("images") / class_folder(self.class_name) / f"{self.number:05d}.{image_format}"


def class_folder(class_name: str) -> str:
    """Return a folder name for a class: readable, safe on every file system, one for each name."""
    plain = re.sub(r"[^a-z0-9]+", "-", class_name.casefold()).strip("-")[:60]
    if plain and plain == class_name and not RESERVED.fullmatch(plain):
        return plain
    digest = hashlib.sha256(class_name.encode()).hexdigest()[:8]
    return f"{plain or 'class'}-{digest}"


def write_image(pixels: UInt8[np.ndarray, "h w 3"], path: Path, facts: Mapping[str, Any]) -> None:
    """Write an image, lossless, with its facts inside; it appears whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[DESCRIPTION] = json.dumps(facts, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        image.save(partial, path.suffix.lstrip(".").upper(), exif=exif, **FASTEST[path.suffix])
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_facts(path: Path, *, whole: bool = True) -> dict[str, Any] | None:
    """Return the facts inside an image, None where it is absent, damaged or carries none.

    Args:
        path: Of the image.
        whole: Also decode it, so that damaged pixels are seen too.
    """
    try:
        with Image.open(path) as image:
            if whole:
                image.load()
            facts = json.loads(image.getexif()[DESCRIPTION])
    except Exception:  # a damaged file raises nearly anything
        return None
    return facts if isinstance(facts, dict) else None


def check_not_foreign(path: Path) -> None:
    """Refuse a whole picture that carries no facts: it would be overwritten, and is somebody's.

    Raises:
        ValueError: If it is one; a damaged file is none.
    """
    try:
        decode(path.read_bytes())
    except (OSError, BadImageError):
        return
    raise ValueError(
        f"{path} was not made here, or has lost what it said of itself; move it away, or choose a "
        "new folder"
    )


def write_table(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write ``synthetic.parquet``, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    partial = folder / f".{TABLE}.partial"
    # rows that were read back from images have their facts in another order
    names = dict.fromkeys((*COLUMNS, *(name for row in rows for name in sorted(row))))
    table = pa.Table.from_pylist([dict(row) for row in rows])
    pq.write_table(table.select([name for name in names if name in table.column_names]), partial)
    partial.replace(folder / TABLE)


def read_table(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``synthetic.parquet``.

    Raises:
        ValueError: If the folder has none, or it is damaged.
    """
    path = folder / TABLE
    if not path.is_file():
        raise ValueError(f"{folder} holds no finished synthetic images: there is no {TABLE}")
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        for row in rows:
            _ = row["class_name"], row["made"], row["kept"]
            place = PurePosixPath(str(row["path"]).replace("\\", "/"))
            if place.is_absolute() or ".." in place.parts:
                raise ValueError(f"{row['path']!r} does not lie in the folder")
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); generate again into its folder") from error
    return rows


def rows_by_path(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of ``synthetic.parquet``; none where it is absent or damaged.

    The images tell it all again.
    """
    try:
        return {str(row["path"]): row for row in read_table(folder)}
    except ValueError:
        return {}


def unasked_rows(folder: Path, asked: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of images that earlier calls asked for and the last one did not.

    They were drawn at a cost, so that they stay, and are not kept. A picture that was not made here
    has no row.

    Args:
        folder: Of the images.
        asked: Paths of what the last call asked for.
    """
    told, found = rows_by_path(folder), []
    for file in sorted(folder.glob("images/*/*")):
        path = file.relative_to(folder).as_posix()
        if path in asked or file.suffix not in FASTEST:
            continue
        # a table stands for whole files
        facts = read_facts(file, whole=path not in told)
        if facts is not None and set(COLUMNS) <= facts.keys() and facts["path"] == path:
            found.append(facts | {"made": True, "kept": False, "reason": UNASKED})
    return found


def asked_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a table's rows without those of earlier calls, see ``unasked_rows``."""
    return [row for row in rows if row.get("reason") != UNASKED]


def summary(folder: Path) -> dict[str, Any]:
    """Return what a folder of synthetic images holds: counts, by class and by reason.

    Raises:
        ValueError: If it has no table, or it is damaged.
    """
    every = read_table(folder)
    rows = asked_rows(every)
    classes = {row["class_name"]: 0 for row in rows}
    dropped: dict[str, int] = {}
    for row in rows:
        classes[row["class_name"]] += int(row["kept"])
        if not row["kept"]:
            reason = row["reason"].split(":")[0]
            reason = "low agreement" if reason.startswith("agreement") else reason
            reason = "taken for another class" if reason.startswith("taken for") else reason
            dropped[reason] = dropped.get(reason, 0) + 1
    return {
        "out": str(folder),
        "asked_for": len(rows),
        "not_asked_for": len(every) - len(rows),
        "kept": sum(classes.values()),
        "classes": classes,
        "dropped": dropped,
        "model": rows[0]["model"],
        "lora": rows[0]["lora"],
    }


def record_decisions(
    folder: Path, paths: Sequence[str], agreement: Sequence[float], reasons: Sequence[str]
) -> None:
    """Write into the table which images a filter keeps: those without a reason to go.

    Args:
        folder: Of the table.
        paths: Of the images that were judged; the others stay as they are.
        agreement: The backbone's probability of the class that each was made for.
        reasons: Why an image goes, empty where it stays.

    Raises:
        ValueError: If the folder has no table, or it is damaged.
        OSError: If the table cannot be written.
    """
    judged = dict(zip(paths, zip(agreement, reasons, strict=True), strict=True))
    rows = read_table(folder)
    for row in rows:
        value, reason = judged.get(row["path"], (None, row["reason"]))
        row["agreement"] = value
        if row["path"] in judged:
            row |= {"kept": not reason, "reason": reason}
    write_table(rows, folder)


@dataclass(frozen=True)
class SyntheticImages:
    """The images of a folder that were made and kept.

    Attributes:
        images: One row per image.
        class_names: The class that each was made for.
        rows: The table's row of each.
    """

    images: ImageSet
    class_names: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.class_names)

    def only(self, paths: Collection[str]) -> "SyntheticImages":
        """Return the images at some of its paths."""
        chosen = [i for i, row in enumerate(self.rows) if row["path"] in paths]
        names = tuple(self.class_names[i] for i in chosen)
        return replace(
            self,
            images=self.images.subset(chosen),
            class_names=names,
            rows=tuple(self.rows[i] for i in chosen),
        )

    def class_rows(self, label_space: LabelSpace) -> Int[Tensor, " n"]:
        """Return the class index of every image; some classes may have none.

        Raises:
            ValueError: If an image is of another class.
        """
        index = {class_key(name): i for i, name in enumerate(label_space.class_names)}
        foreign = sorted({name for name in self.class_names if class_key(name) not in index})
        if foreign:
            raise ValueError(
                f"the synthetic images are of classes {foreign}, which are none of "
                f"{list(label_space.class_names)}"
            )
        return torch.tensor([index[class_key(name)] for name in self.class_names])

    def labels(self, label_space: LabelSpace) -> Int[Tensor, " n"]:
        """Return the class index of every image.

        Raises:
            ValueError: If an image is of another class, or a class has no image.
        """
        labels = self.class_rows(label_space)
        counts = torch.bincount(labels, minlength=len(label_space))
        empty = [label_space.class_names[i] for i in (counts == 0).nonzero()[:, 0].tolist()]
        if empty:
            raise ValueError(
                f"no synthetic image is left of {', '.join(map(repr, empty))}; generate more, or "
                "filter less"
            )
        return labels


def read_synthetic(
    folder: Path, *, with_dropped: bool = False, on_progress: OnProgress | None = None
) -> tuple[SyntheticImages, list[Quarantined]]:
    """Return the images of a folder, and those that cannot be read.

    Args:
        folder: With ``synthetic.parquet``.
        with_dropped: Also those that a filter dropped.
        on_progress: Called with the images read so far and in all.

    Raises:
        ValueError: If the folder has no table, the table is damaged, or no image is left.
    """
    rows = asked_rows(read_table(folder))
    wanted = {str(row["path"]): row for row in rows if row["made" if with_dropped else "kept"]}
    if not wanted:
        raise ValueError(f"none of the {len(rows)} images of {folder} was kept")
    places = [(path, FileLocation(str((folder / path).absolute()))) for path in wanted]
    images, unreadable = hash_rows(places, on_progress)
    found = tuple(wanted[path] for path in images.sources)
    return SyntheticImages(images, tuple(row["class_name"] for row in found), found), unreadable
