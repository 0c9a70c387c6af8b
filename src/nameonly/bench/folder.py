"""The folder of a benchmark: a file for every finished run, so that a kill loses one at most."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nameonly.bench.rows import COLUMNS, Row

PLAN = "plan.toml"
TABLE = "table.md"
RUNS = "runs"
LOCK = ".lock"


class RunFolder:
    """Where a benchmark leaves what it found.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        """Look at a folder; nothing is written.

        Raises:
            ValueError: If it holds something else.
        """
        self.path = path
        if path.is_file():
            raise ValueError(f"the output folder {path} is a file; choose another with --out")
        if path.is_dir() and not (path / PLAN).exists():
            others = sorted(p.name for p in path.iterdir() if p.name not in (RUNS, LOCK))
            if others:
                raise ValueError(
                    f"the output folder {path} exists and holds other files than a benchmark's, "
                    f"{others[0]!r} first; choose a new one with --out"
                )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other processes out of it.

        Raises:
            ValueError: If another process runs a benchmark in it.
        """
        (self.path / RUNS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"another benchmark is running in {self.path}; wait for it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def plan_text(self) -> str | None:
        """Return the plan that was run here last, None where none was."""
        path = self.path / PLAN
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def finished(self) -> dict[str, Row]:
        """Return the rows of all runs that are there, by key; those that failed too."""
        rows: dict[str, Row] = {}
        for path in sorted((self.path / RUNS).glob("*.json")):
            try:
                row = json.loads(path.read_text(encoding="utf-8"))["row"]
            except (ValueError, KeyError, TypeError, OSError):
                continue  # a damaged file is a run that is not there
            rows[path.stem] = {**dict.fromkeys(COLUMNS), **row}
        return rows

    def keep(self, key: str, facts: Mapping[str, Any], row: Row) -> None:
        """Write a run's file; it is there whole or not at all."""
        self.write(f"{RUNS}/{key}.json", json.dumps({"row": row, "facts": facts}, indent=1) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a text file by an atomic rename."""
        path = self.path / name
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
