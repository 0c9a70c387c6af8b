"""How memory, time and disk grow with the number of images and of classes.

uv run python benchmarks/growth.py [--cases NAME ...] [--sizes N ...] [--images N ...]
    [--classes C ...] [--whole N ...] [--recipes NAME ...] [--name NAME]

Every line is measured in a process of its own, a fork of one that has imported all and computed
nothing. It first does the same with 200 images: what it holds then, with libraries and model
loaded, is "the model's own" memory, and what is told is the peak above it. Two peaks are told:
memory of the process alone, and all that is resident, which counts the pages of mapped files too;
those the system takes back whenever another program needs room. Seconds are those of the stages as
``run.json`` tells them, and those of the processor in all, which other programs change less.

own: 512 dimensions around 10 centres, in a file of features of one's own. store: the same from the
cache of features that an earlier run has filled. predict: a saved classifier on a file of features.
images: JPEGs of 32 x 32 pixels in tar shards through the bundled model, then again from the cache.
classes: 1,000 images among so many names with the bundled model. some: such a file of features
around 1,000 centres, learnt from 20,000 of its images (``--adapt-on``). predict-many: a saved
classifier of these classes on it. whole: the same learnt from all at once.
"""

import argparse
import io
import json
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.cluster  # noqa: F401 - few images need it not, many do: its import is no growth
import torch
from PIL import Image
from results import device_name, write
from torch.nn.functional import normalize

from nameonly import jobs, methods
from nameonly.backbones.precomputed import PrecomputedBackbone
from nameonly.bench.memory import PeakMemory
from nameonly.journal import Journal
from nameonly.label_space import read_label_space
from nameonly.pipeline import Inputs, adapt
from nameonly.preparation import Setup
from nameonly.store import FeatureStore
from nameonly.types import Features

SEED, WIDTH, CENTRES, FEW = 0, 512, 10, 200
MANY, SOME = 1_000, 20_000
ROWS_AT_ONCE = 50_000
SCATTER = 0.5
SHARD = 10_000
KEY = {"backbone": "growth", "revision": str(SEED)}
NAMES = tuple(f"class {j}" for j in range(MANY))
RECIPES = ("up_adapter", "zero_shot")


def blocks(n: int, c: int = CENTRES) -> Iterator[np.ndarray]:
    """Yield unit rows around centres, in blocks."""
    generator = torch.Generator().manual_seed(SEED)
    centres = normalize(torch.randn(c, WIDTH, generator=generator), dim=1)
    for start in range(0, n, ROWS_AT_ONCE):
        rows = torch.randn(min(ROWS_AT_ONCE, n - start), WIDTH, generator=generator)
        drawn = torch.randint(c, (len(rows),), generator=generator)
        yield normalize(centres[drawn] + SCATTER * normalize(rows, dim=1), dim=1).numpy()


def text_weights(c: int) -> np.ndarray:
    """Return unit text weights, each a little off its centre."""
    generator = torch.Generator().manual_seed(SEED)
    centres = normalize(torch.randn(c, WIDTH, generator=generator), dim=1)
    aside = torch.randn(c, WIDTH, generator=generator)
    return normalize(centres + normalize(aside, dim=1), dim=1).numpy()


