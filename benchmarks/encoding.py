"""Image files to features: nameonly beside plain loops and the limit, ViT-B/32 shape, one run.

uv run python benchmarks/encoding.py [--images 5000] [--large 1000] [--parts 20] [--variants]
    [--name NAME]

Peers are (a) open_clip as its README shows it, one image at a time, and the same in batches,
(b) the zero-shot pipeline of transformers, and (c) the reader of clip-retrieval with its own
settings, where it is installed, before the same open_clip model. Each is beside nameonly with the
very same weights; they are random: this is about speed, and about the same features. The limit is
one over the sum of what decoding with preprocessing and the bare model take by themselves with all
threads, for they share the cores. The files are cut into parts, and all ways take one part after
the other: every file is read once by each way, and the parts tell the spread. Files are CIFAR-10's
JPEGs, and mosaics of them of 640 x 480.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import open_clip
import pyarrow.parquet as pq
import torch
from PIL import Image
from random_clip import make
from results import write
from safetensors.torch import save_file
from torch import Tensor
from transformers import pipeline

from nameonly.backbones import Backbone
from nameonly.backbones.clip import ClipBackbone
from nameonly.backbones.open_clip import OpenClipBackbone
from nameonly.encoding import LOADERS, build_text_classifier, encode_image_set
from nameonly.images import decode, open_images
from nameonly.prompts.templates import Templates
from nameonly.types import LabelSpace

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10_test.parquet"
NAMES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCH = 64
COMPARED = ("nameonly", "transformers pipeline", "open_clip")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Models:
    """The same kind of model in both libraries, each with random weights of its own."""

    clip: ClipBackbone
    open_clip: OpenClipBackbone


def models(folder: Path) -> Models:
    """Write the weights and return the backbones."""
    weights = folder / "open_clip"
    weights.mkdir()
    torch.manual_seed(0)
    network = open_clip.create_model("ViT-B-32", pretrained=None)
    save_file(network.state_dict(), weights / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32")}
    config["preprocess_cfg"] = {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    (weights / "open_clip_config.json").write_text(json.dumps(config))
    options = {"device": "cpu", "batch_size": BATCH}
    found = Models(
        ClipBackbone(str(make(folder / "clip")), **options),
        OpenClipBackbone(str(weights), **options),
    )
    _ = found.clip.network, found.open_clip.network, found.open_clip.transform
    return found


def small_files(folder: Path, n: int) -> list[Path]:
    """Write CIFAR-10's own JPEGs."""
    folder.mkdir()
    column = pq.read_table(DATA, columns=["image"]).slice(0, n)["image"].to_pylist()
    found = []
    for i, cell in enumerate(column):
        path = folder / f"{i:05d}.jpg"
        path.write_bytes(cell["bytes"] if isinstance(cell, dict) else cell)
        found.append(path)
    return found


def large_files(folder: Path, n: int, tiles: list[Path]) -> list[Path]:
    """Write mosaics of them, 640 x 480."""
    folder.mkdir()
    rng, found = np.random.default_rng(0), []
    opened = [Image.open(tile).convert("RGB").resize((80, 80)) for tile in tiles[:300]]
    for i in range(n):
        canvas = Image.new("RGB", (640, 480))
        for x in range(0, 640, 80):
            for y in range(0, 480, 80):
                canvas.paste(opened[rng.integers(len(opened))], (x, y))
        canvas.save(folder / f"{i:05d}.jpg", quality=90)
        found.append(folder / f"{i:05d}.jpg")
    return found


def ours(files: list[Path], backbone: Backbone) -> Tensor:
    """Read, encode and store, as ``nameonly label`` does."""
    with TemporaryDirectory() as cache:
        images, _ = open_images([str(file) for file in files])
        features = encode_image_set(images, backbone, Path(cache)).features
    row = {image_id: i for i, image_id in enumerate(features.ids)}
    return features.values[[row[i] for i in images.ids]]


@torch.no_grad()
def plain_open_clip(files: list[Path], backbone: OpenClipBackbone, size: int) -> Tensor:
    """Encode as open_clip's README shows it, ``size`` images at a time, in float32."""
    network, preprocess, rows = backbone.network, backbone.transform, []
    for start in range(0, len(files), size):
        shown = [preprocess(Image.open(f)) for f in files[start : start + size]]
        features = network.encode_image(torch.stack(shown))
        rows.append(features / features.norm(dim=-1, keepdim=True))
    return torch.cat(rows)


@torch.no_grad()
def clip_retrieval(files: list[Path], backbone: OpenClipBackbone) -> Tensor:
    """Encode what the reader of clip-retrieval hands out, with the batches it has by itself."""
    from clip_retrieval.clip_inference.reader import FilesReader

    with TemporaryDirectory() as folder:
        for file in files:
            Path(folder, file.name).symlink_to(file)
        reader = FilesReader(
            lambda keys: keys, backbone.transform, None, folder, 256, 4, enable_text=False
        )
        rows = []
        for batch in reader:
            features = backbone.network.encode_image(batch["image_tensor"])
            rows.append((features / features.norm(dim=-1, keepdim=True)).half())
    return torch.cat(rows)


