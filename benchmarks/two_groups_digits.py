"""From which silhouette on a class is said to be two: digits alone, and pairs under one name.

uv run python benchmarks/two_groups_digits.py

A class of one digit should not be called two, a class of two digits should. The threshold is chosen
on the development half and told on the other. Beside the silhouette stands what it has over that of
a cloud without groups: rows drawn from one normal distribution of the same mean and covariance.
"""

from itertools import combinations_with_replacement

import torch
from accuracy_digits import encode
from results import write
from torch import Tensor
from torch.nn.functional import normalize

from nameonly.tiny.digits import CLASS_NAMES, halves
from nameonly.trust.structure import MOST, TWO_GROUPS, silhouette_of_two

DRAWS = 5
THRESHOLDS = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


def without_groups(values: Tensor) -> float:
    """Return the mean silhouette of clouds with the mean and the covariance of rows."""
    mean, n = values.mean(dim=0), len(values)
    drawn = []
    for seed in range(DRAWS):
        noise = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
        cloud = mean + noise @ (values - mean) / n**0.5
        drawn.append(silhouette_of_two(normalize(cloud, dim=1)))
    return sum(drawn) / DRAWS


def measure(values: Tensor, truth: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return both scores of classes that are one digit and of those that are two."""
    found: dict[str, list[tuple[float, float]]] = {"one": [], "two": []}
    for a, b in combinations_with_replacement(range(len(CLASS_NAMES)), 2):
        rows = values[(truth == a) | (truth == b)][:MOST]
        silhouette = silhouette_of_two(rows)
        scores = silhouette, silhouette - without_groups(rows)
        found["one" if a == b else "two"].append(scores)
    return {kind: tuple(torch.tensor(scores).T) for kind, scores in found.items()}


def main() -> None:
    """Measure both halves and write the page."""
    features, _, truth = encode()
    lines: list[str] = []
    figures: dict[str, float] = {}
    for half, rows in zip(("development", "final"), halves(), strict=True):
        found = measure(features.values[rows], truth[rows])
        one, two = found["one"], found["two"]
        apart = [
            (t[:, None] > o[None]).float().mean().item() for o, t in zip(one, two, strict=True)
        ]
        figures |= {f"{half}_auroc": apart[0], f"{half}_auroc_over_a_cloud": apart[1]}
        lines += [
            f"{half.capitalize()} half, {len(one[0])} digits and {len(two[0])} pairs: told apart "
            f"(AUROC) {100 * apart[0]:.1f} % by the silhouette, {100 * apart[1]:.1f} % by what it "
            "has over a cloud's.",
            "",
            "| silhouette from | digits called two, % | pairs called two, % |",
            "| ---: | ---: | ---: |",
        ]
        for least in THRESHOLDS:
            shares = [100 * (kind[0] >= least).float().mean().item() for kind in (one, two)]
            figures |= {f"{half}_one_{least}": shares[0], f"{half}_two_{least}": shares[1]}
            taken = " (taken)" if least == TWO_GROUPS else ""
            lines.append(f"| {least}{taken} | {shares[0]:.0f} | {shares[1]:.0f} |")
        lines.append("")
    write("two_groups_digits", figures, lines[:-1])


if __name__ == "__main__":
    main()