def write_features(path: Path, n: int, c: int = CENTRES) -> Path:
    """Write a safetensors file of n rows, block by block."""
    sizes = {"features": n, "text_weights": c}
    header, end = {}, 0
    for name, rows in sizes.items():
        begin, end = end, end + rows * WIDTH * 4
        header[name] = {"dtype": "F32", "shape": [rows, WIDTH], "data_offsets": [begin, end]}
    text = json.dumps({**header, "__metadata__": {"class_names": json.dumps(NAMES[:c])}}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for rows in blocks(n, c):
            file.write(rows.tobytes())
        file.write(text_weights(c).tobytes())
    return path


def write_store(folder: Path, n: int) -> FeatureStore:
    """Fill a store as encoding would: shards in order of id."""
    store = FeatureStore(folder, KEY)
    start = 0
    for rows in blocks(n):
        for part in np.split(rows, range(4096, len(rows), 4096)):
            store.add([f"{start + i:032x}" for i in range(len(part))], torch.from_numpy(part))
            start += len(part)
    return store


def write_images(folder: Path, n: int) -> Path:
    """Write JPEGs of noise over a few colours into tar shards."""
    folder.mkdir()
    generator = np.random.default_rng(SEED)
    for start in range(0, n, SHARD):
        with tarfile.open(folder / f"{start // SHARD:04d}.tar", "w") as tar:
            for i in range(start, min(n, start + SHARD)):
                coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(coarse).resize((32, 32)).save(buffer, "JPEG")
                entry = tarfile.TarInfo(f"{i:07d}.jpg")
                entry.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(entry, buffer)
    return folder


def folder_bytes(folder: Path) -> int:
    """Return what the files of a folder take, blocks that were never written not counted."""
    return sum(512 * p.stat().st_blocks for p in folder.rglob("*") if p.is_file())


class OwnMemory(threading.Thread):
    """Looks every few milliseconds at what the process alone holds.

    Attributes:
        most: The most megabytes seen.
    """

    def __init__(self) -> None:
        """Look once; ``start`` goes on."""
        super().__init__(daemon=True)
        self.most = self.now()
        self.over = threading.Event()

    @staticmethod
    def now() -> float:
        """Return megabytes that are no file's."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024

    def run(self) -> None:
        """Look until it is over."""
        while not self.over.wait(0.005):
            self.most = max(self.most, self.now())


def measured(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return what some work tells, its seconds and its peaks over what is held before."""
    own, resident = OwnMemory(), PeakMemory()
    before, begun, computed = own.most, time.perf_counter(), time.process_time()
    own.start()
    found = work()
    seconds, computed = time.perf_counter() - begun, time.process_time() - computed
    own.over.set()
    peak, start = resident.peak(), resident.before
    assert peak is not None and start is not None, "this benchmark needs Linux"
    return {
        "total": seconds,
        "of processor": computed,
        "own MB": own.most - before,
        "resident MB": (peak - start) * 1e6 / 2**20,
        "before MB": start * 1e6 / 2**20,
        **found,
    }


def told(run: jobs.Run) -> dict[str, float]:
    """Return the stages' seconds and the size of the page."""
    assert run.out is not None
    page = (run.out / "report.html").stat().st_size / 2**20
    return {**run.summary["timings"], "report MB": page}


def label_own(folder: Path, n: int, recipe: str, adapt_on: int | None = None) -> dict[str, float]:
    """Label a file of features."""
    few, many = folder / "few.safetensors", folder / "many.safetensors"
    options: Any = {"recipe": recipe, "cache": folder / "cache", "adapt_on": adapt_on}
    jobs.label(few, out=folder / "out-few", **options)
    return measured(lambda: told(jobs.label(many, out=folder / "out", **options)))


def read_store(folder: Path, n: int) -> Features:
    """Read all rows of a store, as encoding does where nothing is missing."""
    store = FeatureStore(folder, KEY)
    ids = tuple(f"{i:032x}" for i in range(n))
    assert not store.missing(ids)
    return Features(store.get(ids), ids, f"precomputed-{WIDTH}")


def label_stored(folder: Path, n: int, recipe: str) -> dict[str, float]:
    """Label what a store holds."""

    def work(stored: Path, count: int, out: Path) -> dict[str, float]:
        backbone = PrecomputedBackbone(str(folder / "few.safetensors"))
        space = read_label_space(NAMES[:CENTRES])
        setup = Setup(backbone, space, methods.build_recipe(recipe), folder / "cache", None, ())
        journal, facts = Journal(), {"command": "label", "recipe": recipe}
        with jobs.outputs.staging(out) as partial, ExitStack() as kept:
            with journal.stage("read"):
                inputs = Inputs(read_store(stored, count), None, ())
            run = jobs._finish(adapt(inputs, setup, journal, facts, kept), facts, journal, partial)
        return told(replace(run, out=out))

    work(folder / "few", FEW, folder / "out-few")
    return measured(lambda: work(folder / "many", n, folder / "out"))


def predict_own(folder: Path, n: int, recipe: str) -> dict[str, float]:
    """Label a file of features with a saved classifier."""
    few, many, made = (folder / name for name in ("few.safetensors", "many.safetensors", "made"))
    jobs.label(few, recipe=recipe, out=made, cache=folder / "cache")
    jobs.predict(made, few, out=folder / "out-few", cache=folder / "cache")
    return measured(
        lambda: told(jobs.predict(made, many, out=folder / "out", cache=folder / "cache"))
    )


def label_images(folder: Path, n: int, recipe: str) -> dict[str, float]:
    """Label images with the bundled model; with the cache filled, for the second time."""
    options: Any = {"recipe": recipe, "backbone": "tiny", "cache": folder / "cache"}
    few = folder / "few"
    jobs.label(few, NAMES[:CENTRES], out=folder / "out-few", overwrite=True, **options)
    out = folder / "out"
    return measured(lambda: told(jobs.label(folder / "many", NAMES[:CENTRES], out=out, **options)))


def label_classes(folder: Path, n: int, recipe: str) -> dict[str, float]:
    """Label a thousand images among n names with the bundled model."""
    names = [f"thing {j}" for j in range(n)]
    options: Any = {"recipe": recipe, "backbone": "tiny", "cache": folder / "cache"}
    jobs.label(folder / "few", NAMES[:CENTRES], out=folder / "out-few", **options)
    return measured(lambda: told(jobs.label(folder / "many", names, out=folder / "out", **options)))


def make_features(folder: Path, n: int) -> None:
    """Write a small and a large file of features."""
    write_features(folder / "few.safetensors", FEW)
    write_features(folder / "many.safetensors", n)


def make_wide(folder: Path, n: int) -> None:
    """Write a small and a large file of features among many classes."""
    write_features(folder / "few.safetensors", FEW, MANY)
    write_features(folder / "many.safetensors", n, MANY)


def make_stores(folder: Path, n: int) -> None:
    """Write a small and a large store, and text weights."""
    write_features(folder / "few.safetensors", FEW)
    write_store(folder / "few", FEW)
    write_store(folder / "many", n)


def make_images(folder: Path, n: int) -> None:
    """Write a few and many images."""
    write_images(folder / "few", FEW)
    write_images(folder / "many", n)


def make_thousand_images(folder: Path, n: int) -> None:
    """Write images for the case whose size is the number of classes."""
    make_images(folder, 1_000)


MAKE: dict[str, Callable[[Path, int], None]] = {
    "store": make_stores,
    "own": make_features,
    "predict": make_features,
    "classes": make_thousand_images,
    "images": make_images,
    "some": make_wide,
    "whole": make_wide,
    "predict-many": make_wide,
}
MEASURE: dict[str, Callable[[Path, int, str], dict[str, float]]] = {
    "own": label_own,
    "store": label_stored,
    "predict": predict_own,
    "images": label_images,
    "classes": label_classes,
    "some": partial(label_own, adapt_on=SOME),
    "whole": label_own,
    "predict-many": predict_own,
}


def in_its_own_process(step: Callable[..., Any], *arguments: object) -> Any:
    """Make or measure in a fork of this process, which holds the libraries and computes nothing."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(step, *arguments).result()


def measure(case: str, n: int, recipe: str) -> dict[str, dict[str, float]]:
    """Measure one case at one size; images twice, the second time with features that are there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_its_own_process(MAKE[case], folder, n)
        found = {case: in_its_own_process(MEASURE[case], folder, n, recipe)}
        if case == "images":
            (folder / "out").rename(folder / "out-first")
            found["images again"] = in_its_own_process(label_images, folder, n, recipe)
        kept = [folder / "cache", *([folder / "many"] if case == "store" else [])]
        for figures in found.values():
            figures["disk MB"] = sum(map(folder_bytes, kept)) / 2**20
    return found


def table(rows: list[tuple[str, str, int, dict[str, float]]]) -> list[str]:
    """Return the page's tables: memory and disk, and the seconds of every stage."""
    stages = list(dict.fromkeys(key for *_, found in rows for key in found if " MB" not in key))
    stages = sorted(stages, key=lambda stage: stage not in ("total", "of processor"))
    lines = [
        "| case | recipe | size | peak over the model's own, MB | with mapped files, MB | "
        "bytes an image or class | store, MB | report, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case, recipe, n, found in rows:
        each = found["own MB"] * 2**20 / n
        lines.append(
            f"| {case} | {recipe} | {n:,} | {found['own MB']:,.0f} | {found['resident MB']:,.0f} | "
            f"{each:,.0f} | {found['disk MB']:,.1f} | {found['report MB']:.2f} |"
        )
    lines += ["", f"| case | recipe | size | {', s | '.join(stages)}, s |"]
    lines.append("| --- " * (3 + len(stages)) + "|")
    for case, recipe, n, found in rows:
        cells = (f"{found[stage]:,.1f}" if stage in found else "-" for stage in stages)
        lines.append(f"| {case} | {recipe} | {n:,} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", nargs="+", choices=tuple(MAKE), default=list(MAKE)[:5])
    sizes = [1_000, 10_000, 100_000, 1_000_000]
    parser.add_argument("--sizes", nargs="+", type=int, default=sizes)
    parser.add_argument("--images", nargs="+", type=int, default=sizes[:3])
    parser.add_argument("--classes", nargs="+", type=int, default=[1_000, 20_000])
    parser.add_argument("--whole", nargs="+", type=int, default=sizes[:3])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--name", default="growth", help="of the page")
    arguments = parser.parse_args()
    rows: list[tuple[str, str, int, dict[str, float]]] = []
    for case in arguments.cases:
        recipes = arguments.recipes if case in ("own", "store") else arguments.recipes[:1]
        for recipe in recipes:
            for n in getattr(arguments, case, arguments.sizes):
                for name, found in measure(case, n, recipe).items():
                    rows.append((name, recipe, n, found))
                    write_page(arguments.name, rows)  # hours may follow


def write_page(name: str, rows: list[tuple[str, str, int, dict[str, float]]]) -> None:
    """Write what was measured so far."""
    figures = {
        f"{case} {recipe} {n} {key}".replace(" ", "_"): value
        for case, recipe, n, found in rows
        for key, value in found.items()
    }
    write(
        name,
        figures,
        [
            f"Seed {SEED}. {device_name('cpu')}. Features have {WIDTH} dimensions and {CENTRES} "
            f"classes ({MANY:,} in some, whole and predict-many); images are JPEGs of 32 x 32. "
            "Every line is a process of its own. Over the model's own means: over what that "
            f"process held after a run of {FEW} images. Pages "
            "of mapped files are those of the features; the system takes them back when another "
            "program needs room.",
            "",
            *table(rows),
        ],
    )


if __name__ == "__main__":
    main()
