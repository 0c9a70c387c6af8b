"""Matching images with classes that have few places: deferred acceptance."""

import math
from collections.abc import Sequence
from heapq import heappush, heappushpop

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.selection import row_blocks


def places_per_class(images_per_class: int | tuple[int, ...], c: int) -> Int[Tensor, " c"]:
    """Return how many images every class may take.

    Args:
        images_per_class: One number for every class, or one number each.
        c: How many classes there are.

    Raises:
        ValueError: If there are not as many numbers as classes.
    """
    if isinstance(images_per_class, int):
        return torch.full((c,), images_per_class)
    if len(images_per_class) != c:
        raise ValueError(
            f"images_per_class has {len(images_per_class)} numbers for {c} classes; give one "
            f"number for all of them or one each"
        )
    return torch.tensor(images_per_class, dtype=torch.long)


def check_places(images_per_class: int | tuple[int, ...]) -> None:
    """Refuse a number of places that cannot be meant.

    Raises:
        ValueError: If the one number is below 1, or one of several is below 0.
    """
    if isinstance(images_per_class, int):
        if images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1, got {images_per_class}")
    elif min(images_per_class, default=0) < 0:
        raise ValueError(f"images_per_class must be at least 0 each, got {min(images_per_class)}")


def name_order(class_names: Sequence[str]) -> Int[Tensor, " c"]:
    """Return the columns in order of their names: the order of columns cannot change it."""
    return torch.tensor(sorted(range(len(class_names)), key=class_names.__getitem__))


def deferred_acceptance(
    scores: Float[Tensor, "n c"],
    capacities: Int[Tensor, " c"],
    order: Int[Tensor, " n"] | None = None,
    class_order: Int[Tensor, " c"] | None = None,
) -> Int[Tensor, " n"]:
    """Return every image's class, -1 for none, in the stable matching best for the images.

    Every image applies to its classes in descending score; a full class keeps the better images
    and the refused one applies on (Gale and Shapley 1962): no image and class would both rather
    have each other. A full class only grows choosier, so an image goes straight to the best class
    that would take it now; nothing is sorted and no list of preferences held.

    Memory beyond the scores: O(n + c) and a block of rows. Time: O(c) an application, one to a few
    per image unless ``order`` has the images worst first; a hash is safe.

    Args:
        scores: Larger is better, for the image and for the class; ``-inf`` is not acceptable.
        capacities: Places of every class, 0 or more.
        order: Images in the order that breaks a class's ties (the earlier wins); row order if None.
        class_order: Classes in the order that breaks an image's ties; column order if None.
    """
    n, c = scores.shape
    columns = (torch.arange(c) if class_order is None else class_order).to(scores.device)
    free = torch.arange(n) if order is None else order.cpu()
    rank = torch.empty_like(free)
    rank[free] = torch.arange(n)
    board = _Board(capacities.tolist())
    while len(free):
        refused: list[int] = []
        for rows in row_blocks(len(free), c):
            images, ranks = free[rows], rank[free[rows]]
            block = scores[images.to(scores.device)]
            best = board.reachable(block, ranks)[:, columns].max(dim=1)
            goals = columns[best.indices]
            entries = zip(best.values.tolist(), (-ranks).tolist(), images.tolist(), strict=True)
            for entry, j in zip(entries, goals.tolist(), strict=True):
                refused += board.apply(entry, j)
        free = torch.tensor(refused, dtype=torch.long)
    matched = torch.full((n,), -1)
    for j, held in enumerate(board.held):
        matched[[image for _, _, image in held]] = j
    return matched.to(scores.device)


class _Board:
    """Who holds the places of every class, and what it takes to get one.

    An entry is a score, a negated rank (a tie goes to the lower rank) and an image; the smallest
    one leaves first.
    """

    def __init__(self, places: list[int]) -> None:
        self.places = places
        self.held: list[list[tuple[float, int, int]]] = [[] for _ in places]
        self.bar = [-math.inf if k else math.inf for k in places]
        self.bar_rank = [-1] * len(places)

    def reachable(
        self, scores: Float[Tensor, "b c"], ranks: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        """Return the scores, ``-inf`` where the class would not take the image now."""
        bar = torch.tensor(self.bar, dtype=scores.dtype, device=scores.device)
        bar_rank = torch.tensor(self.bar_rank, device=scores.device)
        earlier = ranks.to(scores.device)[:, None] < bar_rank
        taken = (scores > bar) | ((scores == bar) & earlier)
        return scores.masked_fill(~taken, -torch.inf)

    def apply(self, entry: tuple[float, int, int], j: int) -> list[int]:
        """Let an image apply to class ``j`` and return who is without a class after that."""
        held, refused = self.held[j], []
        if entry[0] == -math.inf:  # it has asked every class
            return []
        if len(held) < self.places[j]:
            heappush(held, entry)
        else:
            refused = [heappushpop(held, entry)[2]]
        if len(held) == self.places[j]:
            self.bar[j], self.bar_rank[j] = held[0][0], -held[0][1]
        return refused
