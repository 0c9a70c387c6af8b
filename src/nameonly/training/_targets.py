"""What an image shall be told to be, how much it weighs, and mixtures of two."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.types import PseudoLabels


def readable(
    labels: PseudoLabels, rows: Int[Tensor, " m"], class_names: Sequence[str]
) -> PseudoLabels:
    """Return the labels of the images that could be read.

    Args:
        labels: Of all images.
        rows: Of those that could be read.
        class_names: Of the columns.

    Raises:
        ValueError: If all images of a class are lost.
    """
    left = labels.subset(rows)
    before, after = (one.candidates.any(dim=0) for one in (labels, left))
    lost = [class_names[i] for i in (before & ~after).nonzero()[:, 0].tolist()]
    if lost:
        raise ValueError(
            f"no image of {', '.join(map(repr, lost))} can be read; the network could never answer "
            "it: make or bring whole images of it, or train without it"
        )
    return left


def training_targets(
    labels: PseudoLabels, softness: float, smoothing: float
) -> Float[Tensor, "n c"]:
    """Return what each image shall be: its label, partly its probabilities, partly any class."""
    c = labels.probs.shape[1]
    mixed = (1 - softness) * labels.targets + softness * labels.probs
    return (1 - smoothing) * mixed + smoothing / c


def image_weights(labels: PseudoLabels, balanced: bool) -> Float[Tensor, " n"]:
    """Return each image's weight, of mean one; balanced, all classes that occur weigh the same."""
    weights = torch.ones(len(labels.ids)) if labels.weights is None else labels.weights.float()
    if balanced:
        total = torch.zeros(labels.probs.shape[1]).index_add_(0, labels.labels, weights)
        weights = weights / total[labels.labels].clamp(min=1e-30)
    return weights * (len(weights) / weights.sum().clamp(min=1e-30))


def mix(
    pixels: Float[Tensor, "b 3 h w"],
    targets: Float[Tensor, "b c"],
    alpha: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b c"]]:
    """Return every image mixed with another of the batch, and its target (Zhang et al. 2018).

    Args:
        pixels: The images.
        targets: In the same order.
        alpha: Of the Beta distribution that the share is drawn from, one for the batch.
        generator: On the CPU.
    """
    order = torch.randperm(len(pixels), generator=generator)
    # torch's Beta distribution takes no generator
    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    return pixels.lerp(pixels[order], 1 - share), targets.lerp(targets[order], 1 - share)
