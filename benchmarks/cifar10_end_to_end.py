"""CIFAR-10's 10,000 test images through a CLIP of real ViT-B/32 shape: run, kill, resume, memory.

uv run python benchmarks/cifar10_end_to_end.py [--limit 1000] [--work DIR]

Weights are random, so no accuracy is reported: this is about running through, resuming after
kill -9 with the same labels, and resident memory. The images are read from shared/data beside the
repository, or from --data.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from random_clip import make
from results import write

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10_test.parquet"
NAMES = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"


def start(model: Path, data: Path, out: Path, cache: Path, limit: int) -> subprocess.Popen[bytes]:
    """Start ``nameonly label`` as a user would."""
    command = [sys.executable, "-m", "nameonly", "label", str(data), "--classes", NAMES]
    command += ["--backbone", str(model), "--out", str(out), "--cache", str(cache)]
    command += ["--limit", str(limit), "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def peak_while_running(
    process: subprocess.Popen[bytes], stop_at: int = 0, cache: Path | None = None
) -> int:
    """Return the peak resident bytes; kill -9 once the store has ``stop_at`` rows, if given."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        peak = max(
            peak,
            *(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line),
            0,
        )
        if stop_at and cache is not None and rows_in(cache) >= stop_at:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0.2)
    return peak


def rows_in(cache: Path) -> int:
    """Return how many image features the store has."""
    indices = (cache / "images").glob("*/*.parquet")
    return sum(pq.ParquetFile(path).metadata.num_rows for path in indices)


def main() -> None:
    """Run whole, run killed and resumed, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    if not options.data.exists():
        sys.exit(f"shared/data is absent: no {options.data.name}; pass --data")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = make(work / "vit-b-32")
        begun = time.perf_counter()
        whole = start(model, options.data, work / "whole", work / "cache-1", options.limit)
        peak = peak_while_running(whole)
        seconds = time.perf_counter() - begun
        killed = start(model, options.data, work / "killed", work / "cache-2", options.limit)
        peak_while_running(killed, options.limit // 3, work / "cache-2")
        kept = rows_in(work / "cache-2")
        resumed = start(model, options.data, work / "killed", work / "cache-2", options.limit)
        peak = max(peak, peak_while_running(resumed))
        summary = json.loads((work / "killed" / "run.json").read_text())
        first = json.loads((work / "whole" / "run.json").read_text())
        a, b = (pq.read_table(work / n / "labels.parquet") for n in ("whole", "killed"))
        same_bytes = a.equals(b)
        changed = sum(
            x != y for x, y in zip(a["label"].to_pylist(), b["label"].to_pylist(), strict=True)
        )
    encode = first["timings"]["encode"]
    n = first["counts"]["images"]
    figures = {
        "n_images": n,
        "seconds_whole_run": seconds,
        "images_per_second_encoding": n / encode,
        "peak_resident_gb": peak / 1e9,
        "rows_kept_by_the_kill": kept,
        "rows_encoded_after_it": summary["counts"]["encoded_now"],
        "labels_changed_by_the_kill": changed,
        "same_table": float(same_bytes),
    }
    write(
        "cifar10_end_to_end",
        figures,
        [
            f"CIFAR-10 test images, CLIP ViT-B/32 shape with random weights, "
            f"{first['backbone']['dtype']}, two cores. No accuracy: the weights are random.",
            "",
            "| | |",
            "| --- | --- |",
            f"| images | {n:,} |",
            f"| whole run, from command to report | {seconds:.0f} s |",
            f"| encoding | {n / encode:.0f} images/s |",
            f"| peak resident memory | {peak / 1e9:.2f} GB |",
            f"| features kept when killed | {kept:,} |",
            f"| encoded by the run after | {summary['counts']['encoded_now']:,} |",
            f"| labels that differ from the whole run | {changed} |",
            f"| `labels.parquet` the same, all probabilities included | {same_bytes} |",
        ],
    )


if __name__ == "__main__":
    main()
