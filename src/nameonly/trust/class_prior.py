"""How many of the images belong to each class, estimated without a label.

Papers: Saerens, Latinne, Decaestecker. Adjusting the Outputs of a Classifier to New a Priori
    Probabilities. Neural Computation, 2002 (EM). Optimal transport with a relaxed column marginal:
    Chizat et al. Scaling Algorithms for Unbalanced Optimal Transport. 2018, arXiv 1607.05816.
Differs: both start from calibrated probabilities under a flat prior; saturated ones would leave
    them where they start.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.selection import row_blocks

STEPS = 500
# a class that holds less than this share of an equal one counts as empty
EMPTY = 0.1
# images that leave or enter a class, against its size, before it counts as swallowed or swallowing
SWALLOWED = 0.5


def em_prior(probs: Float[Tensor, "n c"], steps: int = STEPS) -> Float[Tensor, " c"]:
    """Return class shares at which the images are most likely (expectation maximisation).

    Args:
        probs: Calibrated, of a classifier that takes all classes as equally frequent.
        steps: At most.
    """
    n, c = probs.shape
    prior = torch.full((c,), 1 / c, dtype=torch.float64)
    for _ in range(steps):
        sums = torch.zeros(c, dtype=torch.float64)
        for rows in row_blocks(n, c):
            joint = probs[rows].double() * prior
            sums += (joint / joint.sum(dim=1, keepdim=True).clamp(min=1e-30)).sum(dim=0)
        before, prior = prior, sums / n
        if (prior - before).abs().max() < 1e-7:
            break
    return prior.to(probs)


def transport_prior(
    probs: Float[Tensor, "n c"], pull: float = 1.0, steps: int = STEPS
) -> Float[Tensor, " c"]:
    """Return the column sums of a transport plan that is drawn towards equal classes.

    Each image sends its mass to classes at a cost of minus the logarithm of its probability, with
    entropy one; the columns pay ``pull`` times their Kullback-Leibler divergence from equal shares.

    Args:
        probs: Calibrated probabilities.
        pull: 0 gives the mean of the probabilities; without bound, equal shares.
        steps: At most.
    """
    n, c = probs.shape
    power = pull / (1 + pull)
    columns = torch.ones(c, dtype=torch.float64)
    shares = columns / c
    for _ in range(steps):
        before, sums = columns, torch.zeros(c, dtype=torch.float64)
        for rows in row_blocks(n, c):
            exact = probs[rows].double().clamp(min=1e-30)
            sums += exact.T @ ((1 / n) / (exact @ columns))
        columns = (1 / c / sums) ** power
        shares = columns * sums
        if (columns / before).log().abs().max() < 1e-9:
            break
    return (shares / shares.sum()).to(probs)


@dataclass(frozen=True)
class PriorWarning:
    """Something about the class shares that a person should look at.

    Attributes:
        kind: ``"empty"``, ``"not flat"`` or ``"swallows"``.
        classes: The classes concerned, by column.
        text: In words.
    """

    kind: str
    classes: tuple[int, ...]
    text: str


def prior_warnings(
    labels: Int[Tensor, " n"],
    prior: Float[Tensor, " c"],
    class_names: tuple[str, ...],
    balanced: bool = False,
) -> list[PriorWarning]:
    """Return what to look at: empty classes, classes that swallow others, a prior that is not flat.

    Args:
        labels: The labels given, -1 = none.
        prior: Estimated class shares.
        class_names: Their names.
        balanced: Whether what made the labels takes all classes as equally frequent.
    """
    c, labelled = len(class_names), labels[labels >= 0]
    if not len(labelled):
        return []
    shares = torch.bincount(labelled.cpu(), minlength=c) / len(labelled)
    found = []
    empty = tuple(int(k) for k in (shares < EMPTY / c).nonzero()[:, 0])
    if empty:
        names = ", ".join(repr(class_names[k]) for k in empty[:5])
        found.append(
            PriorWarning(
                "empty", empty, f"{names} got hardly any image: not there, or badly named?"
            )
        )
    for k in (shares > (1 + SWALLOWED) * prior.cpu() + 0.5 / c).nonzero()[:, 0].tolist():
        found.append(
            PriorWarning(
                "swallows",
                (k,),
                f"{class_names[k]!r} holds {shares[k]:.0%} of the images, about {prior[k]:.0%} "
                "expected: it may swallow others",
            )
        )
    if balanced and c > 1 and float(prior.max()) > 3 * float(prior.median()):
        k = int(prior.argmax())
        found.append(
            PriorWarning(
                "not flat",
                (k,),
                f"equal classes were assumed, but {class_names[k]!r} seems to hold {prior[k]:.0%}",
            )
        )
    return found
