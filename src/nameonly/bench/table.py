"""Rows to a page: mean and spread, paired differences against zero-shot, published figures."""

import statistics
import tomllib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nameonly.bench.rows import Row, score_of

TUNED = "‡"
Column = tuple[str, Callable[[list[Row]], str]]
FIGURES = (
    ("mean class", "mean_class_accuracy"),
    ("seen", "seen_accuracy"),
    ("unseen", "unseen_accuracy"),
    ("pool", "pool_accuracy"),
    ("label precision", "pseudo_label_precision"),
    ("coverage", "pseudo_label_coverage"),
)
EXPLAINED = (
    "- Percent, mean ± standard deviation over runs: accuracy, in TRZSL the harmonic mean of the "
    "accuracies over seen and unseen classes.",
    "- *over zero-shot*: a run's figure less that of the class texts alone on the same images, in "
    "points; *above*: in how many runs it is above zero.",
    "- *pool*: accuracy on the images adapted on; *label precision*, *coverage*: of the last "
    "pseudo-labels. All three leave out images with a given label.",
    "- *fit*, *peak* (memory of the whole process while it fitted): medians.",
    "- A method sees no label but the given ones and has one fixed setting for all data where not "
    "marked. Nothing is selected by test images.",
)


def spread(values: Sequence[float], *, signed: bool = False) -> str:
    """Return mean and standard deviation in percent; one value stands alone, none is a dash."""
    if not values:
        return "-"
    percent = [100 * value for value in values]
    mean = statistics.mean(percent)
    shown = f"{mean:+.1f}" if signed else f"{mean:.1f}"
    return shown if len(percent) == 1 else f"{shown} ± {statistics.stdev(percent):.1f}"


def scores(rows: Iterable[Row], prefix: str = "") -> list[float]:
    """Return the main figures of runs, or with ``"zero_shot_"`` those of the class texts alone."""
    found = (score_of(row, prefix) for row in rows)
    return [score for score in found if score is not None]


def differences(rows: Iterable[Row]) -> list[float]:
    """Return every run's main figure less that of zero-shot on the same images."""
    pairs = ((score_of(row), score_of(row, "zero_shot_")) for row in rows)
    return [ours - base for ours, base in pairs if ours is not None and base is not None]


@cache
def papers() -> list[dict[str, Any]]:
    """Return the published figures, by paper."""
    path = Path(__file__).with_name("published.toml")
    found: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["paper"]
    return found


def published(row: Row) -> list[tuple[int, float]]:
    """Return what papers report for a run's recipe, learner, data set, setting and whole pool.

    Returns:
        The paper's place among ``papers()`` and its figure, in percent.
    """
    if row["pool"] != "whole":
        return []
    return [
        (place, figures[row["setting"]])
        for place, paper in enumerate(papers())
        for figures in paper["figures"]
        if figures["recipe"] == row["recipe"]
        and figures.get("learner", row["learner"]) == row["learner"]
        and row["data"] in figures["data"]
        and row["setting"] in figures
    ]


def page(title: str, rows: Sequence[Row], facts: Sequence[str]) -> str:
    """Return the tables of runs as Markdown, one for each data set, setting and pool.

    Args:
        title: Heading.
        rows: Runs, in the order of the tables.
        facts: Lines on what they are and how they were made.
    """
    good = [row for row in rows if row["error"] is None]
    lines = [f"# {title}", "", *facts, "", *EXPLAINED, ""]
    for (data,), of_data in _grouped(good, "data"):
        groups = [group for _, group in _grouped(of_data, "setting", "pool")]
        lines += [f"## {data}", ""]
        if len(groups) > 1:
            lines += [*_overview(groups), ""]
        for group in groups:
            lines += [*_section(group), ""]
    notes = _footnotes(good)
    if notes:
        lines += [*notes, ""]
    failed = [row for row in rows if row["error"] is not None]
    if failed:
        lines += ["## Failed runs", "", *_failures(failed)]
    return "\n".join(lines).rstrip() + "\n"


def _grouped(rows: Iterable[Row], *names: str) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Return rows that are equal in some columns together, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(groups.items())


def _heading(row: Row) -> str:
    pool = "whole pool" if row["pool"] == "whole" else row["pool"]
    return f"{row['setting']}, {pool}"


def _overview(groups: Sequence[list[Row]]) -> list[str]:
    """Return the main figures of all settings and pools of a data set side by side."""
    heads = ["method", *(_heading(group[0]) for group in groups)]
    lines = [_line(heads), _line(["---", *["---:"] * len(groups)])]
    of_group = [{label: found for (label,), found in _grouped(g, "method")} for g in groups]
    for label in dict.fromkeys(label for found in of_group for label in found):
        cells = [spread(scores(found.get(label, []))) for found in of_group]
        lines.append(_line([_marked(next(f[label] for f in of_group if label in f)), *cells]))
    return lines


