"""The most memory that a stretch of work held."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PEAK_OF_FIT = "fit"
PEAK_OF_PROCESS = "process so far"


class PeakMemory:
    """Measures from its making on, where the system can forget an earlier peak (Linux).

    Attributes:
        of: What ``peak`` is the peak of: ``"fit"``, or ``"process so far"`` where the earlier peak
            could not be forgotten.
        before: Megabytes held at the beginning; None where the system does not say.
    """

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        """Forget the peak so far.

        Args:
            process: Folder in which the system tells of this process.
        """
        self._process = process
        try:
            (process / "clear_refs").write_text("5")
            self.of = PEAK_OF_FIT
        except OSError:
            self.of = PEAK_OF_PROCESS
        self.before = self._status("VmRSS")

    def peak(self) -> float | None:
        """Return the peak in megabytes; None where the system does not say."""
        if self.of == PEAK_OF_FIT:
            found = self._status("VmHWM")
            if found is not None:
                return found
        if find_spec("resource") is None:  # Windows
            return None
        resource = import_module("resource")
        most = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return most / (1e6 if sys.platform == "darwin" else 1e3 / 1.024)

    def _status(self, key: str) -> float | None:
        try:
            lines = (self._process / "status").read_text().splitlines()
        except OSError:
            return None
        found = (line.split()[1] for line in lines if line.startswith(f"{key}:"))
        return next((int(kilobytes) * 1.024e-3 for kilobytes in found), None)
