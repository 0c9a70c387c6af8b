"""How long the program takes to start, and how much ``label`` adds to the bare model.

uv run python benchmarks/startup.py

In an installation without extras, which imports less: uv venv core && uv pip install --python
core/bin/python . && core/bin/python benchmarks/startup.py

Ten images are labelled twice over: by a script that does with transformers what is done to them and
no more (import, load, decode, encode, compare), and by ``nameonly label`` with its defaults, which
also checks its input, adapts, estimates, and writes tables, a classifier and a report.
"""

import os
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from results import write

from nameonly.tiny import MODEL
from nameonly.tiny.digits import CLASS_NAMES, export

RUNS = 7
N_IMAGES = 10
BARE_MODEL = """
import sys
from pathlib import Path
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPModel
model = CLIPModel.from_pretrained(sys.argv[1])
processor = AutoProcessor.from_pretrained(sys.argv[1])
images = [Image.open(path).convert("RGB") for path in sorted(Path(sys.argv[2]).iterdir())]
texts = [f"a photo of a {name}." for name in sys.argv[3].split(",")]
with torch.inference_mode():
    found = model(**processor(text=texts, images=images, return_tensors="pt", padding=True))
print(found.logits_per_image.argmax(dim=1).tolist())
"""


def commands(photos: Path, work: Path) -> dict[str, list[str]]:
    """Return what is timed, as arguments of Python; ``{run}`` is another name each time."""

    def folders(out: str, cache: str) -> list[str]:
        return ["--out", str(work / out), "--cache", str(work / cache)]

    names = ",".join(CLASS_NAMES)
    label = ["-m", "nameonly", "label", str(photos), "--classes", names, "--backbone", "tiny"]
    return {
        "bare Python": ["-c", "pass"],
        "nameonly --help": ["-m", "nameonly", "--help"],
        "import nameonly": ["-c", "import nameonly"],
        "import torch": ["-c", "import torch"],
        "bare model": ["-c", BARE_MODEL, str(MODEL), str(photos), names],
        "label, nothing cached": [*label, *folders("first{run}", "cache{run}")],
        "label, features cached": [*label, *folders("again{run}", "cache")],
    }


def main() -> None:
    """Time the commands in turn, so that a slow minute meets all of them."""
    with TemporaryDirectory() as folder:
        work = Path(folder)
        digits, _ = export(work / "digits")
        photos = work / "photos"
        photos.mkdir()
        for path in sorted(Path(digits).iterdir())[:N_IMAGES]:
            path.rename(photos / path.name)
        ways = commands(photos, work)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for run in range(-1, RUNS):  # the first fills caches and is not counted
            for name, arguments in ways.items():
                begun = time.perf_counter()
                named = [word.replace("{run}", str(run)) for word in arguments]
                subprocess.run([sys.executable, *named], capture_output=True, check=True)
                if run >= 0:
                    seconds[name].append(time.perf_counter() - begun)
    middle = {name: median(times) for name, times in seconds.items()}
    bare, model = middle["bare Python"], middle["bare model"]
    rows = [
        f"| {name} | {middle[name]:.3f} | {min(times):.3f} to {max(times):.3f} |"
        for name, times in seconds.items()
    ]
    write(
        "startup",
        {
            "help_s": middle["nameonly --help"],
            "help_over_bare_python_s": middle["nameonly --help"] - bare,
            "help_over_import_torch": middle["nameonly --help"] / middle["import torch"],
            "import_over_bare_python_s": middle["import nameonly"] - bare,
            "label_over_bare_model_s": middle["label, nothing cached"] - model,
            "label_again_over_bare_model_s": middle["label, features cached"] - model,
        },
        [
            f"Median of {RUNS} runs each, in turn, in seconds; {os.cpu_count()} cores. The bundled "
            f"model, {N_IMAGES} images. {len(list(distributions()))} packages are installed: what "
            "transformers and scikit-learn find they import.",
            "",
            "| command | median | range |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"`--help` takes {middle['nameonly --help'] - bare:.2f} s over bare Python and "
            f"`import nameonly` {middle['import nameonly'] - bare:.2f} s; `label` takes "
            f"{middle['label, nothing cached'] - model:.2f} s over the bare model, and "
            f"{middle['label, features cached'] - model:.2f} s where features are cached.",
        ],
    )


if __name__ == "__main__":
    main()
