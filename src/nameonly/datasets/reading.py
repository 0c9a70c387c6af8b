"""A data set's folder to images, labels and class names; what is wrong is said before long work."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from nameonly.datasets.descriptions import Description, describe, names
from nameonly.datasets.layouts import Folder, Listing, Row, file_names
from nameonly.images import hash_rows
from nameonly.sources.locations import FileLocation
from nameonly.types import ImageSet, LabelSpace

__all__ = ["Dataset", "Description", "Split", "describe", "names", "open_dataset"]

SHOWN = 5
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Split:
    """Images and, apart from them, their true classes.

    Attributes:
        images: What adaptation may see.
        y_true: Class of every image, for evaluation alone.
    """

    images: ImageSet
    y_true: Int[np.ndarray, " n"]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.y_true):
            raise ValueError(f"{len(self.y_true)} labels for {len(self.images)} images")


@dataclass(frozen=True)
class Dataset:
    """An opened data set. The images of a split are read and hashed when it is first asked for.

    Attributes:
        description: What it is.
        label_space: Its classes in column order, and the templates that were chosen.
        listing: Its images, not read yet.
        columns: Class key -> column.
        on_progress: Called with the images read so far and the images in all.
    """

    description: Description
    label_space: LabelSpace
    listing: Listing
    columns: dict[str, int]
    on_progress: OnProgress | None = None

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self.description.name

    @property
    def licence(self) -> str:
        """Its licence, as its makers state it."""
        return self.description.licence

    @property
    def home(self) -> str:
        """The page where a user gets it."""
        return self.description.home

    @property
    def templates(self) -> dict[str, tuple[str, ...]]:
        """Its sets of templates by name: ``protocol`` and ``customary``."""
        return self.description.templates

    @cached_property
    def train(self) -> Split:
        """The images to adapt on; none where the data set is a test set alone.

        Raises:
            ValueError: If an image cannot be read.
        """
        return self._open(self.listing.train)

    @cached_property
    def test(self) -> Split:
        """The images to score.

        Raises:
            ValueError: If an image cannot be read.
        """
        return self._open(self.listing.test)

    def _open(self, rows: Sequence[Row]) -> Split:
        y_true = np.array([self.columns[row.key] for row in rows], dtype=np.int64)
        if not rows:
            return Split(ImageSet((), (), ()), y_true)
        images, bad = hash_rows([(row.source, row.location) for row in rows], self.on_progress)
        if bad:
            listed = _shown(f"{row.source} ({row.reason})" for row in bad)
            raise ValueError(
                f"{self.name}: {_count(len(bad), 'image')} cannot be read: {listed}; "
                "unpack the archive again"
            )
        return Split(images, y_true)


def open_dataset(
    name: str | Description,
    root: str | Path | None = None,
    *,
    templates: str = "protocol",
    check_counts: bool = True,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """List a data set in a folder that the user has got, and check it; no image is read yet.

    Args:
        name: One of ``names()``, or a description.
        root: The folder; for data sets that come with the package None.
        templates: Which of the data set's templates go into the label space: those of the shared
            ``protocol`` or the ``customary`` ones.
        check_counts: Whether the numbers of classes and images must be the published ones.
        on_progress: Called while a split is read, with the images so far and the images in all.

    Raises:
        ValueError: If there is no such data set, or the folder is not what its makers publish: one
            message says what is wrong, what is expected, and where to get it.
    """
    description = describe(name) if isinstance(name, str) else name
    if templates not in description.templates:
        raise ValueError(f"templates is protocol or customary, got {templates!r}")
    folder = _folder(description, root)
    try:
        missing = description.layout.missing(folder)
        if not description.layout.brings_names:
            missing += description.classes.missing(folder)
        if missing:
            of_all = f"{len(missing)} of {len(description.files)} files and folders"
            raise ValueError(f"{of_all} are not there: {_shown(missing)}")
        listing = description.layout.read(folder)
        keys = listing.names or description.classes.resolve(
            folder, {row.key for row in (*listing.train, *listing.test)}
        )
        # A table may call a class by its name where other versions of the data set number it.
        columns = {text: i for texts in (keys.values(), keys) for i, text in enumerate(texts)}
        space = LabelSpace(tuple(keys.values()), templates=description.templates[templates])
        problems = _misfits(listing, columns, may_overlap=description.layout.leak)
        if check_counts:
            problems += _miscounts(description, listing, columns, space)
        if problems:
            raise ValueError("; ".join(problems))
    except ValueError as error:
        raise ValueError(_explained(description, folder, str(error))) from error
    return Dataset(description, space, listing, columns, on_progress)


def _folder(description: Description, root: str | Path | None) -> Folder:
    """Return the folder, with the archive's own top folder in it as base."""
    if description.layout.bundled:
        return Folder(Path(), Path())
    if root is None:
        raise ValueError(f"{description.name} needs its folder; {_expected(description)}")
    path = Path(root).expanduser().absolute()
    if not path.is_dir():
        found = "is no folder" if path.exists() else "does not exist"
        raise ValueError(f"{description.name}: {path} {found}; {_expected(description)}")
    base = next((path / name for name in description.inside if (path / name).is_dir()), path)
    return Folder(path, base)