def decoded(files: list[Path], backbone: Backbone) -> list[Tensor]:
    """Decode and preprocess with all threads."""
    with ThreadPoolExecutor(LOADERS) as pool:
        return list(pool.map(lambda f: backbone.preprocess(decode(f.read_bytes())), files))


def bare(batches: list[Tensor], backbone: Backbone) -> Tensor:
    """Run the model on tensors that are ready."""
    return torch.cat([backbone.encode_pixels(batch) for batch in batches])


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Return seconds and the result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def agreement(a: Tensor, b: Tensor) -> float:
    """Return the relative error of mean-centred features."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    return float((a - b).norm() / b.norm())


def measured(
    files: list[Path], found: Models, parts: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return seconds an image of every way, part by part, and how well features agree."""
    own, other = found.clip, found.open_clip
    zero_shot = pipeline(
        "zero-shot-image-classification", model=own.model, device="cpu", batch_size=BATCH
    )
    ready = torch.stack(decoded(files[:BATCH], own))
    ready_other = torch.stack(decoded(files[:BATCH], other))
    ways: dict[str, Callable[[list[Path]], object]] = {
        "nameonly, transformers weights": lambda part: ours(part, own),
        "transformers pipeline": lambda part: zero_shot(
            [str(file) for file in part], candidate_labels=list(NAMES)
        ),
        "nameonly, open_clip weights": lambda part: ours(part, other),
        "open_clip, one by one": lambda part: plain_open_clip(part, other, 1),
        "open_clip, in batches": lambda part: plain_open_clip(part, other, BATCH),
        "decode, transformers": lambda part: decoded(part, own),
        "decode, open_clip": lambda part: decoded(part, other),
        "model, transformers": lambda part: bare([ready] * batches(part), own),
        "model, open_clip": lambda part: bare([ready_other] * batches(part), other),
    }
    if find_spec("clip_retrieval"):
        ways["clip-retrieval's reader, open_clip"] = lambda part: clip_retrieval(part, other)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, list[object]] = {way: [] for way in ways}
    for i in range(parts):
        part = files[i::parts]
        for way, function in ways.items():
            spent, result = timed(lambda f=function, part=part: f(part))
            images = len(result) if isinstance(result, Tensor) else len(part)
            seconds[way].append(spent / images)
            results[way].append(result if way.partition(",")[0] in COMPARED else None)
            print(f"part {i}, {way}: {images / spent:.1f} images/s", flush=True)
    return seconds, {
        "error of features beside open_clip": agreement(
            torch.cat(results["nameonly, open_clip weights"]),  # type: ignore[arg-type]
            torch.cat(results["open_clip, in batches"]),  # type: ignore[arg-type]
        ),
        "labels equal to open_clip's": equal_to_open_clip(results, other),
        "labels equal to the pipeline's": equal_to_pipeline(results, own),
    }


