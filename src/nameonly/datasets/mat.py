"""Data sets whose labels lie in MATLAB files (version 5): Flowers102, Stanford Cars.

Such a file is no pickle. Only the named variable is read, and only numbers, text and cells or
records of them are taken from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from scipy.io import loadmat  # type: ignore[import-untyped]

from nameonly.datasets.layouts import Folder, Layout, Listing, Row


@dataclass(frozen=True, kw_only=True)
class MatNumbers(Layout):
    """Images numbered from 1, with a vector of labels and vectors of numbers for the splits.

    Attributes:
        labels: File whose variable ``labels`` is the class of each image.
        split: File with the splits.
        train: Its variables that make up the training split.
        test: Its variables that make up the test split.
        image: Path of an image, with the number in braces.
    """

    labels: str
    split: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    image: str

    def files(self) -> tuple[str, ...]:
        """Return the folder of the images and both files."""
        return f"{self.image.rsplit('/', 1)[0]}/<image>", self.labels, self.split

    def read(self, folder: Folder) -> Listing:
        """List the numbered images."""
        labels = read_numbers(folder.file(self.labels), "labels")
        split = folder.file(self.split)
        sides: list[list[Row]] = []
        for variables in (self.train, self.test):
            numbers = np.concatenate([read_numbers(split, name) for name in variables])
            if not ((numbers >= 1) & (numbers <= len(labels))).all():
                raise ValueError(
                    f"{self.split} numbers images from {numbers.min()} to {numbers.max()}; "
                    f"{self.labels} has labels for 1 to {len(labels)}"
                )
            sides.append(
                [folder.row(self.image.format(i), str(labels[i - 1])) for i in numbers.tolist()]
            )
        return Listing(sides[0], sides[1])


@dataclass(frozen=True, kw_only=True)
class MatRecords(Layout):
    """A file of records ``fname`` and ``class`` for each split.

    Attributes:
        train: File of the training split.
        test: File of the test split.
        train_images: Folder of its images.
        test_images: Folder of its images.
    """

    train: str
    test: str
    train_images: str
    test_images: str

    def files(self) -> tuple[str, ...]:
        """Return the folders of the images and both files."""
        return f"{self.train_images}/<image>", f"{self.test_images}/<image>", self.train, self.test

    def read(self, folder: Folder) -> Listing:
        """List the images that the records name."""
        return Listing(
            self._rows(folder, self.train, self.train_images),
            self._rows(folder, self.test, self.test_images),
        )

    def _rows(self, folder: Folder, name: str, images: str) -> list[Row]:
        records = read_records(folder.file(name), "annotations", ("fname", "class"))
        return [folder.row(f"{images}/{file}", key) for file, key in records]


def read_numbers(path: Path, variable: str) -> Int[np.ndarray, " n"]:
    """Return a vector of whole numbers.

    Raises:
        ValueError: If the file is no such MATLAB file, or the variable is something else.
    """
    found = _read(path, variable)
    whole = found.dtype.kind in "iuf" and np.isfinite(found).all() and not (found % 1).any()
    if not whole or found.ndim != 1:
        raise ValueError(f"{path.name}: {variable!r} is no vector of whole numbers")
    return found.astype(np.int64)


def read_texts(path: Path, variable: str) -> list[str]:
    """Return a cell array of text.

    Raises:
        ValueError: If the file is no such MATLAB file, or the variable is something else.
    """
    return [_text(item, f"{path.name}: {variable!r}") for item in _read(path, variable)]


def read_records(path: Path, variable: str, fields: Sequence[str]) -> list[tuple[str, ...]]:
    """Return fields of an array of records as text.

    Raises:
        ValueError: If the file is no such MATLAB file, or the variable is something else.
    """
    found = _read(path, variable)
    if not set(fields) <= set(found.dtype.names or ()):
        raise ValueError(f"{path.name}: {variable!r} has no fields {', '.join(fields)}")
    place = f"{path.name}: {variable!r}"
    return [tuple(_text(record[name], place) for name in fields) for record in found]


def _text(item: Any, place: str) -> str:
    value = item.item() if isinstance(item, np.ndarray | np.generic) and item.size == 1 else item
    if not isinstance(value, str | int):
        raise ValueError(f"{place} holds something else than text and whole numbers: {value!r}")
    return str(value)


def _read(path: Path, variable: str) -> Shaped[np.ndarray, " *axes"]:
    try:
        found = loadmat(path, variable_names=[variable], squeeze_me=True)
    except Exception as error:
        # Damaged bytes make the reader raise nearly any kind; version 7.3 is HDF5.
        raise ValueError(f"{path.name} is no whole MATLAB file of version 5: {error}") from error
    if variable not in found:
        raise ValueError(f"{path.name} has no variable {variable!r}")
    values: Shaped[np.ndarray, " *axes"] = np.atleast_1d(found[variable])
    return values
