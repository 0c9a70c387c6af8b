"""MA-ZSC on the digits: do diverse synthetic images train networks that know real handwriting?

uv run python benchmarks/ma_zsc_digits.py [--device cuda] [--jobs 8] [--write]

A call that was stopped goes on where it was.

Five small architectures from scratch on 150 synthetic images a class of the bundled text-to-image
model, made by each trick, three seeds; tested on half of the final half of the handwritten digits
(cut once by seed). Beside them the bundled CLIP's zero-shot, and two controls: the same networks on
the other half of these digits under the labels of that zero-shot, and on both together. The recipe
is the modern one at one setting for all: batches of 32, and crops that show the whole image, chosen
on the development half (see docs/training.md). Networks, side and epochs are what two cores can do;
larger networks at 64 pixels had been tried before, in part, on the same test images.
"""

import argparse
import hashlib
import json
import multiprocessing
import statistics
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import device_name, write

from nameonly import methods
from nameonly.backbones.clip import ClipBackbone
from nameonly.encoding import build_text_classifier, features_in_order
from nameonly.images import load, open_images
from nameonly.ops.labelling import hard_candidates
from nameonly.prompts.templates import Templates
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.synthetic import read_synthetic
from nameonly.tiny.digits import CLASS_NAMES, export, halves, load_digits_images
from nameonly.training.image_classifier import MODERN, ImageClassifier
from nameonly.training_job import Lesson, joined
from nameonly.types import LabelSpace, PseudoLabels

SPACE = LabelSpace(CLASS_NAMES)
TRICKS = ("base", "class_prompt", "multi_domain", "random_guidance", "merged")
SOURCES = (*TRICKS, "real", "merged + real")
# of each family one of 0.3 to 0.6 million weights; patches of 8 pixels leave 16 of them
NETWORKS: dict[str, dict[str, Any]] = {
    "test_resnet": {},
    "mobilenetv3_small_050": {},
    "test_vit": {"patch_size": 8},
    "test_convnext": {},
    "test_efficientnet": {},
}
SIZE, PER_CLASS = 32, 150
TRAINED: dict[str, Any] = {"size": SIZE, "least_area": 1.0, "schedule.batch_size": 32}
STYLES = ("bold", "thin", "hand-drawn", "blurred", "wobbly")


def tricks(name: str, seed: int) -> PromptTricks:
    """Return a trick with the words that the bundled model knows."""
    return PromptTricks(
        (name,),
        template="a photo of a {}.",
        domains=STYLES,
        domain_template="a {} {}",
        seed=seed,
    )


def make(job: tuple[Path, str, int, str]) -> None:
    """Make the synthetic images of a trick and a seed that are not there yet."""
    work, name, seed, device = job
    torch.set_num_threads(1)
    generator = TextToImage("tiny", steps=20, batch_size=250, device=device, image_format="png")
    requests = tricks(name, seed).requests(SPACE, PER_CLASS)
    generator.generate(requests, work / f"{name}-{seed}")


