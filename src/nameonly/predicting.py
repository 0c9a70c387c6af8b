"""The answers of a classifier to every source, of any number: a block of images at a time."""

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from nameonly.classifier import Classifier
from nameonly.ops.room import large_matrix
from nameonly.ops.selection import row_blocks
from nameonly.types import Features, Predictions


def predict_sources(
    classifier: Classifier, features: Features, rows: Int[Tensor, " s"], folder: Path
) -> Predictions:
    """Return one row per source; copies of an image have equal rows.

    Memory: a block of images and O(s). Many probabilities lie on the disk, in a file without a
    name that goes with the process.

    Args:
        classifier: Answers.
        features: One row per distinct image.
        rows: Of every source among the features.
        folder: Of that file.

    Raises:
        ValueError: If the features were made by another backbone, or scores are not finite.
    """
    c = len(classifier.label_space)
    probs, labels = large_matrix((len(rows), c), folder), torch.empty_like(rows)
    order = rows.argsort(stable=True)
    ends = torch.bincount(rows, minlength=len(features)).cumsum(0)
    for block in row_blocks(len(features), c):
        part = Features(features.values[block], features.ids[block], features.backbone)
        found = classifier.predict(part)
        last = block.start + len(part) - 1
        sources = order[ends[block.start - 1] if block.start else 0 : ends[last]]
        probs[sources] = found.probs[rows[sources] - block.start]
        labels[sources] = found.labels[rows[sources] - block.start]
    return Predictions(probs, labels, _repeated(features.ids, rows))


def per_source(predictions: Predictions, rows: Int[Tensor, " s"]) -> Predictions:
    """Repeat the rows of distinct images for every source that shares them."""
    if torch.equal(rows, torch.arange(len(predictions.ids))):
        return predictions
    ids = _repeated(predictions.ids, rows)
    return Predictions(predictions.probs[rows], predictions.labels[rows], ids)


def _repeated(ids: tuple[str, ...], rows: Int[Tensor, " s"]) -> tuple[str, ...]:
    if torch.equal(rows, torch.arange(len(ids))):
        return ids
    return tuple(ids[i] for i in rows.tolist())
