"""Runs a plan: what is there already is left, every finished run is kept at once."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nameonly.bench.data import BenchData, open_data
from nameonly.bench.folder import PLAN, TABLE, RunFolder
from nameonly.bench.measuring import Context, encode, measure
from nameonly.bench.plan import read_plan
from nameonly.bench.rows import COLUMNS, Row, row_of, score_of, versions, write_results
from nameonly.bench.runs import Run, all_runs, run_facts, run_key
from nameonly.bench.table import page
from nameonly.classifier import open_backbone
from nameonly.journal import Journal, OnProgress, OnStage
from nameonly.methods import offer
from nameonly.store import default_cache
from nameonly.structured_files import read_text


@dataclass(frozen=True)
class Entry:
    """A run of the plan and what is known of it.

    Attributes:
        run: The run.
        key: Name of its file.
        facts: What decides its outcome.
        wanted: Whether it is one of a method that was asked for.
        row: What it gave; None where it is still to be made.
    """

    run: Run
    key: str
    facts: dict[str, Any]
    wanted: bool
    row: Row | None

    @property
    def done(self) -> bool:
        """Whether it was made, without an error."""
        return self.row is not None and self.row["error"] is None


@dataclass(frozen=True)
class Found:
    """What a benchmark's folder holds of a plan.

    Attributes:
        out: The folder.
        entries: The runs of the plan, in its order.
        n_before: How many were there before.
        n_others: Finished runs in the folder that are none of the plan's.
        plan_changed: Whether another plan was run here last.
    """

    out: Path
    entries: tuple[Entry, ...]
    n_before: int
    n_others: int
    plan_changed: bool

    @property
    def rows(self) -> list[Row]:
        """The rows that are there."""
        return [entry.row for entry in self.entries if entry.row is not None]

    @property
    def failed(self) -> list[Row]:
        """The rows of runs that were asked for and failed."""
        rows = (entry.row for entry in self.entries if entry.wanted and entry.row is not None)
        return [row for row in rows if row["error"] is not None]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "out": str(self.out),
            "runs": len(self.entries),
            "there_before": self.n_before,
            "failed": len(self.failed),
            "missing": len(self.entries) - len(self.rows),
            "of_other_plans": self.n_others,
            "plan_changed": self.plan_changed,
            "rows": [
                {"title": entry.run.title, "key": entry.key, **(entry.row or {})}
                for entry in self.entries
            ],
        }


class Bench:
    """A plan, checked and ready to be run in a folder.

    Attributes:
        context: The plan, its backbone and the folder of the feature stores.
        folder: Where results go.
    """

    def __init__(
        self,
        path: Path,
        out: Path,
        *,
        only: Sequence[str] = (),
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Read a plan, list its data sets and load its backbone; nothing is written.

        Args:
            path: The plan.
            out: Folder of its results.
            only: Labels of methods; all where none is named.
            threads: Of torch, in place of the plan's.
            cache: Folder of the feature stores.

        Raises:
            ValueError: If the plan, a data set's folder or the output folder is not right.
        """
        plan = read_plan(path)
        self.folder = RunFolder(out)
        self._text = read_text(path)
        labels = list(dict.fromkeys(method.label for method in plan.methods))
        for label in only:
            if label not in labels:
                raise ValueError(f"{path} has no method {label!r}; {offer(label, labels)}")
        self._only = set(only or labels)
        self._threads = threads or plan.threads
        runs = all_runs(plan)
        self._data = {data: open_data(data, plan.templates) for data in plan.data}
        loading = {"device": plan.device, "dtype": plan.dtype, "batch_size": plan.batch_size}
        backbone = open_backbone(plan.backbone, **loading)
        self.context = Context(plan, backbone, cache or default_cache())
        key = {"images": dict(backbone.image_key), "texts": dict(backbone.text_key)}
        _ = backbone.dim  # a model that cannot be had must show before images are read
        self._keyed = [
            (run, run_facts(run, plan, self._data[run.data].fingerprint, key)) for run in runs
        ]

    def look(self) -> Found:
        """Say which runs are there; nothing is written."""
        there = self.folder.finished()
        entries = tuple(self._entry(run, facts, there) for run, facts in self._keyed)
        n_before = sum(entry.done for entry in entries)
        text = self.folder.plan_text()
        n_others = len(there.keys() - {entry.key for entry in entries})
        return Found(self.folder.path, entries, n_before, n_others, text not in (None, self._text))

    def _entry(self, run: Run, facts: dict[str, Any], there: dict[str, Row]) -> Entry:
        """Return a run and its row, under the names that the plan has now."""
        key = run_key(facts)
        row = there[key] | row_of(run, facts) if key in there else None
        return Entry(run, key, facts, run.method.label in self._only, row)

    def execute(
        self,
        on_line: Callable[[str], None] | None = None,
        on_stage: OnStage | None = None,
        on_progress: OnProgress | None = None,
    ) -> Found:
        """Make the runs that are missing; a run that fails is noted and the next one made.

        Args:
            on_line: Called with a line of text after every run.
            on_stage: Called with the name of every stage that begins.
            on_progress: Called with done and total inside long stages.

        Raises:
            ValueError: If another process runs a benchmark in the folder.
        """
        with self.folder.held(), _threads(self._threads):
            before = self.look()
            self.folder.write(PLAN, self._text)
            journal = Journal(self.folder.path / "log.jsonl", on_stage, on_progress)
            # one that failed is tried again; two methods may be the same under two labels
            todo = list({e.key: e for e in before.entries if e.wanted and not e.done}.values())
            say = on_line or (lambda _: None)
            count = iter(range(1, len(todo) + 1))

            def keep(entry: Entry, row: Row) -> None:
                self.folder.keep(entry.key, entry.facts, row)
                journal.write("run", key=entry.key, title=entry.run.title, error=row["error"])
                say(f"[{next(count)}/{len(todo)}] {entry.run.title}: {_told_of(row)}")

            try:
                for plan, data in self._data.items():
                    entries = [entry for entry in todo if entry.run.data == plan]
                    if entries:
                        self._on_data(data, entries, journal, keep)
            finally:
                found = replace(
                    self.look(), n_before=before.n_before, plan_changed=before.plan_changed
                )
                self._write(found)
        return found

    def _on_data(
        self,
        data: BenchData,
        entries: Sequence[Entry],
        journal: Journal,
        keep: Callable[[Entry, Row], None],
    ) -> None:
        """Encode a data set and make its runs."""
        try:
            values = encode(data, self.context, journal)
        except (ValueError, OSError) as error:
            for entry in entries:
                keep(entry, self._row(entry) | {"error": str(error)})
            return
        for entry in entries:
            row = self._row(entry)
            try:
                with journal.stage("adapt"):
                    row |= measure(entry.run, data, values, self.context, journal)
            except Exception as error:  # whatever a method raises is its result
                row["error"] = f"{type(error).__name__}: {str(error) or 'no message'}"
                journal.write("traceback", key=entry.key, text=traceback.format_exc())
            keep(entry, row)

    def _row(self, entry: Entry) -> Row:
        backbone = self.context.backbone
        made = {
            "backbone": backbone.name,
            "dtype": dict(backbone.text_key)["dtype"],
            "device": str(getattr(backbone, "resolved_device", "none")),
            "threads": torch.get_num_threads(),
            **versions(),
        }
        return dict.fromkeys(COLUMNS) | row_of(entry.run, entry.facts) | made

    def _write(self, found: Found) -> None:
        write_results(self.folder.path, found.rows)
        self.folder.write(TABLE, page(self.context.plan.title, found.rows, self._facts(found)))

    def _facts(self, found: Found) -> list[str]:
        """Return what stands at the head of the table."""
        good = [row for row in found.rows if row["error"] is None]
        told = [f"backbone {self.context.backbone.name}"]
        for name in ("dtype", "device", "threads", "nameonly", "torch", "transformers"):
            values = sorted({str(row[name]) for row in good})
            told.append(f"{name} {' and '.join(values)}")
        facts = [", ".join(told) + "."] if good else []
        if self.context.backbone.note:
            facts += ["", f"Note: {self.context.backbone.note}."]
        if len({row["code"] for row in good}) > 1:
            facts += ["", "**Runs were made by more than one state of the code.**"]
        missing = len(found.entries) - len(found.rows)
        if missing:
            facts += ["", f"**{missing} of {len(found.entries)} runs are not there yet.**"]
        return facts


def _told_of(row: Row) -> str:
    if row["error"] is not None:
        return f"FAILED: {row['error'].splitlines()[0]}"
    score, base = score_of(row), score_of(row, "zero_shot_")
    assert score is not None and base is not None
    return f"{100 * score:.1f} % (zero-shot {100 * base:.1f} %), {row['fit_seconds']:.1f} s"


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Set torch's threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
