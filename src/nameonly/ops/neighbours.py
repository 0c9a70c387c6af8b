"""Nearest rows by cosine: exact in blocks, and through an index of own clusters for large sets."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

EXACT_ROWS = 200_000
# similarities held at once: a block of queries against a block of keys
BLOCK_BYTES = 16 * 2**20
KEY_BLOCK = 8_192
QUERY_BLOCK = 65_536
CHUNK = 64
# the sample that chooses the probes errs by a point or two, so it aims above what is promised
AIMED_RECALL = 0.98
# looking into more than this share of the lists costs more than looking at every key
MOST_PROBED = 1 / 3
SAMPLE = 1_000
SAMPLE_PER_LIST = 64
CLUSTER_STEPS = 10

Found = tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]


def nearest_neighbours(
    queries: Float[Tensor, "m d"],
    keys: Float[Tensor, "n d"],
    k: int,
    *,
    exclude_self: bool = False,
    seed: int = 0,
) -> Found:
    """Return every query's ``k`` most similar keys: cosines, falling, and rows of ``keys``.

    Exact up to 200,000 keys, and beyond as long as there are no more pairs than in 200,000 x
    200,000; larger searches go through ``indexed_neighbours``, which finds at least 95 % of them
    (``neighbour_recall`` measures it). Which of equally similar keys is taken depends on their
    place: put the rows into ``Features.content_order`` where order must not matter. Memory: O(m k),
    a block of 16 MiB, and O(n) for the index; never m x n.

    Args:
        queries: Unit rows.
        keys: Unit rows.
        k: How many; all keys where there are fewer.
        exclude_self: Query i is key i, and no neighbour of itself.
        seed: Of the index; the same seed finds the same rows.

    Raises:
        ValueError: If ``k`` is below 1, or ``exclude_self`` is asked for with different numbers of
            queries and keys.
    """
    _check(queries, keys, k, exclude_self)
    large = len(keys) > EXACT_ROWS and len(queries) * len(keys) > EXACT_ROWS**2
    own = torch.arange(len(queries), device=queries.device) if exclude_self else None
    return _indexed(queries, keys, k, own, seed) if large else _exact(queries, keys, k, own)


def indexed_neighbours(
    queries: Float[Tensor, "m d"],
    keys: Float[Tensor, "n d"],
    k: int,
    *,
    exclude_self: bool = False,
    seed: int = 0,
) -> Found:
    """Return neighbours as ``nearest_neighbours`` does, always through the index.

    Keys are put into about sqrt(n) lists by spherical k-means on a sample; a query looks at the
    lists whose centroids are nearest. How many is measured: as many as hold 98 % of the true
    neighbours of 1,000 sampled queries. Clustered features need few. Rows without any structure
    would need most lists; beyond a third of them the search is exact after all.

    Raises:
        ValueError: As ``nearest_neighbours``.
    """
    _check(queries, keys, k, exclude_self)
    own = torch.arange(len(queries), device=queries.device) if exclude_self else None
    return _indexed(queries, keys, k, own, seed)


def neighbour_recall(
    similarities: Float[Tensor, "m k"],
    queries: Float[Tensor, "m d"],
    keys: Float[Tensor, "n d"],
    *,
    exclude_self: bool = False,
    n_sample: int = SAMPLE,
    seed: int = 1,
) -> float:
    """Return the share of true neighbours among those found, on a sample of queries.

    A key found counts if it is as similar as the k-th true one, whichever of equals that is.

    Args:
        similarities: Of the neighbours found, one row per query.
        queries: Unit rows, all of them.
        keys: Unit rows.
        exclude_self: As in the search.
        n_sample: Queries to search exactly.
        seed: Of the sample; not the one that the index chose its probes on.
    """
    rows = _sample(len(queries), n_sample, seed).to(queries.device)
    k = similarities.shape[1]
    true, _ = _exact(queries[rows], keys, k, rows if exclude_self else None)
    # cosines of the same pair computed in another block differ by rounding
    least = true[:, -1:] - 1e-6
    return (similarities[rows] >= least).double().mean().item()


def top_of_rows(scores: Float[Tensor, "m n"], k: int) -> Found:
    """Return the ``k`` largest scores of every row and their columns.

    Equals ``topk``, which sifts every score; here only the ``k`` chunks with the largest maxima are
    sifted, since no other chunk can hold one of the ``k`` largest.
    """
    m, n = scores.shape
    n_chunks = n // CHUNK
    if n_chunks <= 2 * k:
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    chunked = n_chunks * CHUNK
    maxima = scores[:, :chunked].view(m, n_chunks, CHUNK).amax(dim=2)
    chunks = maxima.topk(k, dim=1).indices.sort(dim=1).values
    within = torch.arange(CHUNK, device=scores.device)
    rest = torch.arange(chunked, n, device=scores.device).expand(m, -1)
    columns = torch.cat([(chunks[:, :, None] * CHUNK + within).flatten(1), rest], dim=1)
    best = scores.gather(1, columns).topk(k, dim=1)
    return best.values, columns.gather(1, best.indices)


def _check(queries: Tensor, keys: Tensor, k: int, exclude_self: bool) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if exclude_self and len(queries) != len(keys):
        raise ValueError(
            f"exclude_self means that queries are the keys, got {len(queries)} and {len(keys)} rows"
        )


def _sample(n: int, size: int, seed: int) -> Int[Tensor, " s"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n, generator=generator)[:size].sort().values


def _exact(
    queries: Float[Tensor, "m d"],
    keys: Float[Tensor, "n d"],
    k: int,
    own: Int[Tensor, " m"] | None = None,
) -> Found:
    """Search all keys; ``own`` holds each query's row among the keys, which is left out."""
    wanted = k if own is None else k + 1
    step = max(1, BLOCK_BYTES // (4 * min(len(keys), KEY_BLOCK)))
    found = [_search(queries[i : i + step], keys, wanted) for i in range(0, len(queries), step)]
    similarities, rows = (torch.cat(parts) for parts in zip(*found, strict=True))
    return (similarities, rows) if own is None else _without(similarities, rows, own)


def _search(queries: Float[Tensor, "b d"], keys: Float[Tensor, "n d"], k: int) -> Found:
    best: Found | None = None
    for start in range(0, len(keys), KEY_BLOCK):
        scores = queries @ keys[start : start + KEY_BLOCK].T
        values, columns = top_of_rows(scores, min(k, scores.shape[1]))
        found = values, columns + start
        best = found if best is None else _merge(best, found, k)
    assert best is not None
    return best


def _merge(
    a: tuple[Float[Tensor, "m i"], Int[Tensor, "m i"]],
    b: tuple[Float[Tensor, "m j"], Int[Tensor, "m j"]],
    k: int,
) -> Found:
    """Return the best ``k`` of two finds, all where there are fewer."""
    values, rows = (torch.cat(pair, dim=1) for pair in zip(a, b, strict=True))
    best = values.topk(min(k, values.shape[1]), dim=1)
    return best.values, rows.gather(1, best.indices)


def _without(
    similarities: Float[Tensor, "m k1"], rows: Int[Tensor, "m k1"], own: Int[Tensor, " m"]
) -> Found:
    """Drop each query's own row, or the last where many equals have pushed it out."""
    others = similarities.masked_fill(rows == own[:, None], -torch.inf)
    best = others.topk(rows.shape[1] - 1, dim=1)
    return best.values, rows.gather(1, best.indices)


@dataclass(frozen=True)
class _Index:
    centroids: Float[Tensor, "l d"]
    list_of: Int[Tensor, " n"]
    order: Int[Tensor, " n"]
    bounds: tuple[int, ...]

    def rows(self, i: int) -> Int[Tensor, " r"]:
        return self.order[self.bounds[i] : self.bounds[i + 1]]


def _lists(list_of: Int[Tensor, " n"], n_lists: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " l"]]:
    """Return the rows list by list, and where each list begins and the last ends."""
    counts = torch.bincount(list_of, minlength=n_lists)
    return list_of.argsort(stable=True), torch.cat([counts[:1] * 0, counts.cumsum(0)])


