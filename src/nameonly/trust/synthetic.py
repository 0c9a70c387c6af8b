"""What synthetic images are worth, by their features: how diverse, how faithful, how near the real.

Papers: Vendi score: Friedman, Dieng, arXiv 2210.02410, eq. 2. Density and coverage: Naeem et al.,
    arXiv 2002.09797, eq. 3 and 4. CMMD: Jayasumana et al., arXiv 2401.09603, eq. 4. Telling two
    samples apart by a classifier: Lopez-Paz, Oquab, arXiv 1610.06545.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nameonly.ops.neighbours import nearest_neighbours
from nameonly.types import Features, TextClassifier

NEIGHBOURS = 5
BLOCK = 1_024
# CMMD's own constants
BANDWIDTH, MMD_SCALE = 10.0, 1000.0
FOLDS = 5
MOST_TOLD_APART = 2_000
# images of a kind that are compared with the others, drawn by chance where there are more
MOST_COMPARED = 10_000


@dataclass(frozen=True)
class Worth:
    """Figures of some synthetic images; None where there are too few images to say.

    Attributes:
        n: How many synthetic images.
        n_real: How many real ones they are compared with.
        distance: Mean of one minus the cosine over all pairs; 0 where all are the same.
        vendi: Effective number of different images, from 1 to n.
        agreement: Mean probability that the text classifier gives the class each was made for.
        recognised: Share of images of which that class is the most probable.
        density: How many real images' neighbourhoods an image lies in, against what real images
            would; can exceed 1.
        coverage: Share of real images in whose neighbourhood a synthetic one lies.
        mmd: CMMD: squared maximum mean discrepancy between both kinds, times 1,000; about 0, above
            or below, where their features are of one distribution.
        told_apart: Balanced accuracy of a classifier that tells both kinds apart, on images that it
            was not trained on; 0.5 where they cannot be told apart.
    """

    n: int
    n_real: int
    distance: float | None
    vendi: float
    agreement: float
    recognised: float
    density: float | None
    coverage: float | None
    mmd: float | None
    told_apart: float | None


def mean_pairwise_distance(values: Float[Tensor, "n d"]) -> float | None:
    """Return the mean of one minus the cosine over all pairs of unit rows; None for one row."""
    n = len(values)
    if n < 2:
        return None
    total = values.double().sum(dim=0).square().sum().item()
    return 1 - (total - n) / (n * (n - 1))


def vendi_score(values: Float[Tensor, "n d"]) -> float:
    """Return the exponential of the entropy of the eigenvalues of ``V V' / n``, V unit rows."""
    rows = values.double()
    smaller = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    shares = torch.linalg.eigvalsh(smaller / len(rows)).clamp(min=0)
    shares = shares[shares > 1e-12]
    return float((-(shares * shares.log()).sum()).exp())


def density_and_coverage(
    made: Float[Tensor, "m d"], real: Float[Tensor, "n d"], k: int = NEIGHBOURS
) -> tuple[float, float] | None:
    """Return density and coverage by balls that reach to every real row's k-th real neighbour.

    Memory: a block of made rows against all real ones.

    Args:
        made: Unit rows.
        real: Unit rows.
        k: Neighbours.

    Returns:
        None where there are not k + 1 real rows.
    """
    if len(real) <= k:
        return None
    least = nearest_neighbours(real, real, k, exclude_self=True)[0][:, -1]
    inside, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for block in torch.split(made, BLOCK):
        within = block @ real.T >= least
        inside += int(within.sum())
        covered |= within.any(dim=0)
    return inside / (k * len(made)), covered.double().mean().item()


def mmd(made: Float[Tensor, "m d"], real: Float[Tensor, "n d"]) -> float | None:
    """Return CMMD of unit rows: a Gaussian kernel of bandwidth 10, times 1,000.

    No row is compared with itself (the unbiased estimate), so that few images and many can be
    compared; the paper's published code does, which adds nearly ``1000 / m`` times how far rows are
    apart.

    Returns:
        None where there are fewer than two rows of a kind.
    """
    if min(len(made), len(real)) < 2:
        return None

    def kernels(a: Float[Tensor, "a d"], b: Float[Tensor, "b d"]) -> float:
        return sum(
            ((block.double() @ b.double().T - 1) / BANDWIDTH**2).exp().sum().item()
            for block in torch.split(a, BLOCK)
        )

    def within(a: Float[Tensor, "a d"]) -> float:
        return (kernels(a, a) - len(a)) / (len(a) * (len(a) - 1))

    between = kernels(made, real) / (len(made) * len(real))
    return MMD_SCALE * (within(made) + within(real) - 2 * between)


