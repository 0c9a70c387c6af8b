"""What a run says of its own labels, against the truth: handwritten digits, and printed glyphs.

uv run python benchmarks/trust_digits.py [--half development]

Constants were chosen on the development half; the default here is the final half. Pools of five
seeds: balanced (half of the half), long-tailed (imbalance 10), with strangers (three classes are
not named, a third of their images stay), and the balanced pool blurred and covered by a grey
square. Printed glyphs of held-out fonts with 36 names are another data set: no estimator was chosen
on it, only the width of the intervals takes its errors into account. Truth is read by this file
alone.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image, ImageFilter
from results import write
from sklearn.metrics import roc_auc_score
from torch import Tensor

from nameonly import methods
from nameonly.assessment import find_level
from nameonly.backbones.clip import ClipBackbone
from nameonly.encoding import build_text_classifier
from nameonly.evaluation.metrics import expected_calibration_error, wilson_interval
from nameonly.learning import scores
from nameonly.ops.views import make_view, view_generator
from nameonly.prompts.templates import Templates
from nameonly.selection.silhouette import Silhouette
from nameonly.task import Task
from nameonly.tiny import glyphs
from nameonly.tiny.digits import CLASS_NAMES, halves, load_digits_images
from nameonly.tiny.glyph_set import render_set
from nameonly.trust import accuracy, audit, calibration, class_prior, unknown
from nameonly.types import Features, LabelSpace, TextClassifier

SEEDS = range(5)
RECIPES = Silhouette().recipes
POOLS = ("balanced", "long-tailed", "with strangers", "blurred", "covered")
GLYPHS = "printed glyphs, 36 names"
OTHER_NAMES = ("cat", "dog", "house")


@dataclass(frozen=True)
class Encoded:
    """Everything that pools are drawn from."""

    looks: dict[str, Tensor]
    views: dict[str, Tensor]
    truth: np.ndarray
    letters: Tensor
    glyphs: Tensor
    glyph_views: Tensor
    glyph_truth: np.ndarray
    backbone: ClipBackbone


@dataclass(frozen=True)
class Pool:
    """Unlabelled images with names; the truth is -1 for a stranger."""

    name: str
    task: Task
    view: Features
    truth: Tensor

    def logits(self, recipe: str) -> Tensor:
        """Return a recipe's scores of the pool."""
        return scores(self.task, methods.build_recipe(recipe).fit(self.task))


