"""What the command line shows a person: progress on stderr, results on stdout."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nameonly.cli_options import share
from nameonly.report.wording import candidate_words

if TYPE_CHECKING:
    from nameonly.bench.execute import Found
    from nameonly.doctor import Check
    from nameonly.evaluation.compare import Comparison
    from nameonly.evaluation.evaluate import Evaluation
    from nameonly.jobs import Run
    from nameonly.methods import MethodCard

SECONDS_BEFORE_BAR = 2.0
SHOWN = 20
STAGES = {
    "load": "loading the backbone",
    "ingest": "reading images",
    "encode": "encoding images",
    "text": "encoding class names",
    "adapt": "adapting",
    "measure": "judging the synthetic images",
    "estimate": "trying a few steps",
    "generate": "making images",
    "filter": "comparing with the class names",
    "train": "decoding images, then training by epochs",
    "export": "writing the ONNX file",
    "decide": "deciding",
    "assess": "estimating how good the labels are",
    "encode all": "encoding all images with what was trained",
    "decide all": "labelling all images",
    "assess all": "estimating how good all labels are",
    "write": "writing labels",
    "report": "writing the report",
}


class Console:
    """Prints results; as a context manager it also shows progress where a person is looking."""

    def __init__(self, quiet: bool = False) -> None:
        """Make a console.

        Args:
            quiet: Show no progress.
        """
        self._out = RichConsole(highlight=False, soft_wrap=True, emoji=False)
        self._errors = errors = RichConsole(stderr=True, highlight=False, emoji=False)
        self._quiet = quiet
        self._bar: Progress | None = None
        if not quiet and errors.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=errors,
                transient=True,
            )
        self._task: Any = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Console":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_stage()
        if self._bar is not None:
            self._bar.stop()

    def stage(self, name: str) -> None:
        """Note that a stage begins; its bar comes when it has lasted two seconds."""
        self._end_stage()
        if self._bar is not None:
            self._timer = threading.Timer(SECONDS_BEFORE_BAR, self._show, (name,))
            self._timer.daemon = True
            self._timer.start()

    def _show(self, name: str) -> None:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(STAGES.get(name, name), total=None)

    def _end_stage(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
        self._task = None

    def progress(self, done: int, total: int) -> None:
        """Show how far the stage is."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def line(self, text: str = "") -> None:
        """Print one line as it is."""
        self._out.print(escape(text))

    @property
    def listener(self) -> Callable[[str], None] | None:
        """What takes notes: None where nobody reads them."""
        return None if self._quiet else self.note

    def note(self, text: str) -> None:
        """Print one line on stderr, beside the progress."""
        if not self._quiet:
            self._errors.print(escape(text), soft_wrap=True)

    def table(self, columns: list[str], rows: list[list[str]], numbers: int = 0) -> None:
        """Print rows under headings; the last ``numbers`` columns are set to the right."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for i, name in enumerate(columns):
            right = i >= len(columns) - numbers
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._out.print(table)

    def run(self, run: "Run") -> None:
        """Print what a run gave and where it lies."""
        counts = run.summary["counts"]
        seconds = sum(run.summary["timings"].values())
        self.line(
            f"{counts['labelled']:,} of {counts['sources']:,} images labelled with "
            f"{len(run.summary['classes'])} classes in {seconds:.1f} s"
        )
        for key, words in (
            ("duplicates", "have the same bytes as another"),
            ("abstained", "left without a label"),
            ("changed_by_adaptation", "labelled otherwise than zero-shot"),
            ("quarantined", "could not be read: see quarantine.parquet"),
        ):
            if counts.get(key):
                self.line(f"{counts[key]:,} {words}")
        if counts.get("changed_by_adaptation", 0) > counts["sources"] / 2:
            self.line("adapting changed more than half of the labels: look at the report first")
        if n := counts.get("adapted_on"):
            self.line(f"{n:,} of {counts['images']:,} distinct images, at random, were learnt from")
        if tried := run.summary.get("candidates"):
            (chosen,) = (row for row in tried if row.get("chosen"))
            name = candidate_words(chosen)
            self.line(f"{name} was taken among {len(tried)}: its labels cluster best")
        if made := run.summary.get("synthetic"):
            recognised = share(made["recognised"])
            self.line(
                f"{made['n']:,} synthetic images learnt from, {recognised} of them recognised"
            )
        for words in run.summary["repairs"]:
            self.line(words)
        self.line(f"labels      {run.out}/labels.parquet")
        self.line(f"classifier  {run.out}/classifier")
        self.line(f"report      {run.out}/report.html")
        self._trust(run.summary)

    def _trust(self, summary: dict[str, Any]) -> None:
        """Print what a run estimates of its own labels."""
        given = summary["counts"].get("given")
        used = f"{given:,} labels were given" if given else "no label was used"
        if summary.get("estimated_accuracy") is None:
            self.line(f"{used}: the accuracy is not known")
            return
        low, high = summary["estimated_accuracy_interval"]
        for warning in summary["trust"]["warnings"][:SHOWN]:
            self.line(f"look at: {warning}")
        if n := summary["trust"]["suspected_unknown"]:
            self.line(f"{n:,} may show none of the classes: see the column unknown_score")
        self.line(
            f"{used}: the accuracy is estimated at {share(summary['estimated_accuracy'])} "
            f"({summary['trust']['level']:.0%} interval: {share(low)} to {share(high)}); "
            "`nameonly audit` measures it"
        )

    def dry_run(self, found: dict[str, Any]) -> None:
        """Print what a run would do."""
        self.line(
            f"{found['sources']:,} images ({found['duplicates']:,} duplicates), "
            f"{found['classes']} classes"
        )
        self.line(f"{found['in_store']:,} encoded before, {found['to_encode']:,} to encode")
        self.line(
            f"expect about {found['seconds_expected']:.0f} s and "
            f"{found['bytes_expected'] / 1e6:.1f} MB, the report aside"
        )
        if "drawing" in found:
            self._drawing(found["drawing"])
        bad = found["quarantined"]
        self.line(f"{len(bad)} would be quarantined")
        if bad:
            self.table(["path", "reason"], [[b["path"], b["reason"]] for b in bad[:SHOWN]])
        if len(bad) > SHOWN:
            self.line(f"... and {len(bad) - SHOWN} more")
        self.line("nothing was written")

    def _drawing(self, found: dict[str, Any]) -> None:
        n, seconds = found["synthetic_images"], found["seconds_expected"]
        if seconds is None:
            told = f"{found['model']} is not on this machine, so that the time is not known"
        else:
            adapting = found["seconds_adapting"]
            told = f"about {seconds:.0f} s" + (f", {adapting:.0f} s of it LoRA" if adapting else "")
        self.line(f"before it learns, {n:,} synthetic images would be drawn: {told}")

    def evaluation(self, found: "Evaluation") -> None:
        """Print accuracy, the table of classes and the worst confusions."""
        low, high = found.accuracy_interval
        self.line(
            f"accuracy             {share(found.accuracy)}  (95 %: {share(low)} to {share(high)})"
        )
        self.line(f"mean class accuracy  {share(found.mean_class_accuracy)}")
        self.line(f"zero-shot accuracy   {share(found.zero_shot_accuracy)}")
        self.line(
            f"calibration error    {share(found.expected_calibration_error)} of probability, "
            f"{share(found.confidence_calibration_error)} of confidence"
        )
        if found.coverage < 1:
            self.line(f"labelled             {share(found.coverage)}")
            self.line(f"right when labelled  {share(found.accuracy_when_labelled)}")
        self.line(f"images               {found.n:,}, matched by {found.matched_by}")
        if found.n_without_truth:
            self.line(f"without a truth      {found.n_without_truth:,}")
        if found.read_as_positions:
            self.line("the truth held numbers: they were read as positions in the list of classes")
        self.line()
        rows = [
            [row.class_name, f"{row.n:,}", share(row.recall), share(row.precision)]
            for row in found.per_class
        ]
        self.table(["class", "images", "accuracy", "precision"], rows, numbers=3)
        self._confusions(found)

    def _confusions(self, found: "Evaluation") -> None:
        if found.confusion is None:
            return
        names = found.class_names
        pairs = [
            (n, names[i], names[j])
            for i, row in enumerate(found.confusion)
            for j, n in enumerate(row)
            if i != j and n
        ]
        if pairs:
            self.line()
            worst = sorted(pairs, reverse=True)[:5]
            self.table(
                ["true", "labelled as", "images"], [[t, w, f"{n:,}"] for n, t, w in worst], 1
            )

    def comparison(self, found: "Comparison") -> None:
        """Print what changed between two runs."""
        self.line(
            f"{found.n_both:,} images in both ({found.n_only_before:,} only in the first, "
            f"{found.n_only_after:,} only in the second)"
        )
        self.line(f"{found.n_changed:,} labels changed; agreement {share(found.agreement)}")
        for words, names in (("added", found.classes_added), ("removed", found.classes_removed)):
            if names:
                self.line(f"classes {words}: {', '.join(names)}")
        for before, after in found.classes_renamed:
            self.line(f"class renamed: {before} -> {after}")
        settings = [[c.name, str(c.before), str(c.after)] for c in found.settings]
        if settings:
            self.line()
            self.table(["setting", "first", "second"], settings)
        if found.changes:
            self.line()
            rows = [
                [c.before or "(none)", c.after or "(none)", ", ".join(c.examples[:2]), f"{c.n:,}"]
                for c in found.changes[:SHOWN]
            ]
            self.table(["first", "second", "examples", "images"], rows, numbers=1)

    def methods(self, cards: list["MethodCard"]) -> None:
        """Print methods by stage."""
        for stage in dict.fromkeys(card.stage for card in cards):
            self.line(stage)
            for card in cards:
                if card.stage == stage:
                    self.line(f"  {card.name:<20} {card.title}")
                    self.line(f"  {'':<20} {card.paper}")
                    if card.settings and stage not in ("backbones", "recipes"):
                        told = ", ".join(f"{k}={v}" for k, v in card.settings.items())
                        self.line(f"  {'':<20} settings: {told}")

    def checks(self, found: list["Check"]) -> None:
        """Print checks, and advice where something is wrong."""
        for check in found:
            mark = "FAILED" if check.failed else "ok"
            self.line(f"{mark:<7}{check.name:<24}{check.found}")
            if check.advice and (check.failed or "not " in check.found):
                self.line(f"{'':<31}{check.advice}")

    def demo(self, found: dict[str, Any]) -> None:
        """Print zero-shot against the adapted classifier."""
        self.line(f"{found['n_images']:,} real handwritten digits, ten names, no label:")
        self.line(f"  zero-shot   {share(found['zero_shot_accuracy'])}")
        self.line(f"  {found['recipe']}  {share(found['accuracy'])}")
        low, high = found["estimated_accuracy_interval"]
        self.line(
            f"estimated from the images alone, before the truth was opened: "
            f"{share(found['estimated_accuracy'])} (90 %: {share(low)} to {share(high)})"
        )
        self.line(f"note: {found['backbone_note']}")
        self.line(f"images  {found['images']}")
        self.line(f"labels  {found['labels']}")
        self.line(f"report  {found['report']}")

    def generation(self, found: dict[str, Any]) -> None:
        """Print what a folder of synthetic images holds, or what it would be asked for."""
        if "tricks" in found:
            self.line(f"{found['asked_for']:,} images of {len(found['classes'])} classes")
            for trick, prompts in found["tricks"].items():
                self.line(f"  {trick:<16} {', '.join(prompts)}, ...")
            seconds = found["seconds_expected"]
            if seconds is None:
                self.line("the model is not on this machine, so that the time is not known")
            else:
                self.line(
                    f"expect about {seconds:.0f} s, {found['seconds_adapting']:.0f} s of it LoRA"
                )
            self.line("nothing was written")
            return
        self.line(f"{found['kept']:,} of {found['asked_for']:,} synthetic images kept")
        for reason, n in found["dropped"].items():
            self.line(f"{n:,} dropped: {reason}")
        if n := found["not_asked_for"]:
            self.line(f"{n:,} images of earlier calls stay, not asked for now: kept is false there")
        least = min(found["classes"], key=found["classes"].__getitem__)
        self.line(f"fewest of {least!r}: {found['classes'][least]:,}")
        if found["lora"]:
            self.line(f"adapted     {found['out']}/lora")
        self.line(f"images      {found['out']}/images")
        self.line(f"table       {found['out']}/synthetic.parquet")
        self.line(f"report      {found['out']}/report.html")

    def bench_plan(self, found: "Found") -> None:
        """Print the runs of a plan and which of them are there."""
        groups: dict[str, dict[tuple[str, str, str], list[bool]]] = {}
        for entry in found.entries:
            if entry.wanted:
                run = entry.run
                of_data = groups.setdefault(run.data.title, {})
                names = (run.method.label, run.setting, run.pool)
                of_data.setdefault(names, []).append(entry.done)
        for title, of_data in groups.items():
            self.line(title)
            rows = [[*names, f"{sum(done)}", f"{len(done)}"] for names, done in of_data.items()]
            self.table(["method", "setting", "pool", "there", "runs"], rows, numbers=2)
            self.line()
        self.line(f"{found.n_before:,} of {len(found.entries):,} runs of the plan are there")
        self._others(found)
        self.line("nothing was written")

    def bench(self, found: "Found") -> None:
        """Print what a benchmark has done and where its table lies."""
        new = len(found.rows) - len(found.failed) - found.n_before
        self.line(
            f"{len(found.entries):,} runs: {found.n_before:,} were there, {new:,} made now, "
            f"{len(found.failed):,} failed"
        )
        missing = len(found.entries) - len(found.rows)
        if missing:
            self.line(f"{missing:,} runs are still to be made")
        self._others(found)
        for row in found.failed[:SHOWN]:
            self.line(f"failed: {row['method']} on {row['data']}, {row['setting']}: {row['error']}")
        if len(found.failed) > SHOWN:
            self.line(f"... and {len(found.failed) - SHOWN} more")
        self.line(f"table  {found.out}/table.md")
        self.line(f"rows   {found.out}/results.csv, {found.out}/results.parquet")

    def _others(self, found: "Found") -> None:
        if found.plan_changed:
            self.line("the plan differs from the one that was run here last")
        if found.n_others:
            self.line(f"{found.n_others:,} runs there belong to other plans and are left out")
