"""What labels lose where a recipe learns from some of the images and labels all (``--adapt-on``).

uv run python benchmarks/adapt_on_digits.py

The final half of the handwritten digits, bundled model. Every figure is over all of its images,
whatever the sample: the mean of five samples, and their standard deviation. Nothing was chosen on
these figures.
"""

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from accuracy_digits import encode
from results import write

from nameonly import jobs
from nameonly.tiny.digits import CLASS_NAMES, halves

RECIPES = ("zero_shot", "up_adapter", "tip_adapter", "zlap", "transclip")
SIZES = (50, 100, 200, 400)
SEEDS = range(5)


def write_half(path: Path) -> np.ndarray:
    """Write the features of the final half, and return its truth."""
    features, text, truth = encode()
    rows = halves()[1]
    np.savez(
        path,
        features=features.values[rows].numpy(),
        ids=np.array(features.ids)[rows],
        text_weights=text.weights.numpy(),
        logit_scale=np.array(text.logit_scale),
        class_names=np.array(CLASS_NAMES),
    )
    return truth[rows]


def measure(path: Path, truth: np.ndarray, recipe: str, adapt_on: int | None) -> tuple[float, ...]:
    """Return accuracy, how far the estimate is off, and the deviation of accuracy, in points."""
    seeds = SEEDS if adapt_on else SEEDS[:1]  # without a sample nothing here is drawn
    accuracies, off = [], []
    for seed in seeds:
        found = jobs.label(path, recipe=recipe, adapt_on=adapt_on, seed=seed)
        labels = found.table["label"].to_pylist()
        right = [name == CLASS_NAMES[y] for name, y in zip(labels, truth, strict=True)]
        accuracies.append(100 * statistics.mean(right))
        off.append(abs(100 * found.summary["estimated_accuracy"] - accuracies[-1]))
    spread = statistics.stdev(accuracies) if adapt_on else 0.0
    return statistics.mean(accuracies), statistics.mean(off), spread


def main() -> None:
    """Measure and write the page."""
    figures: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "final.npz"
        truth = write_half(path)
        heads = [*(f"{n} of {len(truth)}" for n in SIZES), "all"]
        lines = [f"| recipe | {' | '.join(heads)} |", "| --- " * (len(heads) + 1) + "|"]
        away = list(lines)
        for recipe in RECIPES:
            cells, errors = [], []
            for n in (*SIZES, None):
                accuracy, off, spread = measure(path, truth, recipe, n)
                cells.append(f"{accuracy:.1f} ± {spread:.1f}" if n else f"{accuracy:.1f}")
                errors.append(f"{off:.1f}")
                figures |= {f"{recipe}_{n}": accuracy, f"{recipe}_{n}_estimate_off": off}
            lines.append(f"| {recipe} | {' | '.join(cells)} |")
            away.append(f"| {recipe} | {' | '.join(errors)} |")
    write(
        "adapt_on_digits",
        figures,
        [
            "Accuracy over all images in per cent, by how many were learnt from:",
            "",
            *lines,
            "",
            "How far the estimated accuracy is off, in points (mean of the absolute error):",
            "",
            *away,
        ],
    )


if __name__ == "__main__":
    main()
