"""Runs commands in forked children, kills them with SIGKILL at chosen moments and runs them again.

A moment is a share of a stage's time, at which this process kills the child from outside, or a file
operation of a stage (opening to write, renaming, removing, making a folder), at which the child
kills itself. What the stages are and how long they take is told by the journal of an undisturbed
run. Started as a program with a plan: torch's thread pools do not survive a fork, so this process
imports what the children need and computes nothing.
"""

import importlib
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR
FILE_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
IMPORTS = (
    *("pyarrow.dataset", "sklearn.cluster", "typer._adapters", "nameonly.cli", "nameonly.console"),
    *("nameonly.jobs", "nameonly.backbones.clip", "nameonly.recipes.up_adapter"),
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.image_processing_pil_clip",
    "transformers.models.clip.tokenization_clip",
)
# nothing was announced yet
START = "start"
# keys of JSON whose values differ from run to run
MEASURED = re.compile("second|time|memory|threads")
# a stage that is over sooner cannot be hit by the clock with any certainty
LONG_SECONDS = 0.1
# a command is now and then faster than the undisturbed run was
TRIES = 4


@dataclass(frozen=True)
class Scenario:
    """A command and what must be the same however often it was killed.

    Attributes:
        name: Of the command.
        argv: Its arguments; ``{work}`` stands for the folder in which everything lies.
        same: Globs in that folder: files that must have the undisturbed run's bytes.
        whole: A file that says of its folder that it is finished, and a file that is right then.
        kept: Files that must be there with the same bytes right after a kill too.
    """

    name: str
    argv: list[str]
    same: list[str]
    whole: tuple[str, str] | None = None
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moment:
    """When a child is killed: after ``seconds`` of a stage, or at its ``nth`` file operation."""

    stage: str
    seconds: float | None = None
    nth: int = 0


class Watch:
    """Tells the parent of every stage that begins, and counts its file operations."""

    def __init__(self, moment: Moment | None, pipe: int) -> None:
        self.moment, self.pipe = moment, pipe
        self.operations: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.begin(START)

    def begin(self, stage: str) -> None:
        self.seen[stage] = number = self.seen.get(stage, 0) + 1
        self.stage = stage if number == 1 else f"{stage} {number}"
        os.write(self.pipe, f"{self.stage}\t{time.monotonic()}\n".encode())

    def audit(self, event: str, arguments: tuple) -> None:
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if not (writing or event in FILE_EVENTS):
            return
        self.operations[self.stage] = nth = self.operations.get(self.stage, 0) + 1
        if self.moment is not None and (self.stage, nth) == (self.moment.stage, self.moment.nth):
            os.kill(os.getpid(), signal.SIGKILL)

    def stages(self, stage):
        """Wrap ``Journal.stage``."""

        @contextmanager
        def told(journal, name):
            self.begin(name)
            with stage(journal, name):
                yield
            self.begin(f"after {name}")

        return told


def work(argv: list[str], moment: Moment | None, pipe: int, log: Path) -> int:
    """Be the child: run a command as a user would."""
    from nameonly import cli, encoding, journal

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1), os.dup2(output, 2)
    encoding.ROWS_PER_SHARD = 16  # so that there are several to lose
    watch = Watch(moment, pipe)
    journal.Journal.stage = watch.stages(journal.Journal.stage)
    sys.addaudithook(watch.audit)
    sys.argv = ["nameonly", *argv]
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
        code = 1
    os.write(pipe, f"\t{json.dumps(watch.operations)}\n".encode())
    sys.stdout.flush()
    return code


@dataclass(frozen=True)
class Ran:
    """How a child ended: exit code (negative: a signal), begins of stages, file operations."""

    code: int
    begins: list[tuple[str, float]]
    operations: dict[str, int]
    ended: float

    def seconds(self) -> dict[str, float]:
        ends = [begun for _, begun in self.begins[1:]] + [self.ended]
        return {stage: end - begun for (stage, begun), end in zip(self.begins, ends, strict=True)}


