"""Training a network against a plain loop of timm on the same images: images a second, one run.

uv run python benchmarks/speed_training.py [--device cuda] [--epochs 3] [--write]

Both train the same architectures on the same JPEGs (random pictures of 256 x 256 that the program
makes) with the same batches, crops, flips and optimiser. The plain loop is timm's dataset, loader
and optimiser around ten lines, at the better of no and two workers. Ours decodes once, into a file,
which counts. Epochs of both alternate; told are all epochs together and the last one alone.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import timm
import torch
from PIL import Image
from results import device_name, write
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from torch import nn

from nameonly.images import open_images
from nameonly.loop import Schedule
from nameonly.ops.labelling import hard_candidates
from nameonly.training.image_classifier import ImageClassifier
from nameonly.types import PseudoLabels

CASES = (("resnet10t", 64, 2000), ("mobilenetv3_small_050", 128, 1000), ("resnet18", 224, 400))
CLASSES, BATCH, RATE, DECAY = 4, 64, 1e-3, 0.05


def pictures(folder: Path, n: int) -> None:
    """Write pictures that compress as photographs do, in a folder a class."""
    generator = np.random.default_rng(0)
    for i in range(n):
        small = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)
        place = folder / f"class-{i % CLASSES}" / f"{i:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place, quality=90)


def timed(work: Callable[[list[float]], None]) -> list[float]:
    """Return the seconds of every epoch, the first from before anything was read."""
    ends: list[float] = [time.perf_counter()]
    work(ends)
    return [b - a for a, b in itertools.pairwise(ends)]


def plain(
    architecture: str, size: int, folder: Path, epochs: int, device: str, workers: int
) -> list[float]:
    """Train as timm is used by hand."""

    def work(ends: list[float]) -> None:
        network = timm.create_model(architecture, num_classes=CLASSES).to(device).train()
        loader = create_loader(
            create_dataset("", str(folder)),
            (3, size, size),
            BATCH,
            is_training=True,
            use_prefetcher=False,
            color_jitter=None,
            interpolation="bilinear",
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        optimiser = create_optimizer_v2(network, "adamw", RATE, DECAY, filter_bias_and_bn=False)
        criterion = nn.CrossEntropyLoss()
        for _ in range(epochs):
            for images, labels in loader:
                optimiser.zero_grad()
                loss = criterion(network(images.to(device)), labels.to(device))
                loss.backward()
                optimiser.step()
                if not np.isfinite(loss.item()):
                    raise FloatingPointError("the loss is not finite")
            ends.append(time.perf_counter())

    return timed(work)


def ours(architecture: str, size: int, folder: Path, epochs: int, device: str) -> list[float]:
    """Train by the library."""

    def work(ends: list[float]) -> None:
        images, _ = open_images(folder)
        labels = torch.tensor([int(source.split("/")[0][-1]) for source in images.sources])
        candidates = hard_candidates(labels, CLASSES)
        shown = PseudoLabels(images.ids, candidates.float(), candidates, torch.ones(len(images)))
        schedule = Schedule(epochs, BATCH, RATE, weight_decay=DECAY)
        classifier = ImageClassifier(
            architecture, size=size, schedule=schedule, device=device, dtype="float32"
        )
        names = [f"class-{i}" for i in range(CLASSES)]
        classifier.fit(images, shown, names, on_epoch=lambda *_: ends.append(time.perf_counter()))

    return timed(work)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the results page")
    args = parser.parse_args()
    torch.set_num_threads(2)
    figures: dict[str, float] = {}
    lines = [
        f"{device_name(args.device)}, timm {timm.__version__}. Images a second over {args.epochs} "
        "epochs from bare files, and in the last of them; medians of "
        f"{args.repetitions} repetitions, in turn.",
        "",
        "| network, size, images | ours | timm | times as fast | ours, last | timm, last | times |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for architecture, size, n in CASES:
        with TemporaryDirectory() as place:
            folder = Path(place)
            pictures(folder, n)
            setting = (architecture, size, folder, args.epochs, args.device)
            kinds: dict[str, Callable[[], list[float]]] = {
                "ours": lambda s=setting: ours(*s),
                "0 workers": lambda s=setting: plain(*s, 0),
                "2 workers": lambda s=setting: plain(*s, 2),
            }
            found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
            for _ in range(args.repetitions):
                for kind, work in kinds.items():
                    found[kind].append(work())
        whole = {
            kind: args.epochs * n / statistics.median(map(sum, times))
            for kind, times in found.items()
        }
        last = {k: n / statistics.median(t[-1] for t in times) for k, times in found.items()}
        peer, peer_last = (max(v["0 workers"], v["2 workers"]) for v in (whole, last))
        name = f"{architecture}, {size}, {n}"
        figures |= {name: whole["ours"] / peer, f"{name}, last": last["ours"] / peer_last}
        lines.append(
            f"| {name} | {whole['ours']:.0f} | {peer:.0f} | {whole['ours'] / peer:.2f} | "
            f"{last['ours']:.0f} | {peer_last:.0f} | {last['ours'] / peer_last:.2f} |"
        )
        print(lines[-1], flush=True)
    if args.write:
        write("speed_training" + ("" if args.device == "cpu" else "_cuda"), figures, lines)


if __name__ == "__main__":
    main()
