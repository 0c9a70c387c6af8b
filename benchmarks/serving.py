"""Images a second of `nameonly serve` against a bare loop of the same model, in one run.

uv run python benchmarks/serving.py [--requests 3000] [--write]

Needs wrk (a load generator in C, so that the client takes nearly nothing of the machine): each of
its connections posts one JPEG of a form, waits for the answer and posts the next. The bare loop
decodes the same JPEGs, preprocesses them and calls the model in batches of the same size; a second
bare loop does the first two in as many threads as the server. All take turns after one round that
is not counted; a round of the server lasts about as long as the bare loop needs for as many images.
The CLIP has the shape of ViT-B/32 and random weights.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import random_clip
import torch
from PIL import Image
from results import device_name, write

from nameonly.classifier import Classifier, load, open_backbone
from nameonly.decisions.argmax import Argmax
from nameonly.sources.decoding import decode
from nameonly.types import Features, LabelSpace, TextClassifier

PICTURES, CLASSES, BATCH, DECODERS = 64, 10, 32, 2
CONNECTIONS = (2 * BATCH, 8, 1)
LOAD = """
local bodies, turn = {}, 0
init = function(args)
  for _, path in ipairs(args) do
    local file = io.open(path, "rb")
    local head = '--b\\r\\nContent-Disposition: form-data; name="files"; filename="a.jpg"'
    bodies[#bodies + 1] = head .. "\\r\\n\\r\\n" .. file:read("*a") .. "\\r\\n--b--\\r\\n"
    file:close()
  end
end
request = function()
  turn = turn % #bodies + 1
  local headers = { ["Content-Type"] = "multipart/form-data; boundary=b" }
  return wrk.format("POST", "/predict", headers, bodies[turn])
end
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format("FOUND %d %d %d %d %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def pictures(folder: Path) -> list[Path]:
    """Write JPEGs of 640 x 480 that compress as photographs do."""
    generator = np.random.default_rng(0)
    paths = []
    for i in range(PICTURES):
        small = generator.integers(0, 256, (36, 48, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC)
        paths.append(folder / f"{i:02d}.jpg")
        image.save(paths[-1], quality=90)
    return paths


def classifier(model: str, folder: Path) -> Classifier:
    """Save and load a zero-shot classifier with random text weights."""
    backbone = open_backbone(model, device="cpu", dtype="float32", batch_size=BATCH)
    weights = torch.nn.functional.normalize(torch.randn(CLASSES, backbone.dim), dim=1)
    names = tuple(f"class {i}" for i in range(CLASSES))
    text = TextClassifier(weights, 100.0, names)
    Classifier(backbone, text, Argmax(), LabelSpace(names)).save(folder)
    return load(folder, device="cpu", batch_size=BATCH)


def bare(found: Classifier, datas: list[bytes]) -> float:
    """Return images a second of a plain loop."""
    begun = time.perf_counter()
    for start in range(0, len(datas), BATCH):
        found.predict([decode(data) for data in datas[start : start + BATCH]])
    return len(datas) / (time.perf_counter() - begun)


def bare_with_threads(found: Classifier, datas: list[bytes]) -> float:
    """Return images a second of a loop that decodes and preprocesses in threads, batch by batch."""

    def pixels(data: bytes) -> torch.Tensor:
        return found.backbone.preprocess(decode(data))

    begun = time.perf_counter()
    with ThreadPoolExecutor(DECODERS) as pool, torch.inference_mode():
        for start in range(0, len(datas), BATCH):
            rows = list(pool.map(pixels, datas[start : start + BATCH]))
            values = found.backbone.encode_pixels(torch.stack(rows))
            found.predict(Features(values, tuple(map(str, range(len(rows)))), found.backbone.name))
    return len(datas) / (time.perf_counter() - begun)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run `nameonly serve` and give its address."""
    command = [sys.executable, "-m", "nameonly", "serve", str(folder), "--port", "0"]
    command += ["--batch-size", str(BATCH), "--threads", str(DECODERS), "--device", "cpu"]
    # a loaded machine is no reason for errors
    command += ["--timeout", "300"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(command, stderr=said, env=environment)
        try:
            while not (found := re.search("(http://.*)/predict", (folder / "said").read_text())):
                if process.poll() is not None:
                    raise RuntimeError((folder / "said").read_text())
                time.sleep(0.1)
            yield found[1]
        finally:
            process.terminate()
            process.wait()


def served(
    base: str, script: Path, paths: list[Path], connections: int, seconds: float
) -> tuple[float, float, float]:
    """Return images a second, and the median and the 99th percentile of latency in ms."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "300s",
    ]
    command += ["-s", str(script), base, "--", *map(str, paths)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"FOUND (\d+) (\d+) (\d+) (\d+) (\d+)", said)
    if found is None or int(found[5]) or not int(found[1]):
        raise RuntimeError(f"the load generator met errors: {said}")
    n, duration, median, late, _ = map(int, found.groups())
    return n / duration * 1e6, median / 1000, late / 1000


def metric(base: str, name: str) -> float:
    """Return one of the server's figures."""
    text = httpx.get(f"{base}/metrics").text
    return float(re.findall(rf"^{name} (\S+)$", text, re.M)[0])


@dataclass
class Rounds:
    """What was found round by round.

    Attributes:
        speeds: Images a second.
        cpu: Milliseconds of the processors an image, of all threads.
        latencies: Median and 99th percentile in ms, of the last round.
    """

    speeds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    latencies: tuple[float, float] | None = None

    def add_loop(self, loop: Callable[[], float], n: int) -> float:
        """Run a loop over n images in this process."""
        begun = time.process_time()
        self.speeds.append(loop())
        self.cpu.append((time.process_time() - begun) / n * 1000)
        return self.speeds[-1]

    def add_server(self, base: str, load: Callable[[], tuple[float, float, float]]) -> None:
        """Put a load on the server."""
        names = ("process_cpu_seconds_total", "nameonly_batch_images_sum")
        before = [metric(base, name) for name in names]
        speed, *latencies = load()
        seconds, n = (metric(base, name) - old for name, old in zip(names, before, strict=True))
        self.speeds.append(speed)
        self.cpu.append(seconds / n * 1000)
        self.latencies = (latencies[0], latencies[1])


def measure(
    name: str, found: Classifier, folder: Path, args: argparse.Namespace
) -> tuple[dict[str, float], list[str]]:
    """Measure one model; return its figures and rows."""
    paths = pictures(folder)
    datas = [path.read_bytes() for path in paths]
    datas = (datas * (args.requests // PICTURES + 1))[: args.requests]
    script = folder / "load.lua"
    script.write_text(LOAD)
    plain, threaded = Rounds(), Rounds()
    asked = {connections: Rounds() for connections in CONNECTIONS}
    with server(folder) as base:
        first = bare(found, datas[: 2 * BATCH])
        served(base, script, paths, CONNECTIONS[0], 5 + 2 * CONNECTIONS[0] / first)
        for _ in range(args.repetitions):
            speed = plain.add_loop(lambda: bare(found, datas), len(datas))
            threaded.add_loop(lambda: bare_with_threads(found, datas), len(datas))
            # long enough for a few rounds of all connections
            seconds = max(args.requests, 4 * CONNECTIONS[0]) / speed
            for n, rounds in asked.items():
                rounds.add_server(base, partial(served, base, script, paths, n, seconds))
        mean = metric(base, "nameonly_batch_images_sum") / metric(
            base, "nameonly_batch_images_count"
        )
    kinds = {"bare loop": plain, "bare loop, threads": threaded}
    kinds |= {f"served, {n} clients": rounds for n, rounds in asked.items()}
    figures, rows = {f"{name}, mean batch": mean}, []
    for kind, rounds in kinds.items():
        speed, cpu = statistics.median(rounds.speeds), statistics.median(rounds.cpu)
        against = [speed / statistics.median(one.speeds) for one in (plain, threaded)]
        figures |= {f"{name}, {kind}": speed, f"{name}, {kind}, cpu ms": cpu}
        figures[f"{name}, {kind}, of the bare loop"] = against[0]
        times = "{:.0f} | {:.0f}".format(*rounds.latencies) if rounds.latencies else "- | -"
        rows.append(
            f"| {name} | {kind} | {speed:.1f} | {against[0]:.2f} | {against[1]:.2f} | {cpu:.1f} | "
            f"{times} |"
        )
    return figures, rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of torch, in all of them")
    parser.add_argument("--models", nargs="+", default=["tiny", "ViT-B/32"])
    parser.add_argument("--clip", type=Path, help="folder to make or find the random CLIP in")
    parser.add_argument("--write", action="store_true", help="write the results page")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is needed: apt-get install wrk")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    figures: dict[str, float] = {}
    lines = [
        f"{device_name('cpu')}; batches of {BATCH}, {DECODERS} threads that decode; JPEGs of "
        f"640 x 480, one a request; {args.requests} images, medians of {args.repetitions} rounds "
        "in turn, latencies of the last.",
        "",
        "| model | | images/s | of the bare loop | of the one with threads | CPU ms an image "
        "| median ms | 99 % ms |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in args.models:
        with TemporaryDirectory() as place:
            folder = Path(place)
            weights = args.clip or folder / "clip"
            model = "tiny" if name == "tiny" else str(random_clip.make(weights))
            found, rows = measure(name, classifier(model, folder), folder, args)
        figures |= found
        lines += rows
        print(*rows, sep="\n", flush=True)
    if args.write:
        write("serving", figures, lines)


if __name__ == "__main__":
    main()
