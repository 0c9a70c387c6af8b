"""TransCLIP: class Gaussians, nearest images and text agree on the labels of all images at once.

Paper: Zanella, Gérin, Ben Ayed. Boosting Vision-Language Models with Transduction. NeurIPS 2024,
    arXiv 2406.01837.
Code: https://github.com/MaxZanella/transduction-for-vlms
Differs: (1) Assignments are renewed a block of images at a time, in place, where the paper renews
    all at once: one array is enough, and the fixed points are the same. (2) The means start at the
    prototypes of the pseudo-labels, whichever these are; the paper's are those of
    ``TopKPerClass(8, by="column")``. (3) Images with a given label (confidence 1) keep it and count
    as one image each, and the text weighs as in the zero-shot form; the paper's few-shot form
    halves it, and its code chooses the labels' weight among four by validation labels. (4) A class
    that no image belongs to keeps its mean, variances have a floor, negative affinities count as
    none. (5) New images are scored by Gaussians and text without neighbours (reconstruction: the
    paper scores the fitted images alone). As in the public code, the log-likelihood is divided by
    50 (``temperature``) and the neighbours' sum both ways by twice their number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from nameonly.ops.graphs import Graph, neighbour_graph
from nameonly.ops.neighbours import nearest_neighbours
from nameonly.ops.prototypes import labelled_prototypes
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["TransClip"]

# features and scores of one block of images
BLOCK_BYTES = 16 * 2**20
# in units of 1 / d, the mean square of a unit vector's entries
LEAST_VARIANCE = 1e-3

Blocks = Sequence[Int[Tensor, " _"]]


def joint_scorer(
    text: TextClassifier,
    means: Float[Tensor, "c d"],
    variances: Float[Tensor, " d"],
    text_weight: float,
    temperature: float,
) -> tuple[TextClassifier, Float[Tensor, " c"]]:
    """Return weights and bias that score ``text_weight t + l / temperature``.

    t are the text logits and l the Gaussians' log-likelihoods. What all classes of an image share
    moves no softmax; without it the sum is linear in the features.
    """
    scaled = means / variances
    weights = text_weight * text.logit_scale * text.weights + scaled / temperature
    bias = -0.5 * (means * scaled).sum(dim=1) / temperature
    return replace(text, weights=weights, logit_scale=1.0), bias


def fit_gaussians(
    values: Float[Tensor, "n d"],
    assignments: Float[Tensor, "n c"],
    blocks: Blocks,
    before: Float[Tensor, "c d"],
) -> tuple[Float[Tensor, "c d"], Float[Tensor, " d"]]:
    """Return the unit means of the assigned images, and their mean squared distance to them.

    Args:
        values: Unit rows.
        assignments: Share of every class in every image.
        blocks: All rows, in the order in which they are summed.
        before: Means that classes without images keep.
    """
    n, d = values.shape
    sums, counts = torch.zeros_like(before), before.new_zeros(len(before))
    squares = before.new_zeros(d)
    for rows in blocks:
        x, z = values[rows], assignments[rows]
        sums += z.T @ x
        counts += z.sum(dim=0)
        squares += x.square().sum(dim=0)
    means = torch.where(counts[:, None] > 0, normalize(sums, dim=1), before)
    distances = squares - 2 * (means * sums).sum(dim=0) + counts @ means.square()
    return means, (distances / n).clamp(min=LEAST_VARIANCE / d)


@dataclass
class TransClip:
    """Scores images by text and class Gaussians, the fitted ones by their neighbours too.

    ``z_i ~ p_i^w exp(l_i / T + sum_j (a_ij + a_ji) z_j / 2k)``: p the text's probabilities, l the
    log-likelihoods under one Gaussian a class with a shared diagonal covariance, a the cosines with
    the k nearest images. Batches of a few dozen images that show few of the classes break it (a
    published 65.2 falls to 38.9): fit it on a whole data set.

    Attributes:
        k: Nearest images.
        steps: Rounds of assignments and Gaussians.
        inner_steps: Renewals of the assignments in a round.
        text_weight: w, the weight of the text (the paper's lambda).
        temperature: T, divisor of the log-likelihoods.
        logits_: Of the fitted images in their order: log z, where all of it speaks.
    """

    k: int = 3
    steps: int = 10
    inner_steps: int = 5
    text_weight: float = 1.0
    temperature: float = 50.0
    transductive: ClassVar[bool] = False

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    means_: Float[Tensor, "c d"] = field(init=False, repr=False, compare=False)
    variances_: Float[Tensor, " d"] = field(init=False, repr=False, compare=False)
    logits_: Float[Tensor, "n c"] = field(
        init=False, repr=False, compare=False, metadata={"saved": False}
    )

    def __post_init__(self) -> None:
        for name, low in {"k": 1, "steps": 0, "inner_steps": 1, "text_weight": 0}.items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "TransClip":
        """Alternate between assignments and Gaussians; a second call forgets the first.

        Memory beyond the inputs: one float32 array of n x c, which becomes ``logits_``, O(n k) for
        the graph and, while it is made, the features once more.

        Args:
            features: All unlabelled images.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order. The selected images
                make the first means; labels of confidence 1 (given ones) are kept.

        Raises:
            ValueError: If no image is selected, or the pseudo-labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        values = features.values
        order = features.content_order().to(values.device)
        graph = self._graph(values, order)
        chosen = order[pseudo_labels.selected[order]]
        means = labelled_prototypes(values, pseudo_labels, chosen, text.weights)
        certain = (pseudo_labels.confidence >= 1.0) & pseudo_labels.selected
        kept = torch.where(certain, pseudo_labels.labels, -1)

        blocks = torch.split(order, max(1, BLOCK_BYTES // (4 * sum(means.shape))))
        assignments = values.new_empty(len(values), len(means))
        for rows in blocks:
            scores = text.logit_scale * values[rows] @ text.weights.T
            _assign(assignments, rows, scores, kept)
        variances = values.new_full((values.shape[1],), 1 / values.shape[1])
        for _ in range(self.steps):
            scorer = joint_scorer(text, means, variances, self.text_weight, self.temperature)
            self._renew(assignments, values, blocks, graph, scorer, kept)
            means, variances = fit_gaussians(values, assignments, blocks, means)
        scorer = joint_scorer(text, means, variances, self.text_weight, self.temperature)
        self._renew(assignments, values, blocks, graph, scorer, kept)

        self.text_, self.means_, self.variances_ = text, means, variances
        self.logits_ = assignments.clamp_(min=torch.finfo(values.dtype).tiny).log_()
        return self

    def _graph(self, values: Float[Tensor, "n d"], order: Int[Tensor, " n"]) -> Graph:
        """Return the neighbours of the images in that order; they themselves keep their rows."""
        ordered = values[order]
        graph = neighbour_graph(*nearest_neighbours(ordered, ordered, self.k, exclude_self=True))
        return replace(graph, neighbours=order[graph.neighbours])

    def _renew(
        self,
        assignments: Float[Tensor, "n c"],
        values: Float[Tensor, "n d"],
        blocks: Blocks,
        graph: Graph,
        scorer: tuple[TextClassifier, Float[Tensor, " c"]],
        kept: Int[Tensor, " n"],
    ) -> None:
        """Renew all assignments ``inner_steps`` times, in place."""
        joint, bias = scorer
        for _ in range(self.inner_steps):
            start = 0
            for rows in blocks:
                scores = values[rows] @ joint.weights.T + bias
                stop = start + len(rows)
                scores += graph.sums(assignments, start, stop) / (2 * self.k)
                _assign(assignments, rows, scores, kept)
                start = stop

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return text logits and log-likelihoods added, without neighbours, of any image.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "means_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        joint, bias = joint_scorer(
            self.text_, self.means_, self.variances_, self.text_weight, self.temperature
        )
        return joint.predict_logits(features).add_(bias)


def _assign(
    assignments: Float[Tensor, "n c"],
    rows: Int[Tensor, " b"],
    scores: Float[Tensor, "b c"],
    kept: Int[Tensor, " n"],
) -> None:
    """Write the softmax of the scores, or the label that is kept, into the rows."""
    labels = kept[rows]
    shares = scores.softmax(dim=1)
    known = labels >= 0
    shares[known] = one_hot(labels[known], scores.shape[1]).to(shares.dtype)
    assignments[rows] = shares
