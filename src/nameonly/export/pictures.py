"""Images of a run, put where a format wants them: checked, safely named, copied or linked."""

import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from PIL import Image

from nameonly.export.labelled import ExportRow, LabelledRun, find_images
from nameonly.images import BadImageError, Quarantined, content_id, decode
from nameonly.journal import OnProgress
from nameonly.pipeline import ImageSpec
from nameonly.sources.decoding import FORMATS
from nameonly.sources.locations import FileLocation, reason
from nameonly.sources.paths import IMAGE_SUFFIXES, has_suffix
from nameonly.sources.tables import PathCell
from nameonly.synthetic import RESERVED, class_folder
from nameonly.types import ImageSet

SUFFIXES = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
}
ANY = frozenset(SUFFIXES.values())
# torchvision.datasets.folder.IMG_EXTENSIONS lacks GIF; no browser shows TIFF
OF_TORCHVISION = ANY - {".gif"}
OF_BROWSERS = ANY - {".tif"}

_ORIENTATION = 0x0112
_SAFE_CLASS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 _-]{0,58}[A-Za-z0-9_-])?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LIKE_A_DIGEST = re.compile(r"-[0-9a-f]{8,12}$")


def class_folders(class_names: Sequence[str]) -> dict[str, str]:
    """Return a folder name for every class, its own name wherever that is safe.

    Safe are ASCII letters, digits, spaces, ``-`` and ``_``, in a name that no other class has in
    another case and that Windows allows. Another class gets a readable name with a hash.
    """
    same = Counter(name.casefold() for name in class_names)
    return {
        name: name
        if _SAFE_CLASS.fullmatch(name)
        and same[name.casefold()] == 1
        and not RESERVED.fullmatch(name.casefold())
        and not _LIKE_A_DIGEST.search(name)
        else class_folder(name)
        for name in class_names
    }


def file_stems(sources: Sequence[str]) -> dict[str, str]:
    """Return a file name without suffix for every source: safe, and unique in any letter case.

    It is the source's own name where that is safe and there once; else a hash of the source makes
    it unique, so that the names of some sources do not depend on which others are exported.
    """
    plain = {source: _plain_stem(source) for source in sources}
    same = Counter(stem.casefold() for stem in plain.values())
    return {
        source: stem
        if same[stem.casefold()] == 1
        and not RESERVED.fullmatch(stem.casefold().split(".")[0])
        and not _LIKE_A_DIGEST.search(stem)
        else f"{stem}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
        for source, stem in plain.items()
    }


def _plain_stem(source: str) -> str:
    name = PurePosixPath(source.replace("\\", "/").replace("::", "/")).name
    if has_suffix(name, IMAGE_SUFFIXES):
        name = name.rpartition(".")[0]
    return _UNSAFE.sub("-", name)[:80].strip("-.") or "image"


