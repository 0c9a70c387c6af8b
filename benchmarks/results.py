"""Writes what a benchmark found: a page for people, a flat JSON object of figures for machines."""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


def device_name(device: str) -> str:
    """Return the name of what a benchmark ran on, as its page says it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, threads: {torch.get_num_threads()}"


def write(name: str, figures: dict[str, float], lines: list[str]) -> None:
    """Write ``results/<name>.md`` and ``results/<name>.json``, and print the page.

    Args:
        name: Of the result; the command is taken from the program that runs.
        figures: Name of figure -> number.
        lines: Body of the page, in Markdown.
    """
    command = " ".join(["uv run python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    made = (
        f"Python {platform.python_version()}, torch {version('torch')}, "
        f"transformers {version('transformers')}, scikit-learn {version('scikit-learn')}, "
        f"{platform.machine()}"
    )
    page = "\n".join([f"# {name}", "", f"`{command}`", "", *lines, "", made, ""])
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.md").write_text(page, encoding="utf-8")
    rounded = {key: round(value, 6) for key, value in figures.items()}
    (FOLDER / f"{name}.json").write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    print(page)
