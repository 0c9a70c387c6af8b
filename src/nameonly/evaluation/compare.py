"""Two runs side by side: which labels changed, and what was set differently. No truth is needed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nameonly.evaluation.evaluate import LABELS, LabelTable, read_label_table
from nameonly.structured_files import read_structured
from nameonly.types import class_key

RUN = "run.json"
PARTS = ("settings", "recipe", "backbone")
EXAMPLES = 5


@dataclass(frozen=True)
class LabelChange:
    """Images that went from one label to another; None = abstained.

    Attributes:
        before: Label in the first run.
        after: Label in the second.
        n: Number of images.
        examples: A few of their paths in the first run.
    """

    before: str | None
    after: str | None
    n: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class SettingChange:
    """A setting that differs, by its dotted name; None = not set in that run."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Comparison:
    """What changed from the first run (before) to the second (after).

    Images are compared by content, so that a renamed file is the same image and duplicates count
    once. Labels are compared without case and spacing. A figure without images is None.

    Attributes:
        n_both: Images in both runs; every figure below is about these alone.
        n_only_before: Images in the first run alone.
        n_only_after: Images in the second run alone.
        n_changed: Images whose label changed.
        agreement: Share of images with the same label; abstaining twice is agreement.
        kappa: Cohen's kappa, abstaining being one more class; None where the runs have other
            classes, or each gave all images one and the same label.
        changes: Label changes, the most frequent first.
        settings: What differs in settings, recipe and backbone.
        classes_added: Class names of the second run alone.
        classes_removed: Class names of the first run alone.
        classes_renamed: Pairs of spellings of one class.
        mean_probability_before: Mean top probability in the first run.
        mean_probability_after: Mean top probability in the second run.
    """

    n_both: int
    n_only_before: int
    n_only_after: int
    n_changed: int
    agreement: float | None
    kappa: float | None
    changes: tuple[LabelChange, ...]
    settings: tuple[SettingChange, ...]
    classes_added: tuple[str, ...]
    classes_removed: tuple[str, ...]
    classes_renamed: tuple[tuple[str, str], ...]
    mean_probability_before: float | None
    mean_probability_after: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def compare_runs(run1: Path, run2: Path) -> Comparison:
    """Compare two output folders, each with ``run.json`` and ``labels.parquet``.

    Raises:
        ValueError: If a folder or file is missing or has another structure.
    """
    settings1, settings2 = _settings(run1), _settings(run2)
    table1, table2 = read_label_table(run1 / LABELS), read_label_table(run2 / LABELS)
    rows1, rows2 = _first_rows(table1), _first_rows(table2)
    both = [image_id for image_id in rows1 if image_id in rows2]
    before = np.array([rows1[i] for i in both], dtype=np.int64)
    after = np.array([rows2[i] for i in both], dtype=np.int64)
    keys1, keys2 = _label_keys(table1, before), _label_keys(table2, after)
    n_same = sum(k1 == k2 for k1, k2 in zip(keys1, keys2, strict=True))
    names1 = {class_key(name): name for name in table1.class_names}
    names2 = {class_key(name): name for name in table2.class_names}
    return Comparison(
        n_both=len(both),
        n_only_before=len(rows1) - len(both),
        n_only_after=len(rows2) - len(both),
        n_changed=len(both) - n_same,
        agreement=n_same / len(both) if both else None,
        kappa=_kappa(keys1, keys2) if names1.keys() == names2.keys() else None,
        changes=_changes(table1, before, table2, after),
        settings=tuple(
            SettingChange(name, settings1.get(name), settings2.get(name))
            for name in sorted(settings1.keys() | settings2.keys())
            if not _same(settings1.get(name), settings2.get(name))
        ),
        classes_added=tuple(name for key, name in names2.items() if key not in names1),
        classes_removed=tuple(name for key, name in names1.items() if key not in names2),
        classes_renamed=tuple(
            (name, names2[key]) for key, name in names1.items() if names2.get(key, name) != name
        ),
        mean_probability_before=_mean_confidence(table1, before),
        mean_probability_after=_mean_confidence(table2, after),
    )


def _settings(folder: Path) -> dict[str, Any]:
    """Return what a run was told to do, by dotted names."""
    path = folder / RUN
    if not path.is_file():
        raise ValueError(f"{folder} is no output folder of a run: there is no {RUN} in it")
    run = read_structured(path)
    if not isinstance(run, dict):
        raise ValueError(f"{path} should hold an object, got a {type(run).__name__}")
    return _flat({part: run[part] for part in PARTS if part in run})


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _same(value1: Any, value2: Any) -> bool:
    if isinstance(value1, bool) or isinstance(value2, bool):
        return value1 is value2
    return bool(value1 == value2)


def _first_rows(table: LabelTable) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, image_id in enumerate(table.ids):
        rows.setdefault(image_id, row)
    return rows


def _label_keys(table: LabelTable, rows: np.ndarray) -> list[str]:
    """Return comparable labels; abstaining is the empty key, which no class has."""
    keys = [*(class_key(name) for name in table.class_names), ""]
    return [keys[label] for label in table.labels[rows]]


def _kappa(keys1: list[str], keys2: list[str]) -> float | None:
    """Return Cohen's kappa in memory of n; scikit-learn's takes that of c x c."""
    n = len(keys1)
    counts1, counts2 = Counter(keys1), Counter(keys2)
    by_chance = sum(count * counts2[key] for key, count in counts1.items())
    if by_chance == n * n:  # no image, or one and the same label for all: 0 / 0
        return None
    n_same = sum(k1 == k2 for k1, k2 in zip(keys1, keys2, strict=True))
    return (n * n_same - by_chance) / (n * n - by_chance)


def _changes(
    table1: LabelTable, before: np.ndarray, table2: LabelTable, after: np.ndarray
) -> tuple[LabelChange, ...]:
    counts: Counter[tuple[int, int]] = Counter()
    examples: dict[tuple[int, int], list[str]] = {}
    keys1, keys2 = _label_keys(table1, before), _label_keys(table2, after)
    for row1, row2, key1, key2 in zip(before, after, keys1, keys2, strict=True):
        if key1 == key2:
            continue
        change = (int(table1.labels[row1]), int(table2.labels[row2]))
        counts[change] += 1
        if counts[change] <= EXAMPLES:
            examples.setdefault(change, []).append(table1.paths[row1])
    names1, names2 = [*table1.class_names, None], [*table2.class_names, None]
    return tuple(
        LabelChange(names1[change[0]], names2[change[1]], n, tuple(examples[change]))
        for change, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _mean_confidence(table: LabelTable, rows: np.ndarray) -> float | None:
    if table.confidence is None or not len(rows):
        return None
    return float(table.confidence[rows].mean())
