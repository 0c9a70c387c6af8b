"""How the images lie: a map of them in two dimensions, and classes that fall into two groups.

Papers: Principal components: Pearson, 1901. UMAP: McInnes et al., arXiv 1802.03426, where
    umap-learn is installed. Silhouettes: Rousseeuw, 1987.
"""

import importlib
import importlib.util

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nameonly.types import Features

POINTS = 1_500
# a class is looked at with so many images, and is said to be two from this silhouette on, which was
# chosen on the development half of the digits: benchmarks/two_groups_digits.py
LEAST, MOST, TWO_GROUPS = 40, 400, 0.55


def feature_map(
    features: Features, most: int = POINTS
) -> tuple[Int[Tensor, " m"], Float[Tensor, "m 2"]]:
    """Return rows, drawn by content, and their places on a map, each axis within [0, 1].

    The map is of principal components, or of UMAP where umap-learn is installed.
    """
    rows = features.content_order()[:most]
    values = features.values[rows].float().cpu()
    if len(rows) < 3 or values.shape[1] < 2:
        return rows, torch.full((len(rows), 2), 0.5)
    places = _umap(values) if _has_umap(len(rows)) else _principal(values)
    low, high = places.amin(dim=0), places.amax(dim=0)
    return rows, (places - low) / (high - low).clamp(min=1e-9)


def _has_umap(n: int) -> bool:
    return n > 15 and importlib.util.find_spec("umap") is not None


def _umap(values: Float[Tensor, "m d"]) -> Float[Tensor, "m 2"]:
    reducer = importlib.import_module("umap").UMAP(n_components=2, random_state=0)
    return torch.tensor(reducer.fit_transform(values.numpy())).float()


def _principal(values: Float[Tensor, "m d"]) -> Float[Tensor, "m 2"]:
    with torch.random.fork_rng(devices=[]):  # it takes no generator
        torch.default_generator.manual_seed(0)
        parts = torch.pca_lowrank(values, q=min(6, *values.shape), niter=4)
    axes = parts[2][:, :2]
    # either sign is as good; the largest entry decides, so that the map is the same everywhere
    signs = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    return (values - values.mean(dim=0)) @ (axes * signs)


def two_groups(
    features: Features, labels: Int[Tensor, " n"], classes: list[int]
) -> dict[int, float]:
    """Return the classes whose images fall into two clear groups, with the silhouette of the two.

    Args:
        features: Of the images.
        labels: Class indices, -1 = none.
        classes: Those to look at; ones with fewer than 40 images are left out.
    """
    order = features.content_order()
    members = {k: order[labels[order] == k][:MOST] for k in classes}
    values = {
        k: silhouette_of_two(features.values[rows])
        for k, rows in members.items()
        if len(rows) >= LEAST
    }
    return {k: value for k, value in values.items() if value >= TWO_GROUPS}


def silhouette_of_two(values: Float[Tensor, "n d"]) -> float:
    """Return the silhouette, by cosine, of the two groups into which k-means splits rows.

    Zero where one of the groups is a few odd rows: less than a tenth.

    Args:
        values: Unit rows, two or more.

    Returns:
        In [-1, 1], higher for groups that lie apart.
    """
    # a second of import, which few images need not wait for
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    rows = values.float().cpu().numpy()
    groups = KMeans(2, n_init=3, random_state=0).fit_predict(rows)
    if min(groups.mean(), 1 - groups.mean()) < 0.1:
        return 0.0
    return float(silhouette_score(rows, groups, metric="cosine"))
