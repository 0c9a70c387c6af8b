"""Broken files that a fuzzer finds by watching which lines they reach; needs atheris.

uv run --with atheris python benchmarks/fuzz_guided.py [--runs 10000] [--only IMAGE ...]

Every reader is a process of its own, which starts from whole files and mutates what reached new
lines of nameonly, Pillow or the YAML reader. What is neither read nor refused by a ValueError that
says why ends the run, and the input is kept. More than 20 s or 2 GB for an input end it too. CI
runs the blind mutations of ``tests/fuzz``; this is for changes to a reader.
"""

import argparse
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS, MEGABYTES = 20, 2048
KINDS = {"PNG": {}, "JPEG": {}, "WEBP": {"lossless": True}, "GIF": {}, "BMP": {}, "TIFF": {}}
CLASSES = {
    "yaml": "templates: ['a {}.']\nclasses:\n  - name: cat\n    descriptions: [soft]\n  - dog\n",
    "json": '{"classes": [{"name": "cat", "prompts": ["a cat"], "parent": "pet"}, "dog"]}',
    "toml": 'classes = ["cat", "dog"]\ntemplates = ["a photo of a {}."]\n',
    "txt": "cat\ndog # a comment\n'horse, grey'\nC#\n",
}


def image(kind: str = "PNG", **options: object) -> bytes:
    """Return a small image's file."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def shard() -> bytes:
    """Return a tar file with two images."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a.png", "b/c.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(image())
            tar.addfile(entry, io.BytesIO(image()))
    return buffer.getvalue()


def arrays(suffix: str) -> bytes:
    """Return a file of features."""
    from safetensors.numpy import save

    features = np.eye(3, 4, dtype=np.float32)
    if suffix == "safetensors":
        return save({"features": features}, {"class_names": '["cat", "dog"]'})
    buffer = io.BytesIO()
    np.savez(buffer, features=features)
    return buffer.getvalue()


def targets(folder: Path) -> dict[str, tuple[Callable[[bytes], object], list[bytes]]]:
    """Return by name how bytes are read, and whole files to start from."""
    from nameonly.backbones.precomputed import read_arrays
    from nameonly.images import load, open_images
    from nameonly.label_space import read_label_space
    from nameonly.label_tables.reading import read_labels
    from nameonly.sources.decoding import decode

    def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def work(data: bytes) -> object:
            (folder / name).write_bytes(data)
            return read(folder / name)

        return work

    def images(path: Path) -> None:
        found, _ = open_images(path)
        for row in range(len(found)):
            load(found, row)

    labels = b"path,label\na.png,cat\nb.png,dog\n"
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(image())
    found: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
        "image": (decode, [image(kind, **options) for kind, options in KINDS.items()]),
        "tar shard": (of_file("a.tar", images), [shard()]),
        "table of labels, CSV": (of_file("labels.csv", read_labels), [labels]),
        "table of images, CSV": (of_file("images.csv", images), [labels]),
    }
    for suffix, text in CLASSES.items():
        read = of_file(f"classes.{suffix}", read_label_space)
        found[f"class file, {suffix}"] = (read, [text.encode()])
    for suffix in ("npz", "safetensors"):
        read = of_file(f"features.{suffix}", read_arrays)
        found[f"features, {suffix}"] = (read, [arrays(suffix)])
    return found


def fuzz(name: str, folder: Path, runs: int) -> None:
    """Be the process that mutates the input of one reader; does not return."""
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["nameonly", "PIL", "yaml"]):
        read, whole = targets(folder)[name]
        read(whole[0])
    seeds = folder / "seeds"
    seeds.mkdir()
    for i, data in enumerate(whole):
        (seeds / str(i)).write_bytes(data)
    counts, tally = os.open(folder / "counts", os.O_CREAT | os.O_WRONLY), [0, 0]

    def one(data: bytes) -> None:
        try:
            read(data)
            tally[0] += 1
        except ValueError as error:
            if not str(error).strip():
                raise
            tally[1] += 1
        os.pwrite(counts, struct.pack("qq", *tally), 0)

    limits = [f"-runs={runs}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-seed=1"]
    more = ["-max_len=8192", "-print_final_stats=1", f"-artifact_prefix={folder}/broken-"]
    atheris.Setup([sys.argv[0], *limits, *more, str(seeds)], one)
    atheris.Fuzz()


def found_by(name: str, runs: int, kept: Path) -> dict[str, int]:
    """Fuzz one reader in a process of its own, and return what it counted."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, __file__, "--runs", str(runs), "--child", name, work]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stderr + done.stdout
        if done.returncode:
            kept.mkdir(exist_ok=True)
            for path in Path(work).glob("broken-*"):
                (kept / f"{name}-{path.name}").write_bytes(path.read_bytes())
            raise SystemExit(f"{name}: {said[-4000:]}\nits input is in {kept}")
        read, refused = struct.unpack("qq", (Path(work) / "counts").read_bytes())
    reached = [int(n) for n in re.findall(r"cov: (\d+)", said)]
    peak = re.search(r"peak_rss_mb:\s+(\d+)", said)
    return {
        "tried": read + refused,
        "read": read,
        "refused": refused,
        "reached at first": reached[0],
        "reached": reached[-1],
        "peak": int(peak.group(1)) if peak else 0,
    }


def main() -> None:
    """Fuzz every reader and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", help="names of readers")
    parser.add_argument("--kept", type=Path, default=Path("broken"), help="for what was found")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        fuzz(asked.child[0], Path(asked.child[1]), asked.runs)
        return
    from results import write

    with tempfile.TemporaryDirectory() as work:
        names = asked.only or list(targets(Path(work)))
    rows = {}
    for name in names:
        rows[name] = found_by(name, asked.runs, asked.kept)
        print(name, json.dumps(rows[name]), flush=True)
    total = {key: sum(row[key] for row in rows.values()) for key in ("tried", "read", "refused")}
    keys = ("tried", "read", "refused", "reached at first", "reached", "peak")
    cells = {name: " | ".join(f"{row[key]:,}" for key in keys) for name, row in rows.items()}
    write(
        "fuzz_guided",
        {key: float(value) for key, value in total.items()},
        [
            f"atheris, seed 1, {asked.runs:,} inputs a reader, none of which crashed, hung for "
            f"{SECONDS} s or took {MEGABYTES:,} MB. Reached: branches of nameonly, Pillow and "
            "the YAML reader that whole files reached, and that all inputs did. Peak: of the whole "
            "process, with its libraries.",
            "",
            "| reader | tried | read | refused | reached at first | reached | peak, MB |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(f"| {name} | {row} |" for name, row in cells.items()),
        ],
    )


if __name__ == "__main__":
    main()
