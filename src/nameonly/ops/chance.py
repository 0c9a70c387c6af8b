"""Chance that a run which resumes draws again."""

import torch
from jaxtyping import Int
from torch import Tensor


def batch_generator(rows: Int[Tensor, " b"], seed: int) -> torch.Generator:
    """Return a generator that follows from the rows of a batch, their order and a seed alone."""
    key = int((rows * torch.arange(1, len(rows) + 1)).sum()) * 7919 + seed
    return torch.Generator().manual_seed(key % 2**63)
