"""What a layout is: where images lie, and which of them train and which test. Class folders."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import scandir
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import ClassVar, NamedTuple

from nameonly.sources.locations import FileLocation
from nameonly.sources.paths import IMAGE_SUFFIXES, has_suffix, is_hidden
from nameonly.structured_files import read_text, shown
from nameonly.types import Location


class Row(NamedTuple):
    """An image as its data set lists it.

    Attributes:
        source: Its path below the data set's folder, or a file and a position in it.
        location: How to read its bytes.
        key: The data set's own name or number of its class.
    """

    source: str
    location: Location
    key: str


class Listing(NamedTuple):
    """The images of both splits.

    Attributes:
        train: Images to adapt on; none where the data set is a test set alone.
        test: Images to score.
        names: Class key -> readable name, where the split file itself brings them.
    """

    train: list[Row]
    test: list[Row]
    names: dict[str, str] | None = None


@dataclass(frozen=True)
class Folder:
    """A data set's folder.

    Attributes:
        root: What the user named.
        base: The archive's own top folder in it, or the root itself.
    """

    root: Path
    base: Path

    def find(self, name: str) -> Path | None:
        """Return the file or folder of this name, below the base or else the root."""
        return next((p for p in (self.base / name, self.root / name) if p.exists()), None)

    def file(self, name: str) -> Path:
        """Return the file of this name.

        Raises:
            ValueError: If there is none.
        """
        path = self.find(name)
        if path is None or not path.is_file():
            raise ValueError(f"there is no file {name}")
        return path

    def lines(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield where each line of a text file stands and what it says; empty ones are left out.

        Raises:
            ValueError: If the file is not there, is empty or is not UTF-8.
        """
        for number, line in enumerate(read_text(self.file(name)).splitlines(), 1):
            if line.strip():
                yield f"{name}, line {number}", line.strip()

    def row(self, path: str, key: str) -> Row:
        """Return the image at a path that a file of the data set names.

        Raises:
            ValueError: If the path is absolute or leads out of the folder.
        """
        windows = PureWindowsPath(path)
        inside = ".." not in windows.parts and not windows.drive and not windows.root
        if not inside or "\0" in path:
            raise ValueError(f"the path {shown(path)} leads out of the data set's folder")
        clean = str(PurePosixPath(path))
        return Row(clean, FileLocation(f"{self.base}/{clean}"), key)

    def class_folders(self, name: str, ignored: Sequence[str] = ()) -> dict[str, list[Row]]:
        """Return the images in every class folder, all in order of their names.

        Raises:
            ValueError: If there is no such folder, or it holds no folder with images.
        """
        parent = self.base / name
        if not parent.is_dir():
            raise ValueError(f"there is no folder {name or parent}")
        classes: dict[str, list[Row]] = {}
        for key in sorted(p.name for p in parent.iterdir() if p.is_dir()):
            if is_hidden(key) or key in ignored:
                continue
            place = f"{name}/{key}" if name else key
            files = [f for f in file_names(parent / key) if has_suffix(f, IMAGE_SUFFIXES)]
            paths = [f"{place}/{file}" for file in sorted(files) if not is_hidden(file)]
            if paths:
                classes[key] = [Row(p, FileLocation(f"{self.base}/{p}"), key) for p in paths]
        if not classes:
            raise ValueError(f"{name or parent} holds no folder with images; one a class is needed")
        return classes


def file_names(folder: Path) -> set[str]:
    """Return the names of everything in a folder, fast enough for a million images."""
    with scandir(folder) as listing:
        return {entry.name for entry in listing}


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """One way to lay out a data set.

    Attributes:
        leak: True where test images stand among the training images on purpose.
        brings_names: Whether the split file itself names the classes.
        bundled: Whether the images come with the package, so that no folder is needed.
    """

    brings_names: ClassVar[bool] = False
    bundled: ClassVar[bool] = False

    leak: bool = False

    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """Return what must be there, as a reader is told: ``images/<image>``, ``train.txt``."""

    @abstractmethod
    def read(self, folder: Folder) -> Listing:
        """List the images without opening them.

        Raises:
            ValueError: If a file is broken or is not of the expected form.
        """

    def missing(self, folder: Folder) -> list[str]:
        """Return which of ``files`` are not there."""
        return [name for name in self.files() if folder.find(name.split("<")[0]) is None]


@dataclass(frozen=True, kw_only=True)
class ClassFolders(Layout):
    """A folder for each class, below one folder for each split.

    Attributes:
        train: Folder of the training split; None where there is none.
        test: Folder of the test split; empty where the class folders lie at the top.
    """

    train: str | None = None
    test: str

    def files(self) -> tuple[str, ...]:
        """Return the pattern of each split."""
        splits = [split for split in (self.train, self.test) if split is not None]
        return tuple(f"{split}/<class>/<image>" if split else "<class>/<image>" for split in splits)

    def read(self, folder: Folder) -> Listing:
        """List the class folders of both splits."""
        train = {} if self.train is None else folder.class_folders(self.train)
        return Listing(all_rows(train), all_rows(folder.class_folders(self.test)))


@dataclass(frozen=True, kw_only=True)
class DrawnSplit(Layout):
    """A folder for each class and no official split: one is drawn, the same on every machine.

    Within a class the images are ordered by the SHA-256 of ``class/file name``; the first ones are
    the side whose number is given, the others the other side. With ``leak`` the training side is
    every image.

    Attributes:
        images: Folder of the class folders; empty for the top.
        train_per_class: Training images of each class, or 0.
        test_per_class: Test images of each class, or 0.
        ignored: Folders that are no class.
    """

    images: str = ""
    train_per_class: int = 0
    test_per_class: int = 0
    ignored: tuple[str, ...] = ()

    def files(self) -> tuple[str, ...]:
        """Return the pattern of the images."""
        return (f"{self.images}/<class>/<image>" if self.images else "<class>/<image>",)

    def read(self, folder: Folder) -> Listing:
        """List the class folders and draw the split."""
        classes = folder.class_folders(self.images, self.ignored)
        drawn = self.train_per_class or self.test_per_class
        first: set[str] = set()
        for key, rows in classes.items():
            if len(rows) <= drawn:
                raise ValueError(
                    f"class folder {key} holds {len(rows)} images; the split needs over {drawn}"
                )
            first.update(row.source for row in sorted(rows, key=_draw_order)[:drawn])
        rows = all_rows(classes)
        head = [row for row in rows if row.source in first]
        tail = [row for row in rows if row.source not in first]
        train, test = (head, tail) if self.train_per_class else (tail, head)
        return Listing(rows if self.leak else train, test)


def _draw_order(row: Row) -> str:
    name = "/".join(PurePosixPath(row.source).parts[-2:])
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def all_rows(classes: dict[str, list[Row]]) -> list[Row]:
    """Return the images of all class folders, one after the other."""
    return [row for rows in classes.values() for row in rows]
