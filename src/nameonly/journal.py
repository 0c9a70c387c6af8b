"""What a run did and when: timings for its report, and a line of JSON for every event."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OnStage = Callable[[str], None]
OnProgress = Callable[[int, int], None]
OnNote = Callable[[str], None]


def _ignore(*_: object) -> None:
    """Tell nobody."""


class Journal:
    """Times the stages of a run and writes them down as they happen.

    Attributes:
        timings: Seconds of every finished stage.
        on_progress: Called with done and total inside long stages.
    """

    def __init__(
        self,
        path: Path | None = None,
        on_stage: OnStage | None = None,
        on_progress: OnProgress | None = None,
        on_note: OnNote | None = None,
    ) -> None:
        """Start a journal.

        Args:
            path: A ``log.jsonl`` to append to; None writes nothing.
            on_stage: Called with the name of every stage that begins.
            on_progress: Called with done and total inside long stages.
            on_note: Called with a line for a person.
        """
        self.timings: dict[str, float] = {}
        self.on_progress: OnProgress = on_progress or _ignore
        self._path = path
        self._on_stage: OnStage = on_stage or _ignore
        self._on_note = on_note

    def write(self, event: str, **facts: Any) -> None:
        """Append one event."""
        if self._path is None:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            **facts,
        }
        with self._path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")

    @property
    def listener(self) -> OnNote | None:
        """Takes a line for a person and writes it down; None where nobody listens."""
        return None if self._on_note is None else self._note

    def _note(self, text: str) -> None:
        if self._on_note is not None:
            self._on_note(text)
        self.write("note", text=text)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; it is written down at its begin and its end."""
        self._on_stage(name)
        self.write("begin", stage=name)
        begun = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self.write("failed", stage=name, error=f"{type(error).__name__}: {error}")
            raise
        self.timings[name] = round(time.perf_counter() - begun, 3)
        self.write("end", stage=name, seconds=self.timings[name])
