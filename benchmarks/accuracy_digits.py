"""UP-Adapter on real handwritten digits with the bundled model, beside its trivial controls.

uv run python benchmarks/accuracy_digits.py [--half development]

Protocol: the digits were cut once, by id, into a development half (every choice was made there) and
a final half (the default here). A half is split at random into two, five times: one part adapts,
without labels, the other is the test. Everything on one row is fitted on the same images.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from results import write
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from nameonly.adapters.prototype_adapter import PrototypeAdapter
from nameonly.backbones.clip import ClipBackbone
from nameonly.encoding import build_text_classifier
from nameonly.evaluation.metrics import accuracy_score
from nameonly.ops.prototypes import class_prototypes
from nameonly.prompts.templates import Templates
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.recipes.up_adapter import UpAdapter
from nameonly.tiny.digits import CLASS_NAMES, halves, load_digits_images
from nameonly.types import Features, LabelSpace, PseudoLabels, TextClassifier

SEEDS = range(5)
SIZES = (4, 8, 16, 32, 64)
SPACE = LabelSpace(CLASS_NAMES)
Accuracies = dict[str, list[float]]


def encode() -> tuple[Features, TextClassifier, np.ndarray]:
    """Return features of all digits, the zero-shot classifier, and the truth."""
    images, truth, ids = load_digits_images()
    backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
    values = backbone.encode_images([image.convert("RGB") for image in images])
    with TemporaryDirectory() as cache:
        text = build_text_classifier(Templates().texts(SPACE), SPACE, backbone, Path(cache))
    return Features(values, ids, "tiny"), text, truth


def splits(rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield five random halves of a half."""
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(rows)
        middle = len(order) // 2
        yield torch.from_numpy(order[:middle]), torch.from_numpy(order[middle:])


def prototypes_alone(
    adapt: Features, text: TextClassifier, labels: PseudoLabels
) -> Callable[[Features], Tensor]:
    """Control: the nearest prototype, without text."""
    prototypes = class_prototypes(adapt.values, labels.targets, text.weights)
    return lambda test: test.values @ prototypes.T


def adapted(
    adapt: Features, text: TextClassifier, labels: PseudoLabels, **settings: float
) -> Callable[[Features], Tensor]:
    """Return a fitted prototype adapter's scores."""
    return PrototypeAdapter(**settings).fit(adapt, text, labels).predict_logits  # type: ignore[arg-type]


def nearest_neighbours(adapt: Features, labels: PseudoLabels) -> Callable[[Features], Tensor]:
    """Control: five nearest selected images vote."""
    keys, values = adapt.values[labels.selected], labels.targets[labels.selected]

    def score(test: Features) -> Tensor:
        near = (test.values @ keys.T).topk(min(5, len(keys)), dim=1)
        return (near.values.unsqueeze(2) * values[near.indices]).sum(dim=1)

    return score


def measure(
    features: Features, text: TextClassifier, truth: np.ndarray, rows: np.ndarray
) -> tuple[Accuracies, Accuracies]:
    """Return accuracies, and precision of the selections, by name, one figure per split."""
    found: Accuracies = {}
    precision: Accuracies = {}
    for adapt_rows, test_rows in splits(rows):
        adapt, test = features.subset(adapt_rows), features.subset(test_rows)
        y_adapt, y_test = truth[adapt_rows.numpy()], truth[test_rows.numpy()]

        def add(name: str, score: Callable[[Features], Tensor]) -> None:
            labels = score(test).argmax(dim=1).numpy()  # noqa: B023
            found.setdefault(name, []).append(accuracy_score(y_test, labels))  # noqa: B023

        add("zero-shot", text.predict_logits)
        probe = LogisticRegression(C=10.0, max_iter=2000).fit(adapt.values.numpy() * 5, y_adapt)
        found.setdefault("linear probe, all labels", []).append(
            float(probe.score(test.values.numpy() * 5, y_test))
        )
        logits = text.predict_logits(adapt)
        for by in ("row", "column"):
            for size in SIZES:
                labeller = TopKPerClass(images_per_class=size, by=by)  # type: ignore[arg-type]
                labels = labeller.label(adapt, logits, SPACE)
                name = f"{by} {size}"
                chosen = labels.candidates.numpy()
                right = chosen[np.arange(len(y_adapt)), y_adapt].sum()
                precision.setdefault(name, []).append(float(right / chosen.sum()))
                add(f"UP-Adapter, {name}", adapted(adapt, text, labels))
                add(f"prototypes frozen, {name}", adapted(adapt, text, labels, steps=0))
                add(f"prototypes alone, {name}", prototypes_alone(adapt, text, labels))
                add(f"5 neighbours, {name}", nearest_neighbours(adapt, labels))
    return found, precision


def cell(values: list[float]) -> str:
    """Return mean and standard deviation over splits, in percent."""
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def paired(a: list[float], b: list[float]) -> str:
    """Return mean and standard deviation of the difference over splits, in points."""
    differences = [100 * (x - y) for x, y in zip(a, b, strict=True)]
    return f"{statistics.mean(differences):+.1f} ± {statistics.stdev(differences):.1f}"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", choices=("development", "final"), default="final")
    half = parser.parse_args().half
    torch.set_num_threads(2)
    features, text, truth = encode()
    rows = dict(zip(("development", "final"), halves(), strict=True))[half]
    found, precision = measure(features, text, truth, rows)
    kinds = ("UP-Adapter", "prototypes frozen", "prototypes alone", "5 neighbours")
    table = [
        f"| {name} | {cell(precision[name])} | "
        + " | ".join(cell(found[f"{kind}, {name}"]) for kind in kinds)
        + " |"
        for name in precision
    ]
    fixed = PrototypeAdapter()
    labeller = UpAdapter().pseudo_labels
    default = f"{labeller.by} {labeller.images_per_class}"
    ours = found[f"UP-Adapter, {default}"]
    others = ["zero-shot", *(f"{kind}, {default}" for kind in kinds[1:])]
    lines = [
        f"{len(features)} digits, the {half} half ({len(rows)}), five random splits into adapt and "
        "test; accuracy in percent, mean and standard deviation over the splits.",
        "",
        f"- zero-shot: {cell(found['zero-shot'])}",
        f"- linear probe with all labels of the adapt part (a ceiling, not a method): "
        f"{cell(found['linear probe, all labels'])}",
        f"- fixed default: {default}, {fixed}",
        "",
        "| selection | its precision | UP-Adapter | prototypes frozen | prototypes alone | "
        "5 neighbours |",
        "| --- | --- | --- | --- | --- | --- |",
        *table,
        "",
        "The fixed default against its controls, paired over the splits, in points:",
        "",
        *(f"- over {name}: {paired(ours, found[name])}" for name in others),
    ]
    figures = {f"accuracy: {name}": statistics.mean(values) for name, values in found.items()}
    figures |= {f"precision: {name}": statistics.mean(v) for name, v in precision.items()}
    figures["default_gain_over_zero_shot"] = statistics.mean(ours) - statistics.mean(
        found["zero-shot"]
    )
    name = "accuracy_digits" if half == "final" else "accuracy_digits_development"
    write(name, figures, lines)


if __name__ == "__main__":
    main()