def _build(keys: Float[Tensor, "n d"], seed: int) -> _Index:
    """Cluster the keys by spherical k-means on a sample."""
    n_lists = max(1, round(math.sqrt(len(keys))))
    shuffled = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed))
    sample = keys[shuffled[: SAMPLE_PER_LIST * n_lists].to(keys.device)]
    centroids = sample[:n_lists]
    for _ in range(CLUSTER_STEPS):
        order, bounds = _lists(_exact(sample, centroids, 1)[1][:, 0], n_lists)
        sums = embedding_bag(order, sample, bounds, mode="sum", include_last_offset=True)
        empty = bounds[1:] == bounds[:-1]
        centroids = torch.where(empty[:, None], centroids, normalize(sums, dim=1))
    list_of = _exact(keys, centroids, 1)[1][:, 0]
    order, bounds = _lists(list_of, n_lists)
    return _Index(centroids, list_of, order, tuple(bounds.tolist()))


def _probes(
    index: _Index,
    queries: Float[Tensor, "s d"],
    keys: Float[Tensor, "n d"],
    k: int,
    own: Int[Tensor, " s"] | None,
) -> int:
    """Return how many lists hold the aimed share of the queries' true neighbours."""
    _, true = _exact(queries, keys, k, own)
    scores = queries @ index.centroids.T
    at = scores.gather(1, index.list_of[true])
    ranks = torch.stack([(scores > at[:, j : j + 1]).sum(dim=1) for j in range(at.shape[1])])
    ranks = ranks.flatten().sort().values
    return int(ranks[math.ceil(AIMED_RECALL * len(ranks)) - 1]) + 1