def run(argv: list[str], log: Path, moment: Moment | None = None) -> Ran:
    """Run a command in a child and kill it at the moment."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(work(argv, moment, writing, log))
    os.close(writing)
    begins: list[tuple[str, float]] = []
    operations: dict[str, int] = {}
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            stage, told = line.rstrip("\n").split("\t")
            if not stage:
                operations = json.loads(told)
                continue
            begins.append((stage, float(told)))
            if moment is not None and moment.seconds is not None and stage == moment.stage:
                time.sleep(moment.seconds)
                os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ran(code, begins, operations, time.monotonic())


def spread(undisturbed: Ran):
    """Yield three moments by the clock in a long stage, else three of its file operations.

    A short stage with fewer operations is hit at the same one again, or by the clock if it has
    none.
    """
    for stage, seconds in undisturbed.seconds().items():
        n = undisturbed.operations.get(stage, 0)
        if seconds >= LONG_SECONDS or not n:
            for share in (0.2, 0.5, 0.8):
                yield Moment(stage, round(share * seconds, 4))
        if n:
            middle = (n + 1) // 2
            for nth in (middle,) if seconds >= LONG_SECONDS else (1, middle, n):
                yield Moment(stage, nth=nth)


def chosen(undisturbed: Ran, wishes: list[tuple[str, str, float]]):
    """Yield moments by stage, clock or operation, and the share of it that is over by then."""
    for stage, kind, share in wishes:
        if kind == "clock":
            yield Moment(stage, round(share * undisturbed.seconds()[stage], 4))
        else:
            yield Moment(stage, nth=max(1, round(share * undisturbed.operations[stage])))


def contents(folder: Path, globs) -> dict[str, bytes]:
    """Return the bytes of files, of JSON without what a clock or a memory gauge said."""
    found = (path for pattern in globs for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): steady(path) for path in found}


def steady(path: Path) -> bytes:
    if path.suffix == ".safetensors":  # its writer puts what it says of itself in any order
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]
    if path.suffix != ".json":
        return path.read_bytes()

    def without(pairs: list) -> dict:
        return {key: value for key, value in pairs if not MEASURED.search(key)}

    try:
        return json.dumps(json.loads(path.read_bytes(), object_pairs_hook=without)).encode()
    except ValueError:
        return path.read_bytes()


class Trial:
    """One scenario, again and again in the same folder, so that no path differs."""

    def __init__(self, scenario: Scenario, inputs: Path, root: Path) -> None:
        self.scenario = scenario
        self.work, self.prepared = root / "work", inputs
        self.log = root / f"{scenario.name}.log"
        os.environ["NAMEONLY_CACHE"] = str(self.work / "cache")
        self.renew()
        self.undisturbed = self.again()
        assert self.undisturbed.code == 0, self.log.read_text()[-3000:]
        self.want = contents(self.work, scenario.same)
        assert self.want, "nothing to compare"
        self.usual = self.hidden()

    def named(self, argv: list[str]) -> list[str]:
        return [word.replace("{work}", str(self.work)) for word in argv]

    def renew(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.prepared, self.work, symlinks=True)

    def again(self, moment: Moment | None = None) -> Ran:
        return run(self.named(self.scenario.argv), self.log, moment)

    def half_believed(self) -> bool:
        """Return whether a folder says that it is finished and is not what it says."""
        if self.scenario.whole is None:
            return False
        sign, subject = self.scenario.whole
        now, before = (contents(folder, [sign, subject]) for folder in (self.work, self.prepared))
        # a sign that is not the old one is the new run's
        expected = before if now.get(sign) == before.get(sign) else self.want
        return sign in now and now.get(subject) != expected.get(subject)

    def hidden(self) -> set[str]:
        """Return the names of hidden files outside the cache, which may keep some."""
        found = (path.relative_to(self.work) for path in self.work.rglob(".*"))
        return {str(path) for path in found if path.parts[0] != "cache"}

    def kill(self, moment: Moment) -> dict:
        """Kill at a moment, run once more, and say what came of it."""
        scenario = self.scenario
        self.renew()
        kept = contents(self.work, scenario.kept)
        first = self.again(moment)
        half, lost = self.half_believed(), contents(self.work, scenario.kept) != kept
        there = bool(scenario.whole) and (self.work / scenario.whole[0]).exists()
        second = self.again()
        # what was in place when it was killed need not be made again
        done = second.code == 2 and there and "--overwrite" not in scenario.argv
        found = contents(self.work, scenario.same)
        return {
            "command": scenario.name,
            **asdict(moment),
            "killed": first.code == -signal.SIGKILL,
            "half_believed": half,
            "lost": lost,
            "resumed": second.code == 0 or done,
            "wrong": sorted(k for k in self.want if found.get(k) != self.want[k]),
            "left": sorted(self.hidden() - self.usual),
        }

    def kill_surely(self, moment: Moment) -> dict:
        """Kill at a moment; where the command was over before it came, at a sooner one."""
        for _ in range(TRIES):
            found = self.kill(moment)
            if found["killed"]:
                break
            if moment.seconds is None:
                moment = replace(moment, nth=max(1, moment.nth // 2))
            else:
                moment = replace(moment, seconds=moment.seconds / 2)
        return found


def main(plan: Path) -> None:
    """Carry a plan out; ``kills.json`` beside it has a line for every kill."""
    given = json.loads(plan.read_text())
    for name in (*IMPORTS, *given["imports"]):
        importlib.import_module(name)
    from PIL import Image

    Image.init()  # Pillow's readers, which each child would import by itself
    told: dict[str, list] = {"kills": [], "stages": []}
    for facts in given["scenarios"]:
        trial = Trial(Scenario(**facts), Path(given["inputs"]), plan.parent)
        told["stages"].append({"command": facts["name"], "seconds": trial.undisturbed.seconds()})
        if "wishes" in given:
            moments = list(chosen(trial.undisturbed, given["wishes"]))
        else:
            moments = list(spread(trial.undisturbed))
        for moment in moments:
            told["kills"].append(trial.kill_surely(moment))
            print(json.dumps(told["kills"][-1]), flush=True)
    (plan.parent / "kills.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