def digits(work: Path, seed: int) -> tuple[Lesson, list[Any], torch.Tensor, float]:
    """Return half of the final half under zero-shot labels, and the other half with its truth."""
    order = np.random.default_rng(seed).permutation(halves()[1])
    truth, images = load_digits_images()[1], []
    for rows in (order[: len(order) // 2], order[len(order) // 2 :]):
        images.append(
            open_images([str(work / "digits" / "images" / f"digit-{i:04d}.png") for i in rows])[0]
        )
    backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
    cache = work / f"cache-{seed}"
    text = build_text_classifier(Templates().texts(SPACE), SPACE, backbone, cache)
    pool, test = (features_in_order(one, backbone, cache) for one in images)
    probs = text.predict_logits(pool).softmax(dim=1)
    candidates = hard_candidates(probs.argmax(dim=1), len(SPACE))
    labels = PseudoLabels(pool.ids, probs, candidates, probs.amax(dim=1))
    y = torch.tensor([truth[int(source[-8:-4])] for source in images[1].sources])
    zero_shot = 100 * (text.predict_logits(test).argmax(dim=1) == y).float().mean().item()
    pictures = [load(images[1], row) for row in range(len(images[1]))]
    return Lesson(images[0], labels, CLASS_NAMES, 0), pictures, y, zero_shot


def drawn(work: Path, name: str, seed: int) -> Lesson:
    """Return a trick's images."""
    made, _ = read_synthetic(work / f"{name}-{seed}")
    candidates = hard_candidates(made.labels(SPACE), len(SPACE))
    labels = PseudoLabels(made.images.ids, candidates.float(), candidates, torch.ones(len(made)))
    return Lesson(made.images, labels, CLASS_NAMES, len(made))


def accuracy(job: tuple[Path, str, str, int, str, int]) -> tuple[str, str, int, float, float]:
    """Train one network on one source of images; return its accuracy and zero-shot's."""
    work, network, source, seed, device, epochs = job
    torch.set_num_threads(1)
    real, pictures, y, zero_shot = digits(work, seed)
    lesson = real if source == "real" else drawn(work, source.split(" ")[0], seed)
    if source == "merged + real":
        lesson = joined([lesson, real])
    settings = MODERN | TRAINED | {"architecture": network, "schedule.epochs": epochs}
    trainer: ImageClassifier = methods.reconfigure(ImageClassifier(), settings)
    trainer = replace(
        trainer, options=NETWORKS[network], flip=False, seed=seed, device=device, dtype="float32"
    )
    trainer.fit(lesson.images, lesson.labels, CLASS_NAMES)
    found = trainer.backbone_.encode_images(pictures).argmax(dim=1) == y
    return network, source, seed, 100 * found.float().mean().item(), zero_shot


def finished(
    jobs: list[tuple[Path, str, str, int, str, int]], processes: int, path: Path
) -> list[tuple[str, str, int, float, float]]:
    """Return what all jobs gave; those that an earlier call finished are in its file."""
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    facts = json.dumps([NETWORKS, SIZE, PER_CLASS, TRAINED, MODERN], default=str)
    mark = hashlib.sha256(facts.encode()).hexdigest()[:16]
    wanted = {(*job[1:4], job[5], mark): job for job in jobs}
    done = {tuple(line["job"]): tuple(line["result"]) for line in lines}
    left = [job for key, job in wanted.items() if key not in done]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for result in pool.imap_unordered(accuracy, left):
            network, source, seed, value, text = result
            key = (network, source, seed, jobs[0][5], mark)
            with path.open("a") as file:
                file.write(json.dumps({"job": key, "result": result}) + "\n")
            done[key] = result
            print(f"{network} | {source} | {seed} | {value:.1f} (zero-shot {text:.1f})", flush=True)
    return [done[key] for key in wanted]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--work", type=Path, default=Path("runs/ma_zsc_digits"))
    parser.add_argument("--write", action="store_true", help="write the results page")
    args = parser.parse_args()
    export(args.work / "digits")
    folders = [(args.work, *job, args.device) for job in product(TRICKS, range(args.seeds))]
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        pool.map(make, folders, chunksize=1)
    for seed in range(args.seeds):
        digits(args.work, seed)
    networks = args.networks.split(",")
    jobs = [
        (args.work, network, source, seed, args.device, args.epochs)
        for seed, network, source in product(range(args.seeds), networks, SOURCES)
    ]
    found: dict[tuple[str, str], list[float]] = {}
    zero_shot: dict[int, float] = {}
    for network, source, seed, value, text in finished(jobs, args.jobs, args.work / "found.jsonl"):
        found.setdefault((network, source), []).append(value)
        zero_shot[seed] = text

    def shown(values: list[float]) -> str:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.1f} ± {spread:.1f}"

    lines = [
        f"{device_name(args.device)}. Accuracy in percent, mean ± standard deviation over "
        f"{args.seeds} seeds. Zero-shot of the bundled CLIP: {shown(list(zero_shot.values()))}.",
        "",
        "| | " + " | ".join(SOURCES) + " |",
        "| --- |" + " ---: |" * len(SOURCES),
    ]
    for network in networks:
        cells = [shown(found[network, source]) for source in SOURCES]
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    figures = {f"{n}, {s}": statistics.mean(v) for (n, s), v in found.items()}
    figures["zero-shot"] = statistics.mean(zero_shot.values())
    if args.write:
        write("ma_zsc_digits", figures, lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