def _indexed(
    queries: Float[Tensor, "m d"],
    keys: Float[Tensor, "n d"],
    k: int,
    own: Int[Tensor, " m"] | None,
    seed: int,
) -> Found:
    wanted = k if own is None else k + 1
    if len(keys) <= wanted:
        return _exact(queries, keys, k, own)
    index = _build(keys, seed)
    sample = _sample(len(queries), SAMPLE, seed).to(queries.device)
    n_probe = _probes(index, queries[sample], keys, k, None if own is None else own[sample])
    if n_probe > MOST_PROBED * len(index.centroids):
        return _exact(queries, keys, k, own)
    found = [
        _search_lists(index, queries[i : i + QUERY_BLOCK], keys, wanted, n_probe)
        for i in range(0, len(queries), QUERY_BLOCK)
    ]
    similarities, rows = (torch.cat(parts) for parts in zip(*found, strict=True))
    return (similarities, rows) if own is None else _without(similarities, rows, own)


def _search_lists(
    index: _Index,
    queries: Float[Tensor, "b d"],
    keys: Float[Tensor, "n d"],
    k: int,
    n_probe: int,
) -> Found:
    """Search each query's nearest lists, list by list, so that every product is a dense block."""
    similarities = queries.new_full((len(queries), k), -torch.inf)
    rows = torch.zeros(similarities.shape, dtype=torch.long, device=queries.device)
    probed = _exact(queries, index.centroids, n_probe)[1]
    order, bounds = _lists(probed.flatten(), len(index.centroids))
    askers, limits = order // probed.shape[1], bounds.tolist()
    for i in range(len(index.centroids)):
        asking, members = askers[limits[i] : limits[i + 1]], index.rows(i)
        if len(asking) and len(members):
            values, columns = _exact(queries[asking], keys[members], k)
            best = _merge((similarities[asking], rows[asking]), (values, members[columns]), k)
            similarities[asking], rows[asking] = best
    # lists with fewer than k keys leave gaps
    gaps = (similarities[:, -1] == -torch.inf).nonzero()[:, 0]
    if len(gaps):
        similarities[gaps], rows[gaps] = _exact(queries[gaps], keys, k)
    return similarities, rows
