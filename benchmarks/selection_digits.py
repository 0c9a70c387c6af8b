"""What is lost by choosing without a label, on handwritten digits.

uv run python benchmarks/selection_digits.py [--half development]

Pools of five seeds, as in ``trust_digits.py``. Candidates are sets of prompts, settings, backbones
(the bundled model and copies with noise on their weights, the strongest first, so that the first is
not the best) and all of it together. Regret is the accuracy of the best candidate in hindsight
minus that of the one taken. How one is taken was chosen on the development half; the default here
is the final half.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from results import write
from safetensors.torch import load_file, save_file
from torch import Tensor
from trust_digits import SEEDS, mean, rows_of, table

from nameonly.backbones.clip import ClipBackbone
from nameonly.encoding import build_text_classifier
from nameonly.learning import scores
from nameonly.prompts.templates import Templates
from nameonly.selection._candidates import Candidate, every_candidate, task_of
from nameonly.selection.silhouette import Silhouette, mean_silhouette
from nameonly.task import Task
from nameonly.tiny.digits import CLASS_NAMES, halves, load_digits_images
from nameonly.trust.accuracy import Clusters, find_clusters, label_stability, mean_agreement
from nameonly.types import Features, LabelSpace

POOLS = ("balanced", "long-tailed", "with strangers")
NOISE = (0.6, 0.4, 0.3, 0.2, 0.1)
PROMPTS = ("openai7", "openai80", "{}", "a handwritten {}.", "the number {}")
Space = tuple[ClipBackbone, Features]
SHOTS = tuple(f"up_adapter pseudo_labels.images_per_class={k}" for k in (4, 16, 64, 256))


def noisy_copy(folder: Path, sigma: float) -> str:
    """Return the folder of a copy of the bundled model with noise on its weights."""
    source = ClipBackbone("tiny").folder
    assert source is not None
    copytree(source, folder)
    state = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(round(10 * sigma))
    for name in sorted(state):
        if state[name].ndim > 1:
            noise = torch.randn(state[name].shape, generator=generator)
            state[name] = state[name] + sigma * state[name].float().std() * noise
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def pools(half: np.ndarray, truth: np.ndarray) -> Iterator[tuple[str, np.ndarray, tuple[str, ...]]]:
    """Yield every pool's name, rows and named classes."""
    for name in POOLS:
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            rows, names = rows_of(name, half, truth, rng), CLASS_NAMES
            if name == "with strangers":
                hidden = rng.permutation(10)[:3]
                rows = rows[~np.isin(truth[rows], hidden) | (rng.random(len(rows)) < 1 / 3)]
                names = tuple(n for k, n in enumerate(CLASS_NAMES) if k not in hidden)
            yield name, rows, names


def tried(
    task: Task, truth: Tensor, candidates: list[Candidate], spaces: dict[str | None, Space]
) -> dict[str, float]:
    """Return the regret of every way to choose, and of not choosing."""
    votes, right, own, steady = [], [], [], []
    clusters: dict[tuple[str | None, str | None], Clusters] = {}
    for candidate in candidates:
        backbone, features = spaces[candidate.backbone]
        seen = task_of(task, candidate, Templates(), backbone, features)
        labels = scores(seen, candidate.recipe(0).fit(seen)).argmax(dim=1)
        key = candidate.backbone, candidate.templates
        if key not in clusters:
            start = seen.text.predict_logits(seen.features).argmax(dim=1)
            clusters[key] = find_clusters(seen.features, start, len(task.label_space))
        votes.append(labels)
        right.append((labels == truth).double().mean().item())
        own.append(mean_silhouette(seen.features, labels, Silhouette().sample))
        steady.append(label_stability(seen.features, clusters[key], labels).mean().item())
    judged = [
        statistics.mean(mean_silhouette(f, v, Silhouette().sample) for _, f in spaces.values())
        for v in votes
    ]
    ways = {
        "auto: silhouette, all backbones": judged,
        "silhouette, own backbone": own,
        "stability": steady,
        "agreement": mean_agreement(votes),
    }
    best = max(right)
    found = {way: best - right[int(np.argmax(value))] for way, value in ways.items()}
    return {
        **found,
        "control: the first": best - right[0],
        "control: any": best - statistics.mean(right),
        "the worst": best - min(right),
    }


