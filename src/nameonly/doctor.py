"""What could go wrong on this machine, and how to mend it."""

import importlib.util
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nameonly.backbones import Backbone
from nameonly.backbones._devices import choose_device, choose_dtype
from nameonly.backbones.clip import REFERENCE
from nameonly.classifier import open_backbone
from nameonly.store import default_cache

TEXTS = ("zero", "a photo of a three.", "the letter k")
TOLERANCE = 0.05
FREE_BYTES = 2 * 1024**3
SHOWN = ("nameonly", "torch", "transformers", "tokenizers", "safetensors", "numpy")
OPTIONAL = ("torchvision", "open_clip_torch")


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What.
        found: What was found, in words.
        failed: True where something does not work.
        advice: What to do then.
    """

    name: str
    found: str
    failed: bool = False
    advice: str = ""


def examine(cache: Path | None = None) -> list[Check]:
    """Look at versions, torch against torchvision, device, cache and hub."""
    return [*_versions(), _torchvision(), _device(), _cache(cache or default_cache()), _hub()]


def _versions() -> list[Check]:
    checks = []
    for name in (*SHOWN, *OPTIONAL):
        try:
            checks.append(Check(name, version(name)))
        except PackageNotFoundError:
            absent = "not installed (only open_clip: backbones need it)"
            checks.append(Check(name, absent if name in OPTIONAL else "missing"))
    return checks


def _torchvision() -> Check:
    """A torchvision built for another torch breaks transformers at import, far from its cause."""
    name = "torchvision fits torch"
    if importlib.util.find_spec("torchvision") is None:
        return Check(name, "no torchvision; only open_clip: backbones need it")
    try:
        import torchvision  # type: ignore[import-untyped,import-not-found,unused-ignore]

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # whatever a mismatched binary raises is the finding
        return Check(
            name,
            f"no: {str(error).splitlines()[0]}",
            True,
            "install both from the same index in one command: uv pip install -U torch torchvision; "
            "or remove torchvision, which only open_clip: backbones need",
        )
    return Check(name, f"yes: torch {torch.__version__}, torchvision {torchvision.__version__}")


def _device() -> Check:
    device = choose_device("auto")
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
    return Check("device", f"{device}, {dtype}, {torch.get_num_threads()} threads")


def _cache(folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_bytes(b"nameonly")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(
            "cache",
            f"{folder}: {error}",
            True,
            "choose another folder with --cache or NAMEONLY_CACHE",
        )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    found = f"{folder}: {size / 1e6:.1f} MB used, {free / 1e9:.1f} GB free"
    return Check(
        "cache", found, free < FREE_BYTES, "less than 2 GB free: make room or move the cache"
    )


def _hub() -> Check:
    """Ask the hub for one file's header; being offline is no failure."""
    from huggingface_hub import HfApi

    advice = "pass a local folder as --backbone, or --backbone tiny to try things out (glyphs only)"
    try:
        HfApi().model_info("openai/clip-vit-base-patch32", timeout=5)
    except Exception as error:  # every kind of network failure means the same here
        return Check("model hub", f"not reachable ({type(error).__name__})", False, advice)
    return Check("model hub", "reachable")


def reference_image(k: int) -> Image.Image:
    """Return the k-th reference image: 64 x 64 RGB drawn by integer formula."""
    y, x, channel = np.mgrid[0:64, 0:64, 0:3]
    pixels = (x * (k + 1) * 3 + y * (2 * k + 1) * 5 + channel * 85) % 256
    return Image.fromarray(pixels.astype(np.uint8))


def reference_logits(backbone: Backbone, texts: tuple[str, ...]) -> list[list[float]]:
    """Return the scaled similarity of three reference images with texts."""
    images = backbone.encode_images([reference_image(k) for k in range(3)])
    logits: list[list[float]] = (
        backbone.logit_scale * images @ backbone.encode_texts(texts).T
    ).tolist()
    return logits


def _reference_of(name: str) -> tuple[Backbone, Path]:
    """Return a backbone as references are made (CPU, float32) and where its reference lies."""
    backbone: Any = open_backbone(name, device="cpu", dtype="float32")
    return backbone, backbone.files / REFERENCE


def write_reference(name: str) -> Check:
    """Keep this machine's logits beside the weights, to check other machines against.

    Raises:
        ValueError: If the model cannot be had.
    """
    backbone, path = _reference_of(name)
    logits = reference_logits(backbone, TEXTS)
    content = {"texts": TEXTS, "logits": logits, "tolerance": TOLERANCE}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return Check(f"backbone {name}", f"reference written to {path}")


def verify_backbone(name: str) -> Check:
    """Compare a model's logits here (float32, CPU) with the reference kept with it.

    Raises:
        ValueError: If the model cannot be loaded or has no sound reference.
    """
    backbone, path = _reference_of(name)
    if not path.is_file():
        raise ValueError(
            f"no {REFERENCE} in {path.parent}; write one on a machine you trust with "
            f"`nameonly doctor --verify-backbone {name} --write-reference`"
        )
    try:
        reference = json.loads(path.read_text(encoding="utf-8"))
        wanted = torch.tensor(reference["logits"])
        texts, tolerance = tuple(reference["texts"]), float(reference["tolerance"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    found = torch.tensor(reference_logits(backbone, texts))
    if found.shape != wanted.shape:
        raise ValueError(
            f"{path} is damaged: logits {tuple(wanted.shape)}, expected {tuple(found.shape)}"
        )
    off = (found - wanted).abs().max().item()
    return Check(
        f"backbone {name}",
        f"largest difference of logits {off:.4f}, allowed {tolerance}",
        not off <= tolerance,
        "the weights, the tokenizer or the preprocessing are not those of the reference",
    )
