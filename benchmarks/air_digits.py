"""AiR's claim before any training: do synthetic images label real ones, alone and beside the text?

uv run python benchmarks/air_digits.py [--half development] [--most 300] [--device cuda]

Real handwritten digits, of one half (cut once, by id; choices were made on the development half),
split at random into two: one part is adapted to and labelled, without a label. The figures are the
accuracy on that part of the text p, of synthetic prototypes q, and of their mean p*, with the
generator as it is and adapted by a LoRA, for several numbers of images a class; beside them two
controls: the worth of the images, and prototypes of as many pseudo-labelled real images.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from results import device_name, write
from torch import Tensor

from nameonly.adapters.synthetic_prototypes import SyntheticPrototypes
from nameonly.backbones.clip import ClipBackbone
from nameonly.encoding import build_text_classifier, encode_image_set
from nameonly.generating import adapted_to_task, enriched, made_support
from nameonly.images import open_images
from nameonly.prompts.templates import Templates
from nameonly.recipes.air import Air
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.support_set import SupportSet
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.task import Task
from nameonly.tiny.digits import CLASS_NAMES, export, halves, load_digits_images
from nameonly.trust.synthetic import measure
from nameonly.types import LabelSpace

SPACE = LabelSpace(CLASS_NAMES)
SIZES = (20, 60, 120, 150, 300)
WORTH = ("recognised", "distance", "vendi", "coverage", "mmd", "told_apart")


def tasks(rows: np.ndarray, seeds: int, work: Path, device: str) -> list[tuple[Task, Tensor]]:
    """Return a task for every seed, and its truth."""
    folder, _ = export(work / "digits")
    truth = load_digits_images()[1]
    backbone = ClipBackbone("tiny", device=device, dtype="float32")
    cache = work / "cache"
    text = build_text_classifier(Templates().texts(SPACE), SPACE, backbone, cache)
    found = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(rows)
        files = [str(folder / f"digit-{i:04d}.png") for i in order[: len(order) // 2]]
        images, _ = open_images(files)
        features = encode_image_set(images, backbone, cache).features
        first = images.first_rows()
        images = images.subset([first[i] for i in features.ids])
        y = [truth[int(source[-8:-4])] for source in images.sources]
        task = Task(features, text, SPACE, backbone=backbone, images=images, cache=cache)
        found.append((task, torch.tensor(y)))
    return found


def right(logits: Tensor, y: Tensor) -> float:
    """Return accuracy in percent."""
    return 100 * (logits.argmax(dim=1) == y).float().mean().item()


def prototypes_of_real(task: Task, y: Tensor) -> dict[str, float]:
    """Control: the same classifier on the most confident real images of every class."""
    labels = Air().captions.label(task.features, task.start_logits(), SPACE)
    logits = (
        SyntheticPrototypes().fit(task.features, task.text, labels).predict_logits(task.features)
    )
    mixed = replace(task, auxiliary=logits.softmax(dim=1)).start_logits()
    return {"q": right(logits, y), "p*": right(mixed, y)}


def with_images(
    recipe: Air, task: Task, y: Tensor, lora: bool, sizes: list[int]
) -> dict[str, float]:
    """Return accuracies by number of images, and what the largest set is worth."""
    generator = recipe.text_to_image
    if lora:
        generator = adapted_to_task(task, generator, recipe.domain_lora, recipe.captions)
    found = {}
    for size in sorted(sizes, reverse=True):
        settings = SupportSet(images_per_class=size)
        support = made_support(task, recipe.prompt_tricks, generator, settings)
        richer = enriched(task, support, recipe.adapters)
        assert richer.auxiliary is not None and richer.support is not None
        found[f"q {size}"] = right(richer.auxiliary, y)
        found[f"p* {size}"] = right(richer.start_logits(), y)
        if size == max(sizes):
            made = richer.support
            worth = measure(made.features, made.labels, task.text, task.features).all
            found |= {name: float(getattr(worth, name) or 0) for name in WORTH}
    return found


def shown(name: str, values: list[float]) -> str:
    """Return mean and standard deviation: accuracies in percent, shares and distances as such."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 3 if name.split(": ")[-1] in WORTH else 1
    return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"


def recipe_of(args: argparse.Namespace) -> Air:
    """Return the recipe with the settings of the command line."""
    device = args.device
    schedule = replace(DomainLora().schedule, epochs=args.epochs, learning_rate=args.rate)
    tricks = PromptTricks(
        tuple(args.tricks.split(",")),
        template=args.template,
        domains=tuple(args.domains.split(",")),
        domain_template="a {} {}",
        guidance_scale=args.guidance,
    )
    return replace(
        Air(),
        prompt_tricks=tricks,
        text_to_image=TextToImage(
            "tiny", steps=20, batch_size=250, dtype="bfloat16", device=device, image_format="png"
        ),
        domain_lora=DomainLora(
            template=args.template, flip=False, schedule=schedule, dtype="float32", device=device
        ),
        adapters=SyntheticPrototypes(args.stand, args.unit),
        captions=replace(Air().captions, images_per_class=args.captions),
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=("development", "final"), default="final")
    parser.add_argument("--most", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--template", default="an image of a {}")
    parser.add_argument("--tricks", default="base")
    parser.add_argument("--domains", default="bold,thin,hand-drawn,blurred,wobbly")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--stand", type=int, default=16)
    parser.add_argument("--captions", type=int, default=16)
    parser.add_argument("--unit", action="store_true")
    parser.add_argument("--no-lora", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--work", type=Path, default=Path("runs/air_digits"))
    parser.add_argument("--write", action="store_true", help="write the results page")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(2)
    recipe = recipe_of(args)
    sizes = [size for size in SIZES if size <= args.most]
    rows = halves()[0 if args.half == "development" else 1]
    found: dict[str, list[float]] = {}
    for task, y in tasks(rows, args.seeds, args.work, args.device):
        figures = {"p": right(task.start_logits(), y)}
        figures |= {f"real: {k}": v for k, v in prototypes_of_real(task, y).items()}
        for lora in (False,) if args.no_lora else (False, True):
            kind = "LoRA" if lora else "as it is"
            for name, value in with_images(recipe, task, y, lora, sizes).items():
                figures[f"{kind}: {name}"] = value
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
        print({k: round(v, 1) for k, v in figures.items()}, flush=True)
    lines = [f"{device_name(args.device)}.", "", "| | mean ± sd |", "| --- | ---: |"]
    lines += [f"| {name} | {shown(name, values)} |" for name, values in found.items()]
    if args.write:
        means = {name: statistics.mean(values) for name, values in found.items()}
        half = "_development" if args.half == "development" else ""
        device = "_cuda" if args.device == "cuda" else ""
        write(f"air_digits{half}{device}", means, lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
