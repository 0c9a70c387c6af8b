"""Scores of many images among many classes, a few rows at a time."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.selection import filled, row_blocks
from nameonly.types import Features, TextClassifier


def logit_blocks(
    text: TextClassifier, features: Features
) -> Iterator[tuple[slice, Float[Tensor, "b c"]]]:
    """Yield the zero-shot logits of a few rows at a time, with where the rows stand.

    Raises:
        ValueError: If the features have another dimension than the text weights.
    """
    text.check_fits(features)
    weights = (text.logit_scale * text.weights).T
    for rows in row_blocks(len(features), len(text.weights)):
        yield rows, features.values[rows] @ weights


def most_probable(text: TextClassifier, features: Features) -> Int[Tensor, " n"]:
    """Return every image's class at zero-shot; memory beyond the result: a block of rows.

    Raises:
        ValueError: If the features have another dimension than the text weights.
    """
    classes = torch.empty(len(features), dtype=torch.long, device=features.values.device)
    best = ((rows, logits.argmax(dim=1)) for rows, logits in logit_blocks(text, features))
    return filled(classes, best)


def tempered(logits: Float[Tensor, "n c"], temperature: float) -> Float[Tensor, "n c"]:
    """Return the softmax of logits at a temperature; memory beyond the result: a block of rows."""
    probs = torch.empty_like(logits)
    for rows in row_blocks(*logits.shape):
        probs[rows] = (logits[rows] / temperature).softmax(dim=1)
    return probs