def _marked(rows: list[Row]) -> str:
    """Return a method's label, with a mark where its settings were chosen with labels."""
    label: str = rows[0]["method"]
    return f"{label} {TUNED}" if rows[0]["tuned_with_labels"] else label


def _section(rows: list[Row]) -> list[str]:
    """Return the table of one data set, setting and pool: a line for every method."""
    columns = _columns(rows)
    heads = ["method", "runs", *(heading for heading, _ in columns)]
    rule = ["---", *["---:"] * (len(heads) - 1)]
    lines = [f"### {_heading(rows[0])}", "", _sizes(rows), "", _line(heads), _line(rule)]
    methods = _grouped(rows, "method")
    if all(row["recipe"] != "zero_shot" for row in rows):
        most = max((found for _, found in methods), key=len)
        base = {heads[2]: spread(scores(most, "zero_shot_"))}
        base["pool"] = spread(_known(most, "zero_shot_pool_accuracy"))
        cells = [base.get(heading, "-") for heading, _ in columns]
        lines.append(_line(["zero-shot", str(len(most)), *cells]))
    for _, found in methods:
        cells = [cell(found) for _, cell in columns]
        lines.append(_line([_marked(found), str(len(found)), *cells]))
    return lines


def _columns(rows: list[Row]) -> list[Column]:
    main = "harmonic mean" if rows[0]["setting"] == "TRZSL" else "accuracy"
    columns: list[Column] = [
        (main, lambda found: spread(scores(found))),
        ("over zero-shot", _gain),
        ("above", _above),
    ]
    for heading, name in FIGURES:
        # on a batch the images adapted on are those scored
        repeated = name.endswith("pool_accuracy") and rows[0]["draw"] is not None
        if _known(rows, name) and not repeated:
            columns.append((heading, _spread_of(name)))
    columns.append(("fit, s", lambda found: _median(found, "fit_seconds", 1)))
    columns.append(("peak, MB", lambda found: _median(found, "peak_memory_mb", 0)))
    if any(published(row) for row in rows):
        columns.append(("published, not ours", _published))
    return columns


def _gain(rows: list[Row]) -> str:
    if rows[0]["recipe"] == "zero_shot":
        return "-"
    return spread(differences(rows), signed=True)


def _above(rows: list[Row]) -> str:
    if rows[0]["recipe"] == "zero_shot":
        return "-"
    found = differences(rows)
    return f"{sum(difference > 0 for difference in found)} of {len(found)}"


def _spread_of(name: str) -> Callable[[list[Row]], str]:
    return lambda rows: spread(_known(rows, name))


def _median(rows: list[Row], name: str, digits: int) -> str:
    found = _known(rows, name)
    return f"{statistics.median(found):,.{digits}f}" if found else "-"


def _known(rows: Iterable[Row], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _published(rows: list[Row]) -> str:
    return ", ".join(f"{figure:.1f} [{place + 1}]" for place, figure in published(rows[0])) or "-"


def _sizes(rows: list[Row]) -> str:
    """Say how many images and given labels the runs had."""

    def counted(name: str, words: str) -> str:
        values = {row[name] for row in rows}
        low, high = min(values), max(values)
        return f"{low:,} {words}" if low == high else f"{low:,} to {high:,} {words}"

    if rows[0]["draw"] is not None:
        return f"{counted('n_pool', 'images in a batch, adapted on and scored.')}"
    parts = [counted("n_pool", "images to adapt on"), counted("n_given", "with a given label")]
    parts.append(counted("n_test", "to score"))
    if any(row["n_test_in_pool"] for row in rows):
        parts.append(counted("n_test_in_pool", "of these adapted on too"))
    return f"{', '.join(parts)}."


def _footnotes(rows: Sequence[Row]) -> list[str]:
    notes = []
    if any(row["tuned_with_labels"] for row in rows):
        notes.append(
            f"{TUNED} settings chosen for each data set with labels, by the paper: not label-free."
        )
    for place in sorted({place for row in rows for place, _ in published(row)}):
        paper = papers()[place]
        notes.append(
            f"[{place + 1}] published, other backbone and data handling, not measured here: "
            f"{paper['source']}; {paper['backbone']}; {paper['note']}."
        )
    return [line for note in notes for line in (note, "")][:-1]


def _failures(rows: Sequence[Row]) -> list[str]:
    lines = [_line(["method", "data", "setting", "pool", "runs", "reason"]), _line(["---"] * 6)]
    for names, found in _grouped(rows, "method", "data", "setting", "pool", "error"):
        cells = [*names[:4], str(len(found)), names[4]]
        lines.append(_line(cells))
    return lines


def _line(cells: Sequence[str]) -> str:
    plain = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(plain)} |"
