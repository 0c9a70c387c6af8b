"""One Gaussian a class with one covariance for all: estimated, scored and sampled."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.ops.selection import row_blocks

LEAST_SHARE = 1e-12


@dataclass(frozen=True)
class ClassGaussians:
    """Class means and their shared covariance, in float64.

    Attributes:
        means: One row per class.
        factor: Lower Cholesky factor of the covariance.
        shares: Share of each class in the weight it was estimated from; they sum to one.
    """

    means: Float[Tensor, "c d"]
    factor: Float[Tensor, "d d"]
    shares: Float[Tensor, " c"]

    @classmethod
    def estimate(
        cls,
        values: Float[Tensor, "n d"],
        weights: Float[Tensor, "n c"],
        fallback: Float[Tensor, "c d"],
    ) -> "ClassGaussians":
        """Estimate from weighted rows; the covariance is shrunk towards a ball of its trace.

        The shrinkage is Kubokawa and Srivastava's, which needs no tuning: the weight of the ball is
        ``d / (n - 1 + d)``, n the total weight. Rows that are all at their class's mean give the
        ball of unit rows. Memory: O(c d) + O(d^2) beyond the inputs.

        Args:
            values: Features.
            weights: How much each row counts for each class, non-negative.
            fallback: Means of the classes that no row counts for.

        Raises:
            ValueError: If no row has a weight.
        """
        counts = weights.sum(dim=0, dtype=torch.float64)
        total = counts.sum().item()
        if not total > 0:
            raise ValueError(f"none of the {len(values)} rows has a weight")
        d = values.shape[1]
        sums = values.new_zeros(len(counts), d, dtype=torch.float64)
        products = values.new_zeros(d, d, dtype=torch.float64)
        weighted = (weights.sum(dim=1) > 0).nonzero()[:, 0]
        for block in row_blocks(len(weighted), max(d, len(counts))):
            rows = weighted[block]
            x, w = values[rows].double(), weights[rows].double()
            sums += w.T @ x
            products += x.T @ (x * w.sum(dim=1, keepdim=True))
        means = sums / counts.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        scatter = products - means.T @ (means * counts[:, None])
        means = torch.where(counts[:, None] > 0, means, fallback.double())
        eye = torch.eye(d, dtype=torch.float64, device=values.device)
        if scatter.trace() <= LEAST_SHARE * products.trace():
            return cls(means, eye / math.sqrt(d), counts / total)
        ball = scatter.trace() / max(total - 1, 1.0) * eye
        factor = torch.linalg.cholesky((scatter + ball) / (max(total - 1, 1.0) + d))
        # row by row, as a file would give it back: another layout rounds otherwise
        return cls(means, factor.contiguous(), counts / total)

    def log_likelihood(self, values: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Return the log-density of every row under every class, without the shares, in float64."""
        centres = torch.linalg.solve_triangular(self.factor, self.means.T, upper=False)
        rows = torch.linalg.solve_triangular(self.factor, values.double().T, upper=False)
        lengths = rows.square().sum(dim=0)[:, None] + centres.square().sum(dim=0)
        volume = self.factor.diagonal().log().sum() + len(self.factor) / 2 * math.log(2 * math.pi)
        scores: Tensor = rows.T @ centres - lengths / 2 - volume
        return scores

    def sample(self, labels: Int[Tensor, " m"], generator: torch.Generator) -> Float[Tensor, "m d"]:
        """Draw one row for every label."""
        noise = torch.randn(len(labels), len(self.factor), generator=generator, dtype=torch.float64)
        return self.means[labels] + noise.to(self.means.device) @ self.factor.T