def covered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return an image with a grey square of 10 pixels on it."""
    shown = image.convert("RGB")
    x, y = (int(v) for v in rng.integers(4, 18, 2))
    shown.paste((128, 128, 128), (x, y, x + 10, y + 10))
    return shown


def encode(work: Path) -> Encoded:
    """Encode digits in every look, glyphs, and a weak view of each."""
    images, truth, ids = load_digits_images()
    backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
    rng = np.random.default_rng(0)
    looks = {
        "plain": [image.convert("RGB") for image in images],
        "blurred": [image.convert("RGB").filter(ImageFilter.GaussianBlur(2.2)) for image in images],
        "covered": [covered(image, rng) for image in images],
    }

    def seen(pictures: list[Image.Image], names: tuple[str, ...]) -> Tensor:
        views = [
            make_view(image, "weak", view_generator(name, "weak", 0))
            for image, name in zip(pictures, names, strict=True)
        ]
        return backbone.encode_images(views)

    drawn = render_set(1800, tuple(glyphs.HELD_OUT_FONTS), 11, work)
    pictures = [Image.fromarray(p).convert("RGB") for p in drawn.images.numpy()]
    labels = drawn.labels.numpy()
    letters = [p for p, y in zip(pictures, labels, strict=True) if y >= 10][:300]
    return Encoded(
        {look: backbone.encode_images(shown) for look, shown in looks.items()},
        {look: seen(shown, ids) for look, shown in looks.items()},
        truth,
        backbone.encode_images(letters),
        backbone.encode_images(pictures),
        seen(pictures, tuple(f"glyph-{i}" for i in range(len(pictures)))),
        labels,
        backbone,
    )


def named(encoded: Encoded, names: tuple[str, ...]) -> TextClassifier:
    """Return the zero-shot classifier of names."""
    space = LabelSpace(names)
    with TemporaryDirectory() as cache:
        texts = Templates().texts(space)
        return build_text_classifier(texts, space, encoded.backbone, Path(cache))


def pool_of(
    name: str,
    encoded: Encoded,
    values: tuple[Tensor, Tensor],
    y: np.ndarray,
    names: tuple[str, ...],
) -> Pool:
    """Return a pool of features, and of one weak view of each."""
    ids = tuple(f"image-{i:05d}" for i in range(len(y)))
    features, view = (Features(v, ids, "tiny") for v in values)
    task = Task(features, named(encoded, names), LabelSpace(names))
    return Pool(name, task, view, torch.from_numpy(y))


def rows_of(name: str, half: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of a pool."""
    if name != "long-tailed":
        return np.sort(rng.permutation(half)[: len(half) // 2])
    most = min(int((truth[half] == k).sum()) for k in range(10))
    kept = [
        rng.choice(half[truth[half] == k], max(3, round(most * 10 ** (-place / 9))), replace=False)
        for place, k in enumerate(rng.permutation(10))
    ]
    return np.sort(np.concatenate(kept))


def pools(encoded: Encoded, half: np.ndarray) -> Iterator[Pool]:
    """Yield every pool of every seed."""
    for name in POOLS:
        look = name if name in encoded.looks else "plain"
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            rows, names = rows_of(name, half, encoded.truth, rng), CLASS_NAMES
            y = encoded.truth[rows]
            if name == "with strangers":
                hidden = rng.permutation(10)[:3]
                rows = rows[~np.isin(y, hidden) | (rng.random(len(rows)) < 1 / 3)]
                kept = [k for k in range(10) if k not in hidden]
                names = tuple(CLASS_NAMES[k] for k in kept)
                y = np.array([kept.index(k) if k in kept else -1 for k in encoded.truth[rows]])
            values = encoded.looks[look][rows], encoded.views[look][rows]
            yield pool_of(name, encoded, values, y, names)
    for seed in SEEDS:
        rows = np.random.default_rng(seed).permutation(len(encoded.glyph_truth))[:900]
        values = encoded.glyphs[rows], encoded.glyph_views[rows]
        yield pool_of(GLYPHS, encoded, values, encoded.glyph_truth[rows], glyphs.CLASS_NAMES)


def estimates(pool: Pool, logits: dict[str, Tensor]) -> list[dict[str, float]]:
    """Return, for every recipe, its accuracy and what each estimator says of it."""
    votes = {name: found.argmax(dim=1) for name, found in logits.items()}
    agreement = accuracy.mean_agreement(list(votes.values()))
    n_classes = len(pool.task.label_space)
    observed = accuracy.dawid_skene(list(votes.values()), n_classes).accuracy.tolist()
    text, features = pool.task.text, pool.task.features
    start = votes["zero_shot"]
    clusters = accuracy.find_clusters(features, start, n_classes)
    viewed = text.predict_logits(pool.view)
    rows = []
    for i, (name, found) in enumerate(logits.items()):
        estimate = accuracy.estimate_accuracy(features, clusters, votes[name])
        rows.append(
            {
                "accuracy": (votes[name] == pool.truth).double().mean().item(),
                "stability": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "average confidence": accuracy.average_confidence(found),
                "thresholded confidence": accuracy.average_thresholded_confidence(
                    found.softmax(dim=1).amax(dim=1),
                    viewed.softmax(dim=1).amax(dim=1),
                    viewed.argmax(dim=1) == start,
                ),
                "agreement": agreement[i],
                "Dawid-Skene": observed[i],
            }
        )
    return rows


def confidences(pool: Pool, logits: Tensor) -> dict[str, tuple[float, float]]:
    """Return calibration error and how well right is told from wrong, by kind of confidence."""
    labels = logits.argmax(dim=1)
    right = (labels == pool.truth).numpy()
    level = find_level(pool.task.features, pool.task.text, logits)
    warm = (logits / level.temperature).softmax(dim=1).amax(dim=1)
    known = calibration.temperature_for(logits, float(right.mean()))
    kinds = {
        "probability": logits.softmax(dim=1).amax(dim=1),
        "temperature": warm,
        "with stability": calibration.combined_confidence(
            warm, level.stability, level.accuracy, accuracy.DRAWS
        ),
        "control: one value": torch.full((len(right),), level.accuracy),
        "ceiling: true temperature": (logits / known).softmax(dim=1).amax(dim=1),
    }
    zeros = np.zeros(len(right), dtype=np.int64)
    return {
        kind: (
            expected_calibration_error(np.where(right, 0, 1), value.double().numpy(), zeros),
            float(roc_auc_score(right, value)),
        )
        for kind, value in kinds.items()
    }


def strangers(pool: Pool, encoded: Encoded) -> dict[str, tuple[float, float]]:
    """Return AUROC and false positives at 95 % of the strangers found, by score."""
    features, text = pool.task.features, pool.task.text
    letters = tuple(n for n in glyphs.CLASS_NAMES if n not in CLASS_NAMES)
    theirs = tuple(n for n in CLASS_NAMES if n not in text.class_names) or letters
    start = text.predict_logits(features).argmax(dim=1)
    centres = accuracy.find_clusters(features, start, len(text.class_names)).centres
    kinds = {
        "energy": unknown.energy_score(features, text),
        "concept matching": unknown.concept_matching_score(features, text),
        "prototypes": unknown.prototype_score(features, centres),
        "both (reported)": unknown.combined_score(features, text, centres),
        "neighbours": unknown.neighbour_score(features),
        "their names given": unknown.distractor_score(features, text, named(encoded, theirs)),
        "other names given": unknown.distractor_score(features, text, named(encoded, OTHER_NAMES)),
        "control: one minus probability": 1
        - text.predict_logits(features).softmax(dim=1).amax(dim=1),
    }
    outside = (pool.truth < 0).numpy()
    found = {}
    for kind, score in kinds.items():
        value = score.double().numpy()
        least = np.quantile(value[outside], 0.05)
        found[kind] = (
            float(roc_auc_score(outside, value)),
            float((value[~outside] >= least).mean()),
        )
    return found


def flagged(pool: Pool) -> dict[str, float]:
    """Return the recall and precision of ``suspected_unknown``, and the share of strangers."""
    features, text = pool.task.features, pool.task.text
    start = text.predict_logits(features).argmax(dim=1)
    centres = accuracy.find_clusters(features, start, len(text.class_names)).centres
    found = unknown.suspected(unknown.combined_score(features, text, centres))
    outside = pool.truth < 0
    return {
        "strangers flagged": found[outside].double().mean().item(),
        "flagged that are strangers": outside[found].double().mean().item(),
        "share of strangers": outside.double().mean().item(),
    }


def with_letters(encoded: Encoded, half: np.ndarray) -> list[Pool]:
    """Return balanced pools with printed letters among the digits."""
    found = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows = rows_of("balanced", half, encoded.truth, rng)
        chosen = torch.from_numpy(rng.permutation(len(encoded.letters))[:45])
        values = torch.cat([encoded.looks["plain"][rows], encoded.letters[chosen]])
        y = np.concatenate([encoded.truth[rows], np.full(45, -1)])
        found.append(pool_of("letters", encoded, (values, values), y, CLASS_NAMES))
    return found


def shares(pool: Pool, logits: Tensor) -> dict[str, float]:
    """Return half the summed absolute error of estimated class shares."""
    inside = pool.truth[pool.truth >= 0]
    c = len(pool.task.label_space)
    true = torch.bincount(inside, minlength=c) / len(inside)
    level = find_level(pool.task.features, pool.task.text, logits)
    probs = (logits / level.temperature).softmax(dim=1)
    kinds = {
        "labels counted": torch.bincount(logits.argmax(dim=1), minlength=c) / len(logits),
        "expectation maximisation": class_prior.em_prior(probs),
        "transport": class_prior.transport_prior(probs),
        "control: equal": torch.full((c,), 1 / c),
    }
    return {kind: (value - true).abs().sum().item() / 2 for kind, value in kinds.items()}


def intervals(encoded: Encoded, half: np.ndarray, recipe: str) -> tuple[float, float, float]:
    """Return how often intervals hold the truth, their width, and how often 10 points would."""
    held, near, widths = 0, 0, []
    for seed in range(100):
        rows = np.sort(np.random.default_rng(1000 + seed).permutation(half)[:300])
        values = encoded.looks["plain"][rows]
        pool = pool_of("draw", encoded, (values, values), encoded.truth[rows], CLASS_NAMES)
        labels = pool.logits(recipe).argmax(dim=1)
        start = pool.task.text.predict_logits(pool.task.features).argmax(dim=1)
        clusters = accuracy.find_clusters(pool.task.features, start, 10)
        found = accuracy.estimate_accuracy(pool.task.features, clusters, labels)
        truth = (labels == pool.truth).double().mean().item()
        held += found.low <= truth <= found.high
        near += abs(found.value - truth) <= 0.05
        widths.append(found.high - found.low)
    return held / 100, statistics.mean(widths), near / 100


def audits(pool: Pool, logits: Tensor, n: int) -> dict[str, tuple[float, float]]:
    """Return how often audits of n images hold the truth at 95 %, and their width, over 200."""
    labels = logits.argmax(dim=1)
    right = labels == pool.truth
    level = find_level(pool.task.features, pool.task.text, logits)
    warm = (logits / level.temperature).softmax(dim=1).amax(dim=1)
    sure = calibration.combined_confidence(warm, level.stability, level.accuracy, accuracy.DRAWS)
    truth = right.double().mean().item()
    found: dict[str, list[tuple[bool, float]]] = {"stratified": [], "control: simple": []}
    for seed in range(200):
        sample = audit.audit_sample(sure, n, seed=seed)
        checked = torch.zeros(len(right), dtype=torch.bool)
        checked[sample.rows] = True
        result = audit.audit_accuracy(sample, checked, right)
        simple = torch.randperm(len(right), generator=torch.Generator().manual_seed(seed))[:n]
        plain = wilson_interval(int(right[simple].sum()), n)
        for kind, (low, high) in (
            ("stratified", (result.low, result.high)),
            ("control: simple", plain),
        ):
            found[kind].append((low <= truth <= high, high - low))
    return {
        kind: (statistics.mean(h for h, _ in rows), statistics.mean(w for _, w in rows))
        for kind, rows in found.items()
    }


def mean(values: list[float]) -> str:
    """Return mean and standard deviation in percent."""
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.pstdev(values):.1f}"


def table(title: str, kinds: list[str], rows: dict[str, list[str]]) -> list[str]:
    """Return a Markdown table."""
    head = f"| {title} | " + " | ".join(kinds) + " |"
    body = [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return [head, "| --- |" + " ---: |" * len(kinds), *body, ""]


class Findings:
    """What was measured, pool by pool."""

    def __init__(self) -> None:
        self.estimates: dict[str, list[dict[str, float]]] = {}
        self.confidences: dict[str, list[dict[str, tuple[float, float]]]] = {}
        self.shares: dict[str, list[dict[str, float]]] = {}
        self.strangers: dict[str, list[dict[str, tuple[float, float]]]] = {}
        self.flagged: dict[str, list[dict[str, float]]] = {}
        self.regret: dict[str, list[dict[str, float]]] = {}
        self.audits: dict[int, list[dict[str, tuple[float, float]]]] = {50: [], 100: []}

    def add_strangers(self, pool: Pool, encoded: Encoded) -> None:
        """Measure how strangers are told."""
        self.strangers.setdefault(pool.name, []).append(strangers(pool, encoded))
        self.flagged.setdefault(pool.name, []).append(flagged(pool))

    def add(self, pool: Pool, encoded: Encoded) -> None:
        """Measure a pool."""
        logits = {name: pool.logits(name) for name in RECIPES}
        rows = estimates(pool, logits)
        self.estimates.setdefault(pool.name, []).extend(rows)
        both = [confidences(pool, logits[name]) for name in ("zero_shot", "up_adapter")]
        self.confidences.setdefault(pool.name, []).extend(both)
        self.shares.setdefault(pool.name, []).append(shares(pool, logits["up_adapter"]))
        true = {name: row["accuracy"] for name, row in zip(RECIPES, rows, strict=True)}
        told = Silhouette().choose(pool.task, Templates()).candidates
        (chosen,) = (row["recipe"] for row in told if row["chosen"])
        best = max(true.values())
        steady = max(RECIPES, key=lambda n: rows[RECIPES.index(n)]["stability"])
        self.regret.setdefault(pool.name, []).append(
            {"auto": best - true[chosen], "by stability": best - true[steady]}
            | {f"always {name}": best - value for name, value in true.items()}
        )
        if (pool.truth < 0).any():
            self.add_strangers(pool, encoded)
        if pool.name == "balanced":
            for n, found in self.audits.items():
                found.append(audits(pool, logits["up_adapter"], n))

    def page(self, figures: dict[str, float]) -> list[str]:
        """Return the tables, and put their figures into a flat object."""
        lines = self._estimates(figures)
        lines += ["Calibration error (zero-shot and up_adapter, 15 bins, percent):", ""]
        lines += self._pairs(self.confidences, 0, "calibration error", figures)
        lines += ["How well confidence tells right labels from wrong ones (AUROC, percent):", ""]
        lines += self._pairs(self.confidences, 1, "AUROC of confidence", figures)
        lines += ["Strangers among the images, zero-shot's scores (AUROC, percent):", ""]
        lines += self._pairs(self.strangers, 0, "AUROC of strangers", figures)
        lines += ["The same, false positives where 95 % of the strangers are found (percent):", ""]
        lines += self._pairs(self.strangers, 1, "FPR95", figures)
        lines += ["The column `suspected_unknown` (percent):", ""]
        lines += self._plain(self.flagged, "suspected", figures)
        lines += ["Error of class shares (up_adapter; half the summed difference, percent):", ""]
        lines += self._plain(self.shares, "error of shares", figures)
        lines += [
            "Regret of the recipe taken against the best of the five in hindsight, points:",
            "",
        ]
        lines += self._plain(self.regret, "regret", figures)
        return lines + self._audits(figures)

    def _estimates(self, figures: dict[str, float]) -> list[str]:
        kinds = [
            k
            for k in next(iter(self.estimates.values()))[0]
            if k not in ("accuracy", "low", "high")
        ]
        rows: dict[str, list[str]] = {}
        for name, found in self.estimates.items():
            cells = [mean([row["accuracy"] for row in found])]
            for kind in kinds:
                off = [row[kind] - row["accuracy"] for row in found]
                absolute = statistics.mean(abs(v) for v in off)
                cells.append(f"{100 * absolute:.1f} ({100 * statistics.mean(off):+.1f})")
                figures[f"error of {kind}, {name}"] = absolute
            held = statistics.mean(row["low"] <= row["accuracy"] <= row["high"] for row in found)
            cells.append(f"{100 * held:.0f}")
            figures[f"interval holds, {name}"] = held
            rows[name] = cells
        title = "Error of estimated accuracy in points, mean absolute (and signed), five recipes:"
        return [title, "", *table("pool", ["accuracy", *kinds, "interval holds, %"], rows)]

    def _pairs(
        self,
        found: dict[str, list[dict[str, tuple[float, float]]]],
        which: int,
        what: str,
        figures: dict[str, float],
    ) -> list[str]:
        return self._plain(
            {
                n: [{k: v[which] for k, v in row.items()} for row in rows]
                for n, rows in found.items()
            },
            what,
            figures,
        )

    def _plain(
        self, found: dict[str, list[dict[str, float]]], what: str, figures: dict[str, float]
    ) -> list[str]:
        kinds = list(next(iter(found.values()))[0])
        rows = {}
        for name, measured in found.items():
            rows[name] = [mean([row[kind] for row in measured]) for kind in kinds]
            for kind in kinds:
                figures[f"{what}: {kind}, {name}"] = statistics.mean(r[kind] for r in measured)
        return table("pool", kinds, rows)

    def _audits(self, figures: dict[str, float]) -> list[str]:
        rows = {}
        for n, found in self.audits.items():
            for kind in found[0]:
                held, width = (statistics.mean(f[kind][i] for f in found) for i in (0, 1))
                rows[f"{n} images, {kind}"] = [f"{100 * held:.1f}", f"{100 * width:.1f}"]
                figures[f"audit of {n}, {kind}: holds"] = held
                figures[f"audit of {n}, {kind}: width"] = width
        title = (
            "Audits of up_adapter's labels (balanced, 95 % intervals, 200 draws a pool, percent):"
        )
        return [title, "", *table("audit", ["holds the truth", "width"], rows)]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", choices=("development", "final"), default="final")
    chosen = parser.parse_args().half
    torch.set_num_threads(2)
    half = dict(zip(("development", "final"), halves(), strict=True))[chosen]
    found, figures = Findings(), {}
    with TemporaryDirectory() as work:
        encoded = encode(Path(work))
    for pool in pools(encoded, half):
        found.add(pool, encoded)
    for pool in with_letters(encoded, half):
        found.add_strangers(pool, encoded)
    lines = found.page(figures)
    lines += ["90 % intervals of estimated accuracy over 100 draws of 300 images:", ""]
    for recipe in ("zero_shot", "up_adapter"):
        held, width, near = intervals(encoded, half, recipe)
        figures |= {f"100 draws, {recipe}: holds": held, f"100 draws, {recipe}: width": width}
        figures[f"100 draws, {recipe}: 10 points would hold"] = near
        lines.append(
            f"- {recipe}: in {100 * held:.0f} they hold it, {100 * width:.1f} points wide; "
            f"10 points wide, in {100 * near:.0f}"
        )
    opening = (
        f"The {chosen} half ({len(half)} digits), seeds {list(SEEDS)}, "
        f"recipes {', '.join(RECIPES)}; mean and standard deviation over seeds."
    )
    name = "trust_digits" if chosen == "final" else "trust_digits_development"
    write(name, figures, [opening, "", *lines])


if __name__ == "__main__":
    main()
