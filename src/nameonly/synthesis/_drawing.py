"""Makes the images of requests in a folder: batches, resumption, redrawing, the table."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from nameonly.synthesis._locks import held
from nameonly.synthetic import (
    ImageFormat,
    ImageRequest,
    SyntheticImages,
    check_not_foreign,
    read_facts,
    read_synthetic,
    rows_by_path,
    unasked_rows,
    write_image,
    write_table,
)

# numbers that a redrawn image adds to its seed; far from those of its neighbours
NEXT_DRAW = 1_000_003
# a picture that is of one colour, or nearly, shows nothing
BLANK = 2 / 255
# files that are compressed and written at once
WRITERS = 4
# held by whoever writes a folder
LOCK = ".lock"
# how the model was named says nothing of what it is: its revision does
SPELLING = "model"
Draw = Callable[[Sequence[ImageRequest]], tuple[Float[np.ndarray, "b h w 3"], list[bool]]]
# a batch, and the places in it of the images that a folder lacks
Piece = tuple[list[ImageRequest], list[int]]
# their rows, and their pixels where there is anything to see
Drawn = list[tuple[dict[str, Any], UInt8[np.ndarray, "h w 3"] | None]]
DrawAll = Callable[[Sequence[Piece]], Iterator[Drawn]]


@dataclass(frozen=True)
class Drawing:
    """How requests become images in a folder.

    Attributes:
        draw: Makes a batch: values in [0, 1], and which of them a safety checker refused.
        facts: Of the generator; written beside those of every request.
        batch_size: Images made at once.
        draws: How often an image that is blank or refused is drawn before it is given up.
        image_format: Of the files.
    """

    draw: Draw
    facts: Mapping[str, Any]
    batch_size: int
    draws: int
    image_format: ImageFormat

    def into(
        self,
        folder: Path,
        requests: Sequence[ImageRequest],
        on_progress: Callable[[int, int], None] | None = None,
        draw_all: DrawAll | None = None,
    ) -> SyntheticImages:
        """Make every image that the folder lacks, then the table.

        Batches are cut from the whole list, so that a run that resumes makes an image among the
        same neighbours, to the same bytes. Images that only an earlier call asked for stay, and the
        table says so. ``draw_all`` does elsewhere, in this order, what ``drawn`` does here.

        Raises:
            ValueError: If there is nothing to make, the folder holds other images in these places,
                or another run writes it.
            FloatingPointError: If values are not finite.
            OSError: If an image cannot be written.
        """
        if not requests:
            raise ValueError("there are no requests to make images of")
        with held(folder / LOCK):
            rows = self._rows(folder, requests, on_progress or _ignore, draw_all or self._all)
            unasked = unasked_rows(folder, {row["path"] for row in rows})
            write_table([*rows, *unasked], folder)
            return read_synthetic(folder)[0]

    def lacking(
        self, folder: Path | None, requests: Sequence[ImageRequest]
    ) -> list[list[ImageRequest]]:
        """Return the batches that ``into`` will draw: all of them where there is no folder yet.

        Raises:
            ValueError: If the folder holds other images in these places.
        """
        rows = [None] * len(requests) if folder is None else self._there(folder, requests)
        return [
            [requests[i] for i in batch]
            for batch in batches(requests, self.batch_size)
            if any(rows[i] is None for i in batch)
        ]

    def _all(self, pieces: Sequence[Piece]) -> Iterator[Drawn]:
        return (self.drawn(*piece) for piece in pieces)

    def _rows(
        self,
        folder: Path,
        requests: Sequence[ImageRequest],
        on_progress: Callable[[int, int], None],
        draw_all: DrawAll,
    ) -> list[dict[str, Any]]:
        rows = self._there(folder, requests)
        done = sum(row is not None for row in rows)
        wanted = []
        for batch in batches(requests, self.batch_size):
            if lacking := [k for k, i in enumerate(batch) if rows[i] is None]:
                wanted.append((batch, lacking))
        pieces = [([requests[i] for i in batch], lacking) for batch, lacking in wanted]
        for (batch, lacking), drawn in zip(wanted, draw_all(pieces), strict=True):
            with ThreadPoolExecutor(WRITERS) as pool:
                list(pool.map(lambda made: _write(folder, *made), drawn))
            for k, (row, _) in zip(lacking, drawn, strict=True):
                rows[batch[k]] = row
            done += len(lacking)
            on_progress(done, len(requests))
        return [row for row in rows if row is not None]

    def _row(self, request: ImageRequest) -> dict[str, Any]:
        path = request.path(self.image_format).as_posix()
        return {"path": path, **asdict(request), **self.facts}

    def _there(self, folder: Path, requests: Sequence[ImageRequest]) -> list[dict[str, Any] | None]:
        """Return the rows of what is there, None where an image is to be made."""
        told = rows_by_path(folder)
        return [self._found(folder, request, told) for request in requests]

    def _found(
        self, folder: Path, request: ImageRequest, told: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Return the row of an image that is there, or that was given up after as many draws."""
        wanted = self._row(request)
        path, row = folder / wanted["path"], told.get(wanted["path"])
        if row is not None and not row["made"] and row.get("draws", 0) >= self.draws:
            alike = all(row.get(k) == wanted[k] for k in wanted if k != SPELLING)
            return row if alike else None
        # a table stands for whole files, so that their pixels need not be decoded
        found = read_facts(path, whole=row is None)
        if found is None:
            check_not_foreign(path)
            return None
        differing = sorted(k for k in wanted if k != SPELLING and found.get(k) != wanted[k])
        if differing:
            shown = [f"{k} {found.get(k)!r} there, {wanted[k]!r} here" for k in differing[:3]]
            raise ValueError(
                f"{path} is another image than the one asked for ({'; '.join(shown)}); choose a "
                "new folder"
            )
        return found

    def drawn(self, batch: Sequence[ImageRequest], lacking: Sequence[int]) -> Drawn:
        """Draw one batch, and return what is lacking of it.

        Raises:
            FloatingPointError: If values are not finite.
        """
        rows = {i: self._row(batch[i]) | {"draws": 0, "unsafe_draws": 0} for i in lacking}
        pixels: dict[int, np.ndarray] = {}
        again = list(range(len(batch)))
        for turn in range(self.draws):
            seeds = [replace(batch[i], seed=batch[i].seed + turn * NEXT_DRAW) for i in again]
            values, refused = self.draw(seeds)
            self._check_finite(values)
            for picture, unsafe, i in zip(values, refused, again, strict=True):
                if i not in rows:
                    continue
                rows[i]["draws"] += 1
                rows[i]["unsafe_draws"] += int(unsafe)
                if not unsafe and np.ptp(picture, axis=(0, 1)).max() >= BLANK:
                    rows[i] |= {"made": True, "kept": True, "reason": ""}
                    pixels[i] = np.rint(picture * 255).astype(np.uint8)
            again = [i for i in lacking if i not in pixels]
            if not again:
                break
        for i in again:
            why = "refused by the safety checker" if rows[i]["unsafe_draws"] else "blank"
            reason = f"{why} in {self.draws} draws"
            rows[i] |= {"made": False, "kept": False, "reason": reason}
        return [(rows[i], pixels.get(i)) for i in lacking]

    def _check_finite(self, values: Float[np.ndarray, "b h w 3"]) -> None:
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"the model {self.facts['model']!r} made images that are not finite in "
                f"{self.facts['dtype']}; use bfloat16 or float32"
            )


def _write(folder: Path, row: dict[str, Any], pixels: UInt8[np.ndarray, "h w 3"] | None) -> None:
    if pixels is not None:
        write_image(pixels, folder / row["path"], row)


def batches(requests: Sequence[ImageRequest], size: int) -> list[list[int]]:
    """Return places of requests that are made at once: those of one guidance and strength."""
    alike: dict[tuple[float, float], list[int]] = defaultdict(list)
    for i, request in enumerate(requests):
        alike[request.guidance_scale, request.strength].append(i)
    return [group[k : k + size] for group in alike.values() for k in range(0, len(group), size)]


def _ignore(*_: object) -> None:
    """Tell nobody."""
