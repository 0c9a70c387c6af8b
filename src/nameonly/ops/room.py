"""Whether what grows with images times classes fits into memory."""

from pathlib import Path

BYTES = 4


def free_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes that are free or can be freed; None where the system does not say."""
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((1024 * int(kilobytes) for kilobytes in found), None)


def check_room(n: int, c: int, arrays: int, free: int | None) -> None:
    """Refuse scores that memory cannot hold, before anything is done for them.

    Args:
        n: Images.
        c: Classes.
        arrays: How many float32 arrays of n x c are held at once.
        free: Bytes that there are; None where that is not known, which is taken as enough.

    Raises:
        ValueError: If they do not fit; it says how many images would.
    """
    needed = arrays * n * c * BYTES
    if free is None or needed <= free:
        return
    fit = free // (arrays * c * BYTES)
    raise ValueError(
        f"scores of {n:,} images x {c:,} classes need about {needed:,} bytes of memory "
        f"({arrays} arrays of 4 bytes each), and {free:,} are free; take fewer images at once "
        f"(here about {fit:,} fit: --limit, then `nameonly predict` for the others in parts), or "
        "fewer classes"
    )
