"""What a person's answers are worth: digits labelled again with some of them reviewed.

uv run python benchmarks/review_digits.py [--half development]

A pool is half of the half (five seeds), the rest is the test. Images to review are the run's least
certain ones by calibrated confidence, those of least margin (the queue that `nameonly review`
shows), or random ones; their true labels are given, and the recipe runs again. Scored are the
images of the pool that nobody reviewed, and the test.
"""

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from accuracy_digits import SPACE, cell, encode
from results import write
from torch import Tensor

from nameonly import methods
from nameonly.assessment import assess, find_level
from nameonly.learning import scores
from nameonly.task import Task
from nameonly.tiny.digits import halves
from nameonly.types import Features, TextClassifier

SEEDS, REVIEWED = range(5), (0, 10, 20, 50, 100, 200)
RECIPES = ("up_adapter", "zlap", "tip_adapter")
Order = Callable[[Task, Tensor, int], Tensor]


def least_certain(task: Task, logits: Tensor, seed: int) -> Tensor:
    """Return images in order of calibrated confidence."""
    level = find_level(task.features, task.text, logits)
    return assess(task, logits, logits.argmax(dim=1), level).confidence.argsort()


def least_margin(task: Task, logits: Tensor, seed: int) -> Tensor:
    """Return images in order of the margin between the two best classes."""
    best = logits.softmax(dim=1).topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]).argsort()


def at_random(task: Task, logits: Tensor, seed: int) -> Tensor:
    """Return images in a random order."""
    return torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))


ORDERS: dict[str, Order] = {
    "least certain": least_certain,
    "least margin": least_margin,
    "control: random": at_random,
}


def measure(
    features: Features, text: TextClassifier, truth: Tensor, half: np.ndarray
) -> dict[tuple[str, str, int], list[tuple[float, float]]]:
    """Return accuracy of the pool's unreviewed images and of the test, by recipe, order, number."""
    found: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for seed in SEEDS:
        rows = torch.from_numpy(np.random.default_rng(seed).permutation(half))
        pool, test = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        task = Task(features.subset(pool), text, SPACE)
        y = truth[pool]
        for name in RECIPES:
            recipe = methods.build_recipe(name)
            first = scores(task, recipe.fit(task))
            for kind, order in ORDERS.items():
                queue = order(task, first, seed)
                for n in REVIEWED:
                    given = torch.full((len(pool),), -1)
                    given[queue[:n]] = y[queue[:n]]
                    asked = Task(task.features, text, SPACE, given if n else None)
                    adapted = recipe.fit(asked)
                    labels = scores(asked, adapted).argmax(dim=1)
                    left = given < 0
                    tested = adapted.scorer.predict_logits(features.subset(test)).argmax(dim=1)
                    found.setdefault((name, kind, n), []).append(
                        (
                            (labels[left] == y[left]).double().mean().item(),
                            (tested == truth[test]).double().mean().item(),
                        )
                    )
    return found


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", choices=("development", "final"), default="final")
    chosen = parser.parse_args().half
    torch.set_num_threads(2)
    half = dict(zip(("development", "final"), halves(), strict=True))[chosen]
    features, text, truth = encode()
    found = measure(features, text, torch.from_numpy(truth), half)
    lines = [f"The {chosen} half, five seeds, pools of {len(half) // 2} images; percent.", ""]
    figures = {}
    for which, what in ((0, "images of the pool that nobody reviewed"), (1, "the test")):
        lines += [f"Accuracy on {what}, by the number of images reviewed:", ""]
        lines += ["| recipe, images reviewed | " + " | ".join(map(str, REVIEWED)) + " |"]
        lines += ["| --- |" + " ---: |" * len(REVIEWED)]
        for name in RECIPES:
            for kind in ORDERS:
                cells = [[row[which] for row in found[name, kind, n]] for n in REVIEWED]
                lines.append(f"| {name}, {kind} | " + " | ".join(map(cell, cells)) + " |")
                for n, values in zip(REVIEWED, cells, strict=True):
                    figures[f"{what}: {name}, {kind}, {n}"] = statistics.mean(values)
        lines.append("")
    name = "review_digits" if chosen == "final" else "review_digits_development"
    write(name, figures, lines)


if __name__ == "__main__":
    main()