def _misfits(listing: Listing, columns: dict[str, int], *, may_overlap: bool) -> list[str]:
    """Say which images are not there, stand twice, stand in both splits or have no known class."""
    problems = []
    unknown = Counter(r.key for rows in listing[:2] for r in rows if r.key not in columns)
    if unknown:
        listed = _shown(f"{key!r} ({_count(n, 'image')})" for key, n in unknown.items())
        problems.append(f"{_count(len(unknown), 'class')} that the data set has not: {listed}")
    gone = _not_there([row for rows in listing[:2] for row in rows])
    if gone:
        problems.append(f"{_count(len(gone), 'image')} not there: {_shown(gone)}")
    for side, rows in zip(("training", "test"), listing[:2], strict=True):
        twice = [name for name, n in Counter(row.source for row in rows).items() if n > 1]
        if twice:
            problems.append(f"{_count(len(twice), f'{side} image')} listed twice: {_shown(twice)}")
    both = {row.source for row in listing.train}.intersection(row.source for row in listing.test)
    if both and not may_overlap:
        problems.append(f"{_count(len(both), 'image')} in both splits: {_shown(sorted(both))}")
    return problems


def _not_there(rows: Iterable[Row]) -> list[str]:
    """Return the sources of files that do not exist; a folder is listed once, for speed."""
    present: dict[str, set[str]] = {}
    gone = []
    for row in rows:
        if isinstance(row.location, FileLocation):
            parent, _, file = row.location.path.rpartition("/")
            if parent not in present:
                present[parent] = file_names(Path(parent)) if Path(parent).is_dir() else set()
            if file not in present[parent]:
                gone.append(row.source)
    return gone


def _miscounts(
    description: Description, listing: Listing, columns: dict[str, int], space: LabelSpace
) -> list[str]:
    """Say which numbers are not the published ones, and which classes have no image."""
    counts = (
        ("class", len(space), description.n_classes),
        ("training image", len(listing.train), description.n_train),
        ("test image", len(listing.test), description.n_test),
    )
    problems = [
        f"{_count(found, what)} found, {expected:,} expected"
        for what, found, expected in counts
        if found != expected
    ]
    used = {columns.get(row.key) for rows in listing[:2] for row in rows}
    empty = [name for column, name in enumerate(space.class_names) if column not in used]
    if empty:
        problems.append(f"{_count(len(empty), 'class')} without images: {_shown(empty)}")
    return problems


def _explained(description: Description, folder: Folder, problem: str) -> str:
    return f"{description.name} in {folder.base}: {problem}; {_expected(description)}"


def _expected(description: Description) -> str:
    """Return what the folder should hold and where to get it."""
    place = f" (in {' or '.join(description.inside)}, or at the top)" if description.inside else ""
    return (
        f"expected {', '.join(description.files)}{place}, with {description.n_classes:,} classes, "
        f"{description.n_train:,} training and {description.n_test:,} test images; nothing is "
        f"downloaded, get it from {description.home} and unpack it"
    )


def _count(n: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{n:,} {what if n == 1 else plural}"


def _shown(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
