"""A second branch beside the text logits, on one scale whatever the backbone's logit scale is."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nameonly.types import Features, TextClassifier

ROWS_PER_BLOCK = 512
LEAST_SHARE = 1e-6

# how many images fix a spread to well under one percent
SCALE_ROWS = 32_768

Score = Callable[[Float[Tensor, "b d"]], Float[Tensor, "b c"]]


def spread_over(score: Score, values: Float[Tensor, "n d"]) -> tuple[float, float]:
    """Return the spread of the images' scores and their largest absolute value."""
    squares, largest = 0.0, 0.0
    for block in torch.split(values, ROWS_PER_BLOCK):
        scores = score(block)
        low, high = scores.aminmax()
        largest = max(largest, -low.item(), high.item())
        centred = scores - scores.mean(dim=1, keepdim=True)
        squares += torch.linalg.vector_norm(centred).double().item() ** 2 / scores.shape[1]
    return math.sqrt(squares / len(values)), largest


def scale_sample(features: Features) -> Float[Tensor, "m d"]:
    """Return the images that set a scale: all, or of many a sample that no order changes."""
    rows = features.content_order()[:SCALE_ROWS].to(features.values.device)
    return features.values[rows]


def residual_scale(text: TextClassifier, residual: Score, values: Float[Tensor, "n d"]) -> float:
    """Return the factor that gives a branch's scores the spread of the text logits.

    Both are taken over the images in blocks, so that no n x c scores are held. The factor is zero
    where the branch says the same of all classes: what differs then is rounding.

    Args:
        text: The zero-shot classifier.
        residual: The branch's scores of feature rows.
        values: Unit features of the images, see ``scale_sample``.
    """
    weights = text.logit_scale * text.weights
    text_spread, _ = spread_over(lambda block: block @ weights.T, values)
    residual_spread, largest = spread_over(residual, values)
    silent = residual_spread <= LEAST_SHARE * largest
    return 0.0 if silent else text_spread / residual_spread


def join(
    text_logits: Float[Tensor, "n c"], residual: Float[Tensor, "n c"], weight: float
) -> Float[Tensor, "n c"]:
    """Return the weighted mean of two branches of one spread; the text logits weigh one.

    The sum would rank the same, but the mean keeps the spread of the text logits and with it their
    confidence.
    """
    return torch.lerp(text_logits, residual, weight / (1 + weight))


def joined_logits(
    text: TextClassifier, residual: Score, features: Features, *, scale: float, weight: float
) -> Float[Tensor, "n c"]:
    """Return the text logits joined with ``scale`` times a branch's scores.

    In blocks of images: no memory beyond the result grows with n.

    Raises:
        ValueError: If the features have another dimension than the text weights.
    """
    logits = text.predict_logits(features)
    for start in range(0, len(logits), ROWS_PER_BLOCK):
        block = slice(start, start + ROWS_PER_BLOCK)
        scores = scale * residual(features.values[block])
        logits[block] = join(logits[block], scores.to(logits.dtype), weight)
    return logits
