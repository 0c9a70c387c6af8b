"""How likely an image belongs to none of the named classes.

Papers: Energy: Liu et al. Energy-based Out-of-distribution Detection. NeurIPS 2020, arXiv
    2010.03759, eq. 4. Maximum concept matching: Ming et al. Delving into Out-of-Distribution
    Detection with Vision-Language Representations. NeurIPS 2022, arXiv 2211.13445, eq. 1.
    Neighbours: Sun et al. Out-of-Distribution Detection with Deep Nearest Neighbors. ICML 2022,
    arXiv 2204.06507. Names of other things: Jiang et al. Negative Label Guided OOD Detection.
    ICLR 2024, arXiv 2403.20078, eq. 5.
Differs: neighbours are sought among the unlabelled images themselves, at the k-th of them. What a
    run reports is the mean of energy and distance to the nearest centre, each standardised.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nameonly.ops.neighbours import nearest_neighbours
from nameonly.ops.outliers import robust_bound, standardised
from nameonly.ops.scoring import logit_blocks
from nameonly.ops.selection import filled, row_blocks
from nameonly.types import Features, TextClassifier

# of cosines; CLIP's concept matching does without the trained scale
MATCHING_TEMPERATURE = 0.1
NEIGHBOURS = 10
# robust standard deviations above the median
SUSPECTED = 2.0


def energy_score(features: Features, text: TextClassifier) -> Float[Tensor, " n"]:
    """Return the energy of the zero-shot logits: higher for images that no name fits."""
    blocks = ((rows, logits.logsumexp(dim=1)) for rows, logits in logit_blocks(text, features))
    return -_filled(features, blocks) / text.logit_scale


def concept_matching_score(
    features: Features, text: TextClassifier, temperature: float = MATCHING_TEMPERATURE
) -> Float[Tensor, " n"]:
    """Return one minus the largest softmax of the cosines (MCM)."""
    scale = text.logit_scale * temperature
    logits = logit_blocks(text, features)
    return 1 - _filled(features, ((r, (b / scale).softmax(dim=1).amax(dim=1)) for r, b in logits))


def prototype_score(features: Features, centres: Float[Tensor, "c d"]) -> Float[Tensor, " n"]:
    """Return the distance to the nearest class centre; those at infinity are no class's."""
    kept = centres[centres.isfinite().all(dim=1)]
    values, blocks = features.values, row_blocks(len(features), max(len(kept), kept.shape[1]))
    near = ((rows, torch.cdist(values[rows].float(), kept).amin(dim=1)) for rows in blocks)
    return _filled(features, near)


def _filled(
    features: Features, blocks: Iterator[tuple[slice, Float[Tensor, " b"]]]
) -> Float[Tensor, " n"]:
    return filled(features.values.new_empty(len(features), dtype=torch.float32), blocks)


def combined_score(
    features: Features, text: TextClassifier, centres: Float[Tensor, "c d"]
) -> Float[Tensor, " n"]:
    """Return the mean of energy and distance to the nearest centre, in robust deviations.

    Names tell strangers that look like no class, centres those that look like no other image of
    their class.
    """
    scores = energy_score(features, text), prototype_score(features, centres)
    return (standardised(scores[0]) + standardised(scores[1])) / 2


def neighbour_score(features: Features, k: int = NEIGHBOURS) -> Float[Tensor, " n"]:
    """Return one minus the cosine of the k-th nearest other image."""
    k = min(k, len(features) - 1)
    if k < 1:
        return torch.zeros(len(features))
    return 1 - nearest_neighbours(features.values, features.values, k, exclude_self=True)[0][:, -1]


def distractor_score(
    features: Features, text: TextClassifier, distractors: TextClassifier
) -> Float[Tensor, " n"]:
    """Return the probability that falls on the names of other things.

    Args:
        features: Of the images.
        text: The named classes.
        distractors: Names of what the images may show instead, with the same scale.

    Raises:
        ValueError: If the two are of different scales.
    """
    if text.logit_scale != distractors.logit_scale:
        raise ValueError("classes and distractors need texts of one backbone")
    both = replace(
        text,
        weights=torch.cat([text.weights, distractors.weights]),
        class_names=(*text.class_names, *distractors.class_names),
    )
    c = len(text.class_names)
    logits = logit_blocks(both, features)
    return _filled(features, ((r, b.softmax(dim=1)[:, c:].sum(dim=1)) for r, b in logits))


def suspected(scores: Float[Tensor, " n"], deviations: float = SUSPECTED) -> Bool[Tensor, " n"]:
    """Return which scores stand out: far above the median, in robust standard deviations.

    It finds a minority; where half of the images are strangers nothing stands out.
    """
    if not len(scores):
        return torch.zeros(0, dtype=torch.bool)
    return scores > robust_bound(scores, deviations)