def sets(worse: tuple[str, ...]) -> dict[str, list[Candidate]]:
    """Return the candidates of every question; the noisiest backbone is the run's own."""
    both = ("zero_shot", "up_adapter")
    return {
        "prompts, zero_shot": every_candidate(("zero_shot",), PROMPTS, (), 0),
        "prompts, up_adapter": every_candidate(("up_adapter",), PROMPTS, (), 0),
        "settings of up_adapter": every_candidate(SHOTS, (), (), 0),
        "backbones, zero_shot": every_candidate(("zero_shot",), (), worse, 0),
        "backbones, up_adapter": every_candidate(("up_adapter",), (), worse, 0),
        "all together": every_candidate(both, ("openai80",), worse, 0),
    }


def regrets(
    rows: np.ndarray,
    names: tuple[str, ...],
    truth: np.ndarray,
    spaces: dict[str, Space],
    cache: Path,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield every question with the regrets of a pool."""
    label_space, place = LabelSpace(names), torch.from_numpy(rows)
    shown = [CLASS_NAMES[k] for k in truth[rows]]
    true = torch.tensor([names.index(n) if n in names else -1 for n in shown])
    pool = {name: (backbone, f.subset(place)) for name, (backbone, f) in spaces.items()}
    worst = next(iter(spaces))
    for question, candidates in sets(tuple(spaces)[1:]).items():
        further = [c.backbone for c in candidates if c.backbone]
        backbone, features = pool[worst if further else "tiny"]
        text = build_text_classifier(Templates().texts(label_space), label_space, backbone, cache)
        task = Task(features, text, label_space, backbone=backbone, cache=cache)
        seen = {None: (backbone, features)} | {name: pool[name] for name in further}
        yield question, tried(task, true, candidates, seen)


def encoded(model: str, images: list[Image.Image], ids: tuple[str, ...]) -> Space:
    """Return a backbone and its features of all digits."""
    backbone = ClipBackbone(model, device="cpu", dtype="float32")
    return backbone, Features(backbone.encode_images(images), ids, backbone.name)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--half", choices=("development", "final"), default="final")
    chosen = parser.parse_args().half
    torch.set_num_threads(2)
    half = dict(zip(("development", "final"), halves(), strict=True))[chosen]
    digits, truth, ids = load_digits_images()
    images = [image.convert("RGB") for image in digits]
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with TemporaryDirectory() as work:
        models = [noisy_copy(Path(work, f"noise-{sigma}"), sigma) for sigma in NOISE] + ["tiny"]
        spaces = {model: encoded(model, images, ids) for model in models}
        for pool, rows, names in pools(half, truth):
            for question, regret in regrets(rows, names, truth, spaces, Path(work)):
                found.setdefault(question, {}).setdefault(pool, []).append(regret)
    report(found, chosen, len(half))


def report(found: dict[str, dict[str, list[dict[str, float]]]], half: str, n: int) -> None:
    """Write the page."""
    figures: dict[str, float] = {}
    lines = [
        f"The {half} half ({n} digits), seeds {list(SEEDS)}; regret in points against the best "
        "candidate in hindsight, mean and standard deviation over seeds.",
        "",
    ]
    for question, by_pool in found.items():
        ways = list(next(iter(by_pool.values()))[0])
        rows = {
            p: [mean([row[w] for row in measured]) for w in ways] for p, measured in by_pool.items()
        }
        lines += [f"{question} ({len(sets(('a',) * 5)[question])} candidates):", ""]
        lines += table("pool", ways, rows)
        for pool, measured in by_pool.items():
            for way in ways:
                figures[f"{question}, {pool}: {way}"] = statistics.mean(r[way] for r in measured)
    write("selection_digits" if half == "final" else "selection_digits_development", figures, lines)


if __name__ == "__main__":
    main()
