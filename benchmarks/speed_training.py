"""Training a network against a plain loop of timm on the same images: images a second, one run.

uv run python benchmarks/speed_training.py [--device cuda] [--epochs 3] [--write]

Both train the same architectures on the same JPEGs (random pictures of 256 x 256 that the program
makes) with the same batches, random crops, flips and optimiser. The plain loop is timm's dataset,
loader and optimiser around ten lines, at the best of several numbers of workers; on CUDA with its
prefetcher and pinned memory. Its loader drops the last batch that is not full, so its images are
counted as it sees them. Ours decodes once, into a file, at 8/7 of the side of a crop, and cuts the
crops from that; the time for it counts. Repetitions of both alternate after one that is not
counted; told are all epochs together and the last one alone.
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

CASES = (("resnet10t", 64, 960), ("mobilenetv3_small_050", 128, 640), ("resnet18", 160, 128))
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
            use_prefetcher=device == "cuda",
            pin_memory=device == "cuda",
            device=torch.device(device),
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


def speeds(seconds: list[list[float]], n: int) -> tuple[float, float]:
    """Return images a second over all epochs and in the last: medians of repetitions.

    Args:
        seconds: Of every epoch, repetition by repetition; the first one warms up.
        n: Images of an epoch.
    """
    counted = seconds[1:]
    whole = statistics.median(len(times) * n / sum(times) for times in counted)
    return whole, statistics.median(n / times[-1] for times in counted)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the results page")
    args = parser.parse_args()
    torch.set_num_threads(2)
    workers = (0, 2) if args.device == "cpu" else (2, 8, 16)
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
                **{f"{w} workers": lambda s=setting, w=w: plain(*s, w) for w in workers},
            }
            found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
            for _ in range(args.repetitions + 1):
                for kind, work in kinds.items():
                    found[kind].append(work())
        own, own_last = speeds(found.pop("ours"), n)
        peers = [speeds(times, n // BATCH * BATCH) for times in found.values()]
        peer, peer_last = (max(values) for values in zip(*peers, strict=True))
        name = f"{architecture}, {size}, {n}"
        figures |= {name: own / peer, f"{name}, last": own_last / peer_last}
        lines.append(
            f"| {name} | {own:.0f} | {peer:.0f} | {own / peer:.2f} | "
            f"{own_last:.0f} | {peer_last:.0f} | {own_last / peer_last:.2f} |"
        )
        print(lines[-1], flush=True)
    if args.write:
        write("speed_training" + ("" if args.device == "cpu" else "_cuda"), figures, lines)


if __name__ == "__main__":
    main()
