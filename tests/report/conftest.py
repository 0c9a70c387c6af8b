"""A real run over scikit-learn's digits: real images and a nearest-mean classifier."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from nameonly.report.html import ReportInput

N_IMAGES = 300
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def _nearest_mean(pixels: np.ndarray, target: np.ndarray, scale: float) -> np.ndarray:
    means = np.stack([pixels[target == digit].mean(axis=0) for digit in range(10)])
    distances = ((pixels[:, None] - means[None]) ** 2).mean(axis=2)
    return _softmax(-scale * distances)


def _open_digit(images: np.ndarray, row: int) -> Image.Image:
    return Image.fromarray((images[row] * 15.9).astype(np.uint8))


@pytest.fixture(scope="session")
def digits_report() -> ReportInput:
    digits = load_digits()
    pixels, target = digits.data[:N_IMAGES], digits.target[:N_IMAGES]
    probs = _nearest_mean(pixels, target, 0.25)
    labels = probs.argmax(axis=1)
    labels[probs.max(axis=1) < 0.5] = -1
    zero_shot = _nearest_mean(pixels[:, 24:40], target, 0.25).argmax(axis=1)
    sources = tuple(f"digits/batch {i % 3}/{i:04d}.png" for i in range(N_IMAGES))
    run: dict[str, Any] = {
        "nameonly": "0.1.0",
        "command": "label",
        "recipe": "up_adapter",
        "title": "Prototypes of the surest images",
        "paper": "A paper. 2024.",
        "settings": {
            "prompts": {"method": "templates", "templates": "single"},
            "pseudo_labels": {"method": "top_k_per_class", "images_per_class": 16},
        },
        "backbone": {"name": "tiny", "revision": "ab12", "note": "knows glyphs only"},
        "input": "digits/",
        "seed": 0,
        "counts": {"pseudo_labels": dict.fromkeys(NAMES, 16)},
        "timings": {"ingest": 0.1, "encode": 3.2, "adapt": 75.0},
        "versions": {"torch": "2.9.1"},
    }
    return ReportInput(
        run=run,
        class_names=NAMES,
        sources=sources,
        probs=probs,
        labels=labels,
        zero_shot=zero_shot,
        quarantine=(("digits/broken.png", "the file is cut short"),),
        duplicates=(("digits/a.png", "digits/b.png", "digits/c.png"),),
        open_image=partial(_open_digit, digits.images),
    )


@pytest.fixture
def make_report(digits_report: ReportInput) -> Callable[..., ReportInput]:
    """Return the digits report with some fields replaced."""
    return partial(replace, digits_report)