def look(data: bytes) -> tuple[str, int, int]:
    """Return what an image is by its header: the suffix of its kind, width and height upright.

    Raises:
        BadImageError: If it is no image that nameonly reads.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                turned = int(image.getexif().get(_ORIENTATION, 1)) >= 5
                suffix = SUFFIXES[str(image.format)]
    except Exception as error:  # damaged headers make Pillow raise nearly any kind
        raise BadImageError(f"no image that can be read: {error or type(error).__name__}") from None
    return (suffix, height, width) if turned else (suffix, width, height)


@dataclass
class Pictures:
    """The images of a run, found again.

    One that is gone, has changed or cannot be read is skipped and noted, and costs no other.

    Attributes:
        images: What lies there now.
        unreadable: Sources that lie there and cannot be read, with reasons.
        stems: A file name without suffix for every source of the run.
        link: Put links in place of copies.
        total: How many will be read, for the progress.
        on_progress: Called with how many were read, and the total.
        skipped: What could not be put, with reasons.
    """

    images: ImageSet
    unreadable: dict[str, str]
    stems: dict[str, str]
    link: bool = False
    total: int = 0
    on_progress: OnProgress | None = None
    skipped: list[Quarantined] = field(default_factory=list)
    _done: int = 0

    @cached_property
    def _row_of_source(self) -> dict[str, int]:
        return {source: i for i, source in enumerate(self.images.sources)}

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return self.images.first_rows()

    def _find(self, row: ExportRow) -> int | None:
        """Return where a source's bytes lie: under its own name, or under another."""
        own = self._row_of_source.get(row.path)
        if own is not None and self.images.ids[own] == row.id:
            return own
        return self._row_of_id.get(row.id)

    def skip(self, row: ExportRow, why: str) -> None:
        """Note that a source is left out."""
        self.skipped.append(Quarantined(row.path, why))

    def read(self, row: ExportRow) -> bytes | None:
        """Return the bytes that were labelled; None where they are no more, which is noted."""
        self._done += 1
        if self.on_progress is not None:
            self.on_progress(self._done, self.total)
        found = self._find(row)
        if found is None:
            changed = row.path in self._row_of_source
            why = "its bytes have changed since it was labelled" if changed else "not found"
            self.skip(row, self.unreadable.get(row.path, why))
            return None
        try:
            data = self.images.locations[found].read()
        except OSError as error:
            self.skip(row, reason(error))
            return None
        if content_id(data) != row.id:
            self.skip(row, "its bytes have changed since it was labelled")
            return None
        return data

    def put(self, row: ExportRow, folder: Path, shown: frozenset[str] = ANY) -> str | None:
        """Put the image of a source into a folder.

        Args:
            row: The source.
            folder: Made where it is missing.
            shown: Suffixes of the kinds that the tool reads; another kind is put as PNG.

        Returns:
            The file's name; None where there is no such image any more, which is noted.

        Raises:
            OSError: If it cannot be written, which is no fault of the image.
        """
        data = self.read(row)
        return None if data is None else self.place(row, data, folder, shown)

    def place(
        self, row: ExportRow, data: bytes, folder: Path, shown: frozenset[str] = ANY
    ) -> str | None:
        """Put bytes that were read; arguments, answer and errors are those of ``put``."""
        try:
            suffix = look(data)[0]
            if suffix not in shown and not self.link:
                data, suffix = _as_png(data), ".png"
        except BadImageError as error:
            self.skip(row, str(error))
            return None
        if suffix not in shown:
            self.skip(row, f"the tool reads no {suffix}: leave out --link, and it becomes a PNG")
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (self.stems[row.path] + suffix)
        if self.link:
            path.symlink_to(self._file(row))
        else:
            with path.open("xb") as file:
                file.write(data)
        return path.name

    def _file(self, row: ExportRow) -> Path:
        found = self._find(row)
        assert found is not None
        location = self.images.locations[found]
        assert isinstance(location, FileLocation | PathCell)  # open_pictures saw to it
        return Path(location.path).absolute()


def _as_png(data: bytes) -> bytes:
    """Return an image as PNG, its first frame upright, as nameonly saw it."""
    stream = io.BytesIO()
    decode(data).save(stream, "PNG")
    return stream.getvalue()


def open_pictures(
    run: LabelledRun,
    spec: ImageSpec | None = None,
    column: str | None = None,
    link: bool = False,
    on_progress: OnProgress | None = None,
) -> Pictures:
    """Find a run's images again, ready to be put.

    Args:
        run: The whole of it, so that file names do not depend on what is exported.
        spec: Where the images lie now; None for where they lay.
        column: Of a table of images; None for the run's.
        link: Put symbolic links in place of copies.
        on_progress: Called with done and total.

    Raises:
        ValueError: If they are not there, or links are wanted of what are no files.
    """
    images, unreadable = find_images(run, spec, column, on_progress)
    if link:
        for source, location in zip(images.sources, images.locations, strict=True):
            if not isinstance(location, FileLocation | PathCell):
                raise ValueError(
                    f"--link needs images that are files; {source!r} lies inside a shard or a "
                    "table. Leave out --link, and images are copied"
                )
    known = {bad.source: bad.reason for bad in unreadable}
    return Pictures(images, known, file_stems(run.table["path"].to_pylist()), link)
