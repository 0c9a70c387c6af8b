"""Label propagation over images and class texts.

Paper: Stojnić, Kalantidis, Tolias. Label Propagation for Zero-shot Classification with
    Vision-Language Models (ZLaP). CVPR 2024, arXiv 2404.04072.
Code: https://github.com/vladan-stojnic/ZLaP
Differs: (1) Text edges come from logits, whose scale is unknown here, so they enter in the limit of
    weak edges, where the scale cancels: texts emit into the images and take nothing back. With CLIP
    (cosines about 0.3, to the fifth power 0.002, beside image edges of about 0.8) that is the
    paper's answer to a part in a thousand. (2) k images other than the image itself; the public
    code counts it among the k. (3) Given labels, which the paper has not, are sources like the
    texts and stand in place of the image's text edges (reconstruction: ``given_weight``).
    (4) New images are scored by ``adapters/k_nearest.py``, not by the paper's section on inductive
    inference, which adds the new image's own text edges to its neighbours' votes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.ops.graphs import Graph, neighbour_graph, propagate
from nameonly.ops.labelling import open_logits, with_given
from nameonly.ops.neighbours import nearest_neighbours
from nameonly.types import Features, LabelSpace, PseudoLabels

__all__ = ["LabelPropagation"]

# each of the solver's arrays holds as many classes as fit into this
COLUMN_BYTES = 256 * 2**20


def text_edges(
    logits: Float[Tensor, "n c"], is_open: Bool[Tensor, " n"], k: int, power: float
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Return the edges of open images to their ``k`` best texts: weights up to 1, and classes.

    Raises:
        ValueError: If no open image has a logit above 0.
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1)
    positive = best.values.clamp(min=0).masked_fill(~is_open[:, None], 0.0)
    largest = positive.max()
    if is_open.any() and not largest > 0:
        raise ValueError(
            "no logit is above 0, so that no image has an edge to a text; label propagation reads "
            "scaled cosines, not log-probabilities"
        )
    return (positive / largest.clamp(min=1e-30)) ** power, best.indices


def text_sources(
    weights: Float[Tensor, "n k"],
    classes: Int[Tensor, "n k"],
    degrees: Float[Tensor, " n"],
    n_classes: int,
) -> Float[Tensor, "n k"]:
    """Return what texts emit into images: ``w_it / sqrt(d_i d_t)``, d the degrees.

    An image without neighbours has degree 1.
    """
    text_degrees = weights.new_zeros(n_classes)
    text_degrees.index_add_(0, classes.flatten(), weights.flatten())
    product = torch.where(degrees > 0, degrees, 1.0)[:, None] * text_degrees[classes]
    return weights * torch.where(product > 0, product, 1.0).rsqrt()


def given_sources(
    given: Int[Tensor, " n"], text: Float[Tensor, "n k"], weight: float
) -> Float[Tensor, " n"]:
    """Return what given labels emit: ``weight`` times what an average image's best text does."""
    strongest = text.max(dim=1).values
    strongest = strongest[strongest > 0]
    typical = strongest.mean() if len(strongest) else text.new_ones(())
    return torch.where(given >= 0, weight * typical, 0.0)


@dataclass(frozen=True)
class LabelPropagation:
    """Labels every image with the class whose text and given labels reach it most over the graph.

    Attributes:
        k: Nearest images, and best texts, that each image is joined to.
        text_power: Exponent of the similarity with texts (the paper's gamma).
        alpha: How much is passed on along the edges, in [0, 1).
        given_weight: What a given label emits, in units of what an image's best text does.
        tolerance: Relative residual at which a class is solved.
        reads_cosines: It takes scaled cosines, not log-probabilities: no ensemble's scores.
    """

    k: int = 5
    text_power: float = 5.0
    alpha: float = 0.3
    given_weight: float = 30.0
    tolerance: float = 1e-6
    reads_cosines: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha must be in [0, 1), got {self.alpha}")
        for name in ("text_power", "given_weight", "tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def label(
        self,
        features: Features,
        logits: Float[Tensor, "n c"],
        label_space: LabelSpace,
        given: Int[Tensor, " n"] | None = None,
    ) -> PseudoLabels:
        """Return a hard label for every image, with the propagated shares as probabilities.

        The scale of the logits does not matter, their sign does: one below 0 makes no edge. An
        image that nothing reaches has even probabilities and is left out. Memory: the probabilities
        of n x c, O(n k) for the graph, about 1.5 GB for the solver and, before these, the features
        once more.

        Raises:
            ValueError: If the logits are of other images or classes, or none is above 0.
        """
        logits, is_open = open_logits(features, logits, label_space, given)
        known = torch.full_like(is_open, -1, dtype=torch.long) if given is None else given
        order = features.content_order().to(logits.device)
        ordered = features.values[order]
        graph = neighbour_graph(*nearest_neighbours(ordered, ordered, self.k, exclude_self=True))
        del ordered
        weights, classes = text_edges(logits, is_open, self.k, self.text_power)
        sources = self._sources(
            graph, weights[order], classes[order], known.to(logits.device)[order], len(label_space)
        )
        probs = torch.empty_like(logits)
        self._propagate(graph.normalised(), sources, probs, order)

        targets = label_space.targets.to(logits.device)
        probs[:, ~targets] *= ~is_open[:, None]
        reached = probs.sum(dim=1, keepdim=True) > 0
        probs[~reached[:, 0]] = targets.to(probs.dtype)
        probs /= probs.sum(dim=1, keepdim=True)
        candidates = torch.zeros_like(probs, dtype=torch.bool)
        candidates.scatter_(1, probs.argmax(dim=1, keepdim=True), reached)
        return with_given(features, probs, candidates, given)

    def _sources(
        self,
        graph: Graph,
        weights: Float[Tensor, "n k"],
        classes: Int[Tensor, "n k"],
        given: Int[Tensor, " n"],
        n_classes: int,
    ) -> tuple[Float[Tensor, "n k1"], Int[Tensor, "n k1"]]:
        """Return what is emitted into each image, and of which classes."""
        text = text_sources(weights, classes, graph.degrees, n_classes)
        labels = given_sources(given, text, self.given_weight)
        emitted = torch.cat([text, labels[:, None]], dim=1)
        return emitted, torch.cat([classes, given.clamp(min=0)[:, None]], dim=1)

    def _propagate(
        self,
        graph: Graph,
        sources: tuple[Float[Tensor, "n k1"], Int[Tensor, "n k1"]],
        shares: Float[Tensor, "n c"],
        order: Int[Tensor, " n"],
    ) -> None:
        """Write into ``shares[order]`` what reaches the nodes, a block of classes at a time."""
        emitted, classes = sources
        n, c = shares.shape
        step = max(1, COLUMN_BYTES // (4 * n))
        for start in range(0, c, step):
            stop = min(start + step, c)
            inside = (classes >= start) & (classes < stop)
            block = emitted.new_zeros(n, stop - start)
            places = (inside.nonzero()[:, 0], classes[inside] - start)
            block.index_put_(places, emitted[inside], accumulate=True)
            solved = propagate(graph, block, self.alpha, self.tolerance)
            shares[order, start:stop] = solved.clamp(min=0).to(shares.dtype)