def told_apart(
    made: Float[Tensor, "m d"], real: Float[Tensor, "n d"], seed: int = 0
) -> float | None:
    """Return the cross-validated balanced accuracy of a regression that tells two samples apart.

    Args:
        made: Unit rows; at most 2,000 are drawn.
        real: Unit rows; at most 2,000 are drawn.
        seed: Of the folds.

    Returns:
        None where there are fewer than ten rows of a kind.
    """
    if min(len(made), len(real)) < 2 * FOLDS:
        return None
    few = [drawn(rows, MOST_TOLD_APART).cpu().numpy() for rows in (made, real)]
    x, y = np.concatenate(few), np.repeat([1, 0], [len(rows) for rows in few])
    # a second of import, which runs without synthetic images need not wait for
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=1000)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_score(model, x, y, cv=folds, scoring="balanced_accuracy")
    return float(scores.mean())


def drawn(rows: Float[Tensor, "n d"], most: int) -> Float[Tensor, "m d"]:
    """Return rows drawn by chance, always the same ones; all of them where there are no more."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most]]


@dataclass(frozen=True)
class Measured:
    """Figures of all images, by trick and by class.

    Attributes:
        all: Of all images.
        tricks: Of those of each prompt trick, against all real images.
        classes: Of those of each class, against the real images that the text classifier puts
            there; no label is used.
    """

    all: Worth
    tricks: dict[str, Worth]
    classes: dict[str, Worth]


def measure(
    made: Features,
    labels: Int[Tensor, " m"],
    text: TextClassifier,
    real: Features | None = None,
    tricks: Sequence[str] = (),
) -> Measured:
    """Return what synthetic images are worth.

    Args:
        made: Of synthetic images.
        labels: The class that each was made for.
        text: The zero-shot classifier.
        real: Of unlabelled real images; without them nothing is compared.
        tricks: The prompt trick of each, to tell them apart.

    Raises:
        ValueError: If the features are of two backbones, or there are not as many labels or tricks
            as images, or none.
    """
    if real is not None and made.backbone != real.backbone:
        raise ValueError(f"features of {made.backbone!r} and {real.backbone!r} cannot be compared")
    for name, given in (("labels", labels), ("tricks", tricks or labels)):
        if len(given) != len(made) or not len(made):
            raise ValueError(f"{len(given)} {name} for {len(made)} synthetic images")
    values = made.values[:0] if real is None else real.values
    found = values.new_zeros(0).long()
    if real is not None:
        found = text.predict_logits(real).argmax(dim=1)
    probs = text.predict_logits(made).softmax(dim=1)

    def worth(chosen: Bool[Tensor, " m"], of: Float[Tensor, "n d"]) -> Worth:
        return _worth(made.values[chosen], labels[chosen], probs[chosen], of)

    masks = {name: torch.tensor([t == name for t in tricks]) for name in dict.fromkeys(tricks)}
    names = enumerate(text.class_names)
    return Measured(
        worth(labels >= 0, values),
        {name: worth(mask, values) for name, mask in masks.items()},
        {name: worth(labels == i, values[found == i]) for i, name in names if (labels == i).any()},
    )


def _worth(
    made: Float[Tensor, "m d"],
    labels: Int[Tensor, " m"],
    probs: Float[Tensor, "m c"],
    real: Float[Tensor, "n d"],
) -> Worth:
    few, others = drawn(made, MOST_COMPARED), drawn(real, MOST_COMPARED)
    near = density_and_coverage(few, others)
    return Worth(
        n=len(made),
        n_real=len(real),
        distance=mean_pairwise_distance(made),
        vendi=vendi_score(made),
        agreement=probs[torch.arange(len(made)), labels].mean().item(),
        recognised=(probs.argmax(dim=1) == labels).double().mean().item(),
        density=None if near is None else near[0],
        coverage=None if near is None else near[1],
        mmd=mmd(few, others),
        told_apart=told_apart(made, real),
    )
