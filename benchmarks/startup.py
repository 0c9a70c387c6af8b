"""How long ``nameonly --help`` takes over bare Python, and over ``import torch``.

uv run python benchmarks/startup.py
"""

import subprocess
import sys
import time
from statistics import median

from results import write

RUNS = 15
COMMANDS = {
    "bare Python": ["-c", "pass"],
    "python -m nameonly --help": ["-m", "nameonly", "--help"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    """Time the commands in turn, so that a slow minute meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - begun)
    bare, helped, torch = (median(times) for times in seconds.values())
    rows = [
        f"| {name} | {median(times):.3f} | {min(times):.3f} to {max(times):.3f} |"
        for name, times in seconds.items()
    ]
    write(
        "startup",
        {"help_over_bare_python_s": helped - bare, "help_over_import_torch": helped / torch},
        [
            f"Median of {RUNS} runs each, in turn, in seconds.",
            "",
            "| command | median | range |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"`--help` takes {helped - bare:.2f} s over bare Python, "
            f"{100 * helped / torch:.0f} % of what `import torch` takes.",
        ],
    )


if __name__ == "__main__":
    main()
