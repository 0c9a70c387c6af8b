"""What a person decided, on disk before it is answered.

The journal ``review.jsonl`` is the truth: a line for every decision, appended and synced; undoing
is a line too. ``review.parquet`` is made from it, see ``table``.
"""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

JOURNAL = "review.jsonl"
LOCK = ".review.lock"
ACCEPTED, CORRECTED, NONE, UNSURE, UNDONE = "accepted", "corrected", "none", "unsure", "undone"
KINDS = (ACCEPTED, CORRECTED, NONE, UNSURE, UNDONE)


@dataclass(frozen=True)
class Wish:
    """What a person wants to be decided.

    Attributes:
        id: Of the image.
        seen: Revision of the image's decision that the person saw, 0 for none.
        decision: One of ``KINDS``; undone takes back the decision that was seen.
        label: The class, None unless accepted or corrected.
        previous_label: The run's.
        queue: In which the image was shown.
    """

    id: str
    seen: int
    decision: str
    label: str | None
    previous_label: str | None
    queue: str


@dataclass(frozen=True)
class Decision:
    """A line of the journal. Revisions count from 1; the other fields are those of ``Wish``."""

    revision: int
    id: str
    decision: str
    label: str | None
    previous_label: str | None
    queue: str
    decided_at: str

    def __post_init__(self) -> None:
        labelled = self.decision in (ACCEPTED, CORRECTED)
        whole = isinstance(self.revision, int) and isinstance(self.id, str)
        if self.decision not in KINDS or labelled != isinstance(self.label, str) or not whole:
            raise ValueError(f"no decision of ours: {asdict(self)}")


def read_journal(path: Path) -> tuple[list[Decision], int]:
    """Return the decisions of a journal, and how many bytes of it are whole lines.

    A last line that was cut off by a kill or a power failure was never answered and is left out.

    Raises:
        ValueError: If an earlier line is damaged.
    """
    if not path.exists():
        return [], 0
    *lines, _ = path.read_bytes().split(b"\n")
    found: list[Decision] = []
    size = 0
    for number, line in enumerate(lines, 1):
        try:
            entry = Decision(**json.loads(line))
            if entry.revision != len(found) + 1:
                raise ValueError(f"revision {entry.revision}, expected {len(found) + 1}")
        except (ValueError, TypeError) as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}, line {number} is damaged ({error}); mend or remove that line, or move "
                "the file away to begin anew"
            ) from error
        found.append(entry)
        size += len(line) + 1
    return found, size


class Decisions:
    """The decisions of one folder; one program at a time has them open.

    Decisions of images that the run does not have, or for classes that it does not have, stay in
    the journal and count for nothing: ``standing`` returns them all, whoever shows them chooses.
    """

    def __init__(self, folder: Path) -> None:
        """Open and lock a folder's decisions, and drop the half line of a kill.

        Raises:
            ValueError: If another program has them open, or the journal is damaged.
            OSError: If the folder cannot be written.
        """
        self._mutex = threading.Lock()
        self._stacks: dict[str, list[Decision]] = {}
        self._last: dict[str, int] = {}  # image -> its last revision, the latest of all at the end
        self.revision = 0
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"another `nameonly review` has {folder} open; go on in its page, or stop it with "
                "Ctrl-C first"
            ) from None
        try:
            self._path = folder / JOURNAL
            found, size = read_journal(self._path)
            new = not self._path.exists()
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            os.ftruncate(self._file, size)
            self._size = size
            if new:
                _sync_folder(folder)
        except BaseException:
            self._lock.release()
            raise
        for entry in found:
            self._enter(entry)

    def __enter__(self) -> "Decisions":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others open the folder."""
        with self._mutex:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                self._lock.release()

    def standing(self) -> list[Decision]:
        """Return the decision that stands for every image that has one."""
        with self._mutex:
            return [stack[-1] for stack in self._stacks.values() if stack]

    def state(self, image_id: str) -> tuple[Decision | None, int]:
        """Return the decision that stands for an image, and the revision of its last change."""
        with self._mutex:
            stack = self._stacks.get(image_id)
            return (stack[-1] if stack else None), self._last.get(image_id, 0)

    def changed_since(self, revision: int) -> tuple[list[str], int]:
        """Return the images with a change after a revision, and the last revision."""
        with self._mutex:
            ids: list[str] = []
            for image_id in reversed(self._last):
                if self._last[image_id] <= revision:
                    break
                ids.append(image_id)
            return ids, self.revision

    def decide(self, wishes: Sequence[Wish]) -> list[bool]:
        """Write decisions down, all of them with one sync; return which were.

        A wish is not followed where the image has a newer decision than the one seen, or has none
        to be undone.

        Raises:
            OSError: If they cannot be written; then none of them is decided.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._mutex:
            entries: list[Decision] = []
            followed: list[bool] = []
            touched: set[str] = set()
            for wish in wishes:
                right = wish.seen == self._last.get(wish.id, 0) and wish.id not in touched
                right = right and (wish.decision != UNDONE or bool(self._stacks.get(wish.id)))
                followed.append(right)
                if right:
                    touched.add(wish.id)
                    entries.append(_entry(wish, self.revision + len(entries) + 1, now))
            self._append(entries)
            for entry in entries:
                self._enter(entry)
            return followed

    def _append(self, entries: Sequence[Decision]) -> None:
        if not entries:
            return
        lines = [json.dumps(asdict(entry), ensure_ascii=False) for entry in entries]
        data = ("\n".join(lines) + "\n").encode("utf-8", errors="replace")
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
        except OSError:
            # what was not answered must not come back at the next start
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def _enter(self, entry: Decision) -> None:
        stack = self._stacks.setdefault(entry.id, [])
        if entry.decision != UNDONE:
            stack.append(entry)
        elif stack:
            stack.pop()
        self._last.pop(entry.id, None)  # so that it moves to the end
        self._last[entry.id] = self.revision = entry.revision


def _entry(wish: Wish, revision: int, now: str) -> Decision:
    label = wish.label if wish.decision in (ACCEPTED, CORRECTED) else None
    return Decision(revision, wish.id, wish.decision, label, wish.previous_label, wish.queue, now)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name outlive a power failure, where a folder can be synced."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
