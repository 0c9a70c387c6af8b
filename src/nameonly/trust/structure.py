"""How the images lie: a map of them in two dimensions, and classes that fall into two groups.

Papers: Principal components: Pearson, 1901. UMAP: McInnes et al., arXiv 1802.03426, where
    umap-learn is installed. Silhouettes: Rousseeuw, 1987.
"""

import importlib
import importlib.util
from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from torch import Tensor

from nameonly.types import Features

POINTS = 1_500
# a class is looked at with so many images, and is said to be two from this silhouette on
LEAST, MOST, TWO_GROUPS = 40, 400, 0.35


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
    places = torch.tensor(_reducer(len(rows)).fit_transform(values.numpy())).float()
    low, high = places.amin(dim=0), places.amax(dim=0)
    return rows, (places - low) / (high - low).clamp(min=1e-9)


def _reducer(n: int) -> Any:
    if n > 15 and importlib.util.find_spec("umap") is not None:
        return importlib.import_module("umap").UMAP(n_components=2, random_state=0)
    return PCA(n_components=2, random_state=0)


def two_groups(
    features: Features, labels: Int[Tensor, " n"], classes: list[int]
) -> dict[int, float]:
    """Return the classes whose images fall into two clear groups, with the silhouette of the two.

    Args:
        features: Of the images.
        labels: Class indices, -1 = none.
        classes: Those to look at; ones with fewer than 40 images are left out.
    """
    found = {}
    order = features.content_order()
    for k in classes:
        rows = order[labels[order] == k][:MOST]
        if len(rows) < LEAST:
            continue
        values = features.values[rows].float().cpu().numpy()
        groups = KMeans(2, n_init=3, random_state=0).fit_predict(values)
        if min(groups.mean(), 1 - groups.mean()) < 0.1:
            continue  # a few odd images are no second group
        value = float(silhouette_score(values, groups, metric="cosine"))
        if value >= TWO_GROUPS:
            found[k] = value
    return found
