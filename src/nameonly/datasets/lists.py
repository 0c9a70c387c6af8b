"""Layouts whose images, classes and splits stand in text or JSON files."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from nameonly.datasets.layouts import Folder, Layout, Listing, Row, all_rows
from nameonly.structured_files import read_structured, shown

CAMEL = re.compile("[A-Z][^A-Z]*")


@dataclass(frozen=True, kw_only=True)
class Lists(Layout):
    """Text files with a line for each image.

    Attributes:
        train: Files of the training split.
        test: Files of the test split.
        pattern: Regular expression of a whole line; its group ``key`` is the class.
        image: Path of the image, with the pattern's groups in braces. ``{key_}`` is a CamelCase
            key with its words joined by underscores.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    pattern: str
    image: str

    def files(self) -> tuple[str, ...]:
        """Return the folder of the images and the lists."""
        return (f"{self.image.split('{')[0]}<image>", *self.train, *self.test)

    def read(self, folder: Folder) -> Listing:
        """List the images that the text files name."""
        return Listing(self._rows(folder, self.train), self._rows(folder, self.test))

    def _rows(self, folder: Folder, files: Sequence[str]) -> list[Row]:
        rows = []
        for name in files:
            for place, line in folder.lines(name):
                match = re.fullmatch(self.pattern, line)
                if match is None:
                    raise ValueError(f"{place}: {shown(line)} is not of the form {self.pattern}")
                key = match["key"]
                path = self.image.format(key_="_".join(CAMEL.findall(key)), **match.groupdict())
                rows.append(_named_row(folder, place, path, key))
        return rows


@dataclass(frozen=True, kw_only=True)
class NumberedLists(Layout):
    """Text files that say of an image's number its path, its class and its split (CUB-200-2011).

    Attributes:
        images: Folder of the images.
        paths: File of lines ``number path``.
        labels: File of lines ``number class``.
        split: File of lines ``number 1`` (training) or ``number 0`` (test).
    """

    images: str
    paths: str
    labels: str
    split: str

    def files(self) -> tuple[str, ...]:
        """Return the folder of the images and the three files."""
        return f"{self.images}/<image>", self.paths, self.labels, self.split

    def read(self, folder: Folder) -> Listing:
        """List the images that the three files number."""
        paths, labels, split = (
            self._column(folder, name) for name in (self.paths, self.labels, self.split)
        )
        if not paths.keys() == labels.keys() == split.keys():
            raise ValueError(
                f"{self.paths}, {self.labels} and {self.split} number {len(paths)}, {len(labels)} "
                f"and {len(split)} images, not the same ones"
            )
        sides: dict[str, list[Row]] = {"1": [], "0": []}
        for number, path in paths.items():
            if split[number] not in sides:
                raise ValueError(f"{self.split}: image {number} is {split[number]!r}, not 0 or 1")
            row = _named_row(folder, self.paths, f"{self.images}/{path}", labels[number])
            sides[split[number]].append(row)
        return Listing(sides["1"], sides["0"])

    def _column(self, folder: Folder, name: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for place, line in folder.lines(name):
            number, _, value = line.partition(" ")
            if not value or number in values:
                raise ValueError(f"{place}: {shown(line)} is not of the form 'number value'")
            values[number] = value
        return values


@dataclass(frozen=True, kw_only=True)
class CoOpSplit(Layout):
    """The JSON split files of CoOp: ``[path, label, class name]`` under train, val and test.

    The validation images are left out, as in the papers that use these splits.

    Attributes:
        split: The JSON file.
        images: Folder that its paths are relative to; empty for the top.
    """

    brings_names: ClassVar[bool] = True

    split: str
    images: str = ""

    def files(self) -> tuple[str, ...]:
        """Return the folder of the images and the split file."""
        return (f"{self.images}/<image>" if self.images else "<image>", self.split)

    def read(self, folder: Folder) -> Listing:
        """List the images and class names of the split file."""
        data = read_structured(folder.file(self.split))
        names: dict[int, str] = {}
        train, test = (self._rows(folder, data, side, names) for side in ("train", "test"))
        return Listing(train, test, {str(i): names[i].replace("_", " ") for i in sorted(names)})

    def _rows(self, folder: Folder, data: Any, side: str, names: dict[int, str]) -> list[Row]:
        items = data.get(side) if isinstance(data, dict) else None
        if not isinstance(items, list):
            raise ValueError(f"{self.split} has no list {side!r} of [path, label, class name]")
        rows = []
        for number, item in enumerate(items, 1):
            place = f"{self.split}, {side} image {number}"
            match item:
                case [str(path), int(label), str(name)]:
                    if names.setdefault(label, name) != name:
                        raise ValueError(
                            f"{place}: class {label} is {name!r} here and {names[label]!r} before"
                        )
                    full = f"{self.images}/{path}" if self.images else path
                    rows.append(_named_row(folder, place, full, str(label)))
                case _:
                    raise ValueError(f"{place}: {shown(item)} is no [path, label, class name]")
        return rows


@dataclass(frozen=True, kw_only=True)
class ElevaterSplit(Layout):
    """The lists that go with ELEVATER's copies: ``archive.zip@class/image``.

    A .json file has them as the ``file_name`` of its ``images``, a text file at the start of its
    lines. The class is the image's folder.

    Attributes:
        train: Files of the training split; without any, every image there is.
        test: Files of the test split.
    """

    train: tuple[str, ...] = ()
    test: tuple[str, ...]

    def files(self) -> tuple[str, ...]:
        """Return the pattern of the images and the lists."""
        return ("<class>/<image>", *self.train, *self.test)

    def read(self, folder: Folder) -> Listing:
        """List the images that the lists name."""
        test = [row for name in self.test for row in self._rows(folder, name)]
        if not self.train:
            return Listing(all_rows(folder.class_folders("")), test)
        return Listing([row for name in self.train for row in self._rows(folder, name)], test)

    def _rows(self, folder: Folder, name: str) -> Iterator[Row]:
        for place, text in self._names(folder, name):
            parts = text.split("@")[-1].split("/")[-2:]
            if len(parts) != 2:
                raise ValueError(f"{place}: {shown(text)} is not of the form archive@class/image")
            yield _named_row(folder, place, "/".join(parts), parts[0])

    def _names(self, folder: Folder, name: str) -> Iterator[tuple[str, str]]:
        if not name.endswith(".json"):
            yield from ((place, line.rsplit(" ", 1)[0]) for place, line in folder.lines(name))
            return
        match read_structured(folder.file(name)):
            case {"images": list(images)}:
                for number, image in enumerate(images, 1):
                    if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
                        raise ValueError(f"{name}, image {number} has no file_name")
                    yield f"{name}, image {number}", image["file_name"]
            case other:
                raise ValueError(f"{name} has no list of images: {shown(json.dumps(other))}")


def _named_row(folder: Folder, place: str, path: str, key: str) -> Row:
    try:
        return folder.row(path, key)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
