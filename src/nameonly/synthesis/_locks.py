"""One run at a time writes a folder: another is turned away, or waits for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def held(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of a folder; whoever holds it may take it again inside.

    Args:
        path: The lock's file.
        on_wait: Called where another run holds it, which is then waited for; None does not wait.

    Raises:
        ValueError: If another run holds it and is not waited for.
        OSError: If the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is None:
            raise ValueError(
                f"another run is writing {path.parent} now; wait for its end, or choose another "
                "folder"
            ) from None
        on_wait()
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        lock.release()
