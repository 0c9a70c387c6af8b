"""Exponential moving average of what training changes."""

from collections.abc import Sequence

import torch
from torch import Tensor


class RunningAverage:
    """Averages tensors over the steps of a training.

    Early steps weigh more, as in ``min(decay, (1 + t) / (10 + t))``, so that a short training is
    not held back by where it began (the schedule of TensorFlow's ExponentialMovingAverage).

    Attributes:
        state: The averages and the number of steps, for a checkpoint.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        """Begin at the tensors' values.

        Args:
            tensors: Changed in place by the training.
            decay: Share of the average that a step keeps, in [0, 1).
        """
        self._tensors, self._decay = tensors, decay
        self._values = [tensor.detach().clone() for tensor in tensors]
        self._steps = torch.zeros(())
        self.state = [*self._values, self._steps]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the values of a step; whole numbers are taken as they are."""
        steps = self._steps.item()
        kept = min(self._decay, (1 + steps) / (10 + steps))
        for value, tensor in zip(self._values, self._tensors, strict=True):
            if value.is_floating_point():
                value.lerp_(tensor, 1 - kept)
            else:
                value.copy_(tensor)
        self._steps += 1

    @torch.no_grad()
    def put(self) -> None:
        """Give the tensors their averages."""
        for value, tensor in zip(self._values, self._tensors, strict=True):
            tensor.copy_(value)