def batches(part: list[Path]) -> int:
    """Return how many batches the bare model runs on for a part: a quarter of its images'."""
    return max(1, len(part) // BATCH // 4)


def text_weights(backbone: Backbone) -> Tensor:
    """Return the text classifier of the pipeline's own template."""
    with TemporaryDirectory() as cache:
        space = LabelSpace(NAMES)
        texts = Templates("This is a photo of {}.").texts(space)
        return build_text_classifier(texts, space, backbone, Path(cache)).weights


def equal_to_open_clip(results: dict[str, list[object]], backbone: Backbone) -> float:
    """Return the share of images with the same predicted label."""
    weights = text_weights(backbone).T
    mine = torch.cat(results["nameonly, open_clip weights"]) @ weights  # type: ignore[arg-type]
    theirs = torch.cat(results["open_clip, in batches"]) @ weights  # type: ignore[arg-type]
    return float((mine.argmax(dim=1) == theirs.argmax(dim=1)).double().mean())


def equal_to_pipeline(results: dict[str, list[object]], backbone: Backbone) -> float:
    """Return the share of images with the pipeline's own first label."""
    mine = torch.cat(results["nameonly, transformers weights"])  # type: ignore[arg-type]
    labels = (mine @ text_weights(backbone).T).argmax(dim=1).tolist()
    theirs = [row[0]["label"] for part in results["transformers pipeline"] for row in part]  # type: ignore[attr-defined]
    return sum(NAMES[k] == name for k, name in zip(labels, theirs, strict=True)) / len(labels)


def rows_of(seconds: dict[str, list[float]]) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield every way with images a second, and nameonly's ratio to it, part by part."""
    ways = dict(seconds)
    for library in ("transformers", "open_clip"):
        pairs = zip(ways[f"decode, {library}"], ways[f"model, {library}"], strict=True)
        ways[f"limit, {library}"] = [decoding + model for decoding, model in pairs]
    for way, spent in ways.items():
        library = "open_clip" if "open_clip" in way else "transformers"
        mine = ways[f"nameonly, {library} weights"]
        ratios = [other / own for other, own in zip(spent, mine, strict=True)]
        yield way, [1 / value for value in spent], ratios


def told(values: list[float], digits: int) -> str:
    """Return the median, and between which quartiles half of the values lie."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def variants(backbone: ClipBackbone, repeats: int) -> dict[str, float]:
    """Return images a second of the bare model in other forms, those that are installed."""
    network, pixels = backbone.network, torch.rand(BATCH, 3, 224, 224)
    forms: dict[str, Callable[[Tensor], object]] = {
        "torch": lambda x: network.get_image_features(pixel_values=x),
        "torch, as nameonly calls it": backbone.encode_pixels,
        "torch, channels last": lambda x: network.get_image_features(
            pixel_values=x.to(memory_format=torch.channels_last)
        ),
    }
    compiled = torch.compile(network.get_image_features)
    forms["torch.compile"] = lambda x: compiled(pixel_values=x)
    low = ClipBackbone(backbone.model, device="cpu", dtype="bfloat16").network
    forms["torch, bfloat16"] = lambda x: low.get_image_features(pixel_values=x.bfloat16())
    forms |= onnx_forms(network)
    found: dict[str, list[float]] = {}
    with torch.inference_mode():
        for name, form in list(forms.items()):
            try:
                form(pixels)
            except Exception as error:  # a compiler that is not there
                print(f"{name}: {str(error).splitlines()[0]}")
                del forms[name]
        for _ in range(repeats):
            for name, form in forms.items():
                found.setdefault(name, []).append(BATCH / timed(lambda f=form: f(pixels))[0])
    return {name: statistics.median(values) for name, values in found.items()}


def onnx_forms(network: torch.nn.Module) -> dict[str, Callable[[Tensor], object]]:
    """Return the image tower under onnxruntime and OpenVINO, where they are installed."""

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision, self.projection = network.vision_model, network.visual_projection

        def forward(self, x: Tensor) -> Tensor:
            return self.projection(self.vision(pixel_values=x).pooler_output)

    forms: dict[str, Callable[[Tensor], object]] = {}
    graph = io.BytesIO()
    sample = torch.rand(BATCH, 3, 224, 224)
    torch.onnx.export(Tower().eval(), (sample,), graph, input_names=["x"], dynamo=False)
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(graph.getvalue())
        forms["onnxruntime"] = lambda x: session.run(None, {"x": x.numpy()})
    except ImportError:
        print("onnxruntime is not installed")
    try:
        import openvino

        core = openvino.Core()
        model = core.compile_model(core.read_model(graph.getvalue(), b""), "CPU")
        forms["OpenVINO"] = lambda x: model(x.numpy())
    except ImportError:
        print("openvino is not installed")
    return forms


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--large", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=20)
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--name", default="encoding", help="of the page")
    asked = parser.parse_args()
    torch.set_num_threads(2)
    figures: dict[str, float] = {}
    with TemporaryDirectory() as work:
        found = models(Path(work))
        small = small_files(Path(work, "small"), asked.images)
        large = large_files(Path(work, "large"), asked.large, small)
        sets = {
            f"{asked.images} CIFAR-10 JPEGs, 32 x 32": small,
            f"{asked.large} JPEGs of 640 x 480": large,
        }
        lines = [
            f"Two threads, {found.clip.resolved_dtype}, batches of {BATCH}, files in {asked.parts} "
            "parts in turns: median and quartiles of the parts. The ratio is the speed of nameonly "
            "to the line's, in the same part.",
            "",
        ]
        for title, files in sets.items():
            seconds, agreed = measured(files, found, asked.parts)
            lines += [f"{title}:", "", "| | images/s | ratio |", "| --- | ---: | ---: |"]
            for way, speeds, ratios in rows_of(seconds):
                lines.append(f"| {way} | {told(speeds, 1)} | {told(ratios, 2)} |")
                figures[f"{title}: {way}"] = statistics.median(speeds)
                figures[f"{title}: nameonly / {way}"] = statistics.median(ratios)
            lines += ["", *(f"- {name}: {value:.4g}" for name, value in agreed.items()), ""]
            figures |= {f"{title}: {name}": value for name, value in agreed.items()}
            write(asked.name, figures, lines)  # an hour may follow
        if asked.variants:
            lines += ["The bare model in other forms:", "", "| | images/s |", "| --- | ---: |"]
            for name, speed in variants(found.clip, min(5, asked.parts)).items():
                lines.append(f"| {name} | {speed:.1f} |")
                figures[f"variant: {name}"] = speed
    write(asked.name, figures, lines)


if __name__ == "__main__":
    main()
