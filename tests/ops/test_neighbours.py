import pytest
import torch
from torch.nn.functional import normalize

from nameonly.ops import neighbours
from nameonly.ops.neighbours import (
    indexed_neighbours,
    nearest_neighbours,
    neighbour_recall,
    top_of_rows,
)


def unit(n, d, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def clustered(n, d=32, n_clusters=40, spread=0.1, seed=0):
    """Clusters of their own few directions, as features of one class are."""
    g = torch.Generator().manual_seed(seed)
    centres, basis = torch.randn(n_clusters, d, generator=g), torch.randn(4, d, generator=g)
    y = torch.randint(n_clusters, (n,), generator=g)
    return normalize(centres[y] + spread * 4 * torch.randn(n, 4, generator=g) @ basis, dim=1)


def textbook(queries, keys, k, exclude_self=False):
    """Sort the whole matrix."""
    scores = queries.double() @ keys.double().T
    if exclude_self:
        scores.fill_diagonal_(-torch.inf)
    values, rows = torch.sort(scores, dim=1, descending=True)
    return values[:, :k].float(), rows[:, :k]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "KEY_BLOCK", 300)
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 4 * 300 * 70)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("k", [1, 7, 400])
def test_blocks_find_what_sorting_the_whole_matrix_finds(small_blocks, k, exclude_self):
    x = unit(1000, 24)
    values, rows = nearest_neighbours(x, x, k, exclude_self=exclude_self)
    want_values, want_rows = textbook(x, x, k, exclude_self)
    torch.testing.assert_close(values, want_values, atol=1e-6, rtol=0)
    torch.testing.assert_close(values, (x[:, None] * x[rows]).sum(dim=2), atol=1e-6, rtol=0)
    assert all(len(set(row)) == k for row in rows.tolist())
    assert k > 7 or torch.equal(rows, want_rows)  # among 400 some differ by rounding alone


def test_queries_may_be_other_rows_than_the_keys(small_blocks):
    queries, keys = unit(150, 24, seed=1), unit(901, 24)
    values, rows = nearest_neighbours(queries, keys, 5)
    want_values, want_rows = textbook(queries, keys, 5)
    assert torch.equal(rows, want_rows) and values.shape == (150, 5)
    torch.testing.assert_close(values, want_values, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n", "k"), [(5, 5), (63, 3), (64, 1), (128, 1), (300, 1), (3000, 20)])
def test_top_of_rows_is_topk(n, k):
    scores = torch.randn(40, n, generator=torch.Generator().manual_seed(n))
    scores[3] = -torch.inf
    scores[3, : k + 1] = torch.arange(float(min(n, k + 1)))
    scores[4, -k:] = torch.arange(100.0, 100.0 + k)
    values, columns = top_of_rows(scores, k)
    assert torch.equal(values, scores.topk(k, dim=1).values)
    assert torch.equal(scores.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())


def test_fewer_keys_than_asked_for():
    x = unit(3, 8)
    assert nearest_neighbours(x, x, 9)[1].shape == (3, 3)
    assert nearest_neighbours(x, x, 9, exclude_self=True)[1].shape == (3, 2)
    assert nearest_neighbours(x[:1], x[:1], 5, exclude_self=True)[0].shape == (1, 0)
    assert indexed_neighbours(x, x, 9, exclude_self=True)[1].shape == (3, 2)


def test_no_row_is_its_own_neighbour_among_many_equals():
    x = unit(1, 8).expand(50, -1).contiguous()
    for search in (nearest_neighbours, indexed_neighbours):
        values, rows = search(x, x, 4, exclude_self=True)
        assert not (rows == torch.arange(50)[:, None]).any()
        assert all(len(set(row)) == 4 for row in rows.tolist())
        torch.testing.assert_close(values, torch.ones(50, 4))


def test_neighbours_follow_the_keys():
    queries, keys = unit(40, 16, seed=1), unit(500, 16)
    perm = torch.randperm(500, generator=torch.Generator().manual_seed(2))
    _, rows = nearest_neighbours(queries, keys, 6)
    _, shuffled = nearest_neighbours(queries, keys[perm], 6)
    assert torch.equal(perm[shuffled], rows)


def test_the_index_keeps_its_recall_where_it_looks_at_few_lists():
    x = clustered(4000)
    values, rows = indexed_neighbours(x, x, 5, exclude_self=True)
    want, _ = textbook(x, x, 5, exclude_self=True)
    recall = (values >= want[:, -1:] - 1e-6).double().mean().item()
    assert 0.95 <= recall < 1.0, "an index that finds all of them has looked everywhere"
    # what it says it found is there, falling, and never the row itself
    torch.testing.assert_close(values, (x[:, None] * x[rows]).sum(dim=2))
    assert (values.diff(dim=1) <= 0).all() and not (rows == torch.arange(4000)[:, None]).any()
    assert all(len(set(row)) == 5 for row in rows.tolist())
    measured = neighbour_recall(values, x, x, exclude_self=True, n_sample=4000)
    assert measured == pytest.approx(recall, abs=1e-9)
    assert neighbour_recall(values, x, x, exclude_self=True) == pytest.approx(recall, abs=0.02)


def test_the_lists_are_clusters_around_their_centroids(monkeypatch):
    x = clustered(2000)
    index = neighbours._build(x, 0)
    cosines = x @ index.centroids.T
    assert len(index.centroids) == 45
    assert torch.equal(cosines.argmax(dim=1), index.list_of)
    members = torch.cat([index.rows(i) for i in range(45)])
    assert torch.equal(members.sort().values, torch.arange(2000))
    assert all((index.list_of[index.rows(i)] == i).all() for i in range(45))
    monkeypatch.setattr(neighbours, "CLUSTER_STEPS", 0)
    untrained = x @ neighbours._build(x, 0).centroids.T
    assert cosines.max(dim=1).values.mean() > untrained.max(dim=1).values.mean() + 0.01


def test_the_index_works_in_blocks_of_queries_and_for_other_queries(monkeypatch):
    keys, queries = clustered(3000), clustered(3000, seed=0)[1000:1400]
    want, _ = textbook(queries, keys, 4)
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 150)
    values, _ = indexed_neighbours(queries, keys, 4)
    assert (values >= want[:, -1:] - 1e-6).double().mean() >= 0.95
    torch.testing.assert_close(values[:, 0], torch.ones(400))


def test_lists_with_too_few_keys_are_made_up_for(monkeypatch):
    # tight clusters of about 20: the nearest list alone seldom holds 60 keys
    monkeypatch.setattr(neighbours, "AIMED_RECALL", 0.01)
    x = clustered(600, d=64, n_clusters=30, spread=0.002)
    values, rows = indexed_neighbours(x, x, 60)
    torch.testing.assert_close(values, (x[:, None] * x[rows]).sum(dim=2))
    assert all(len(set(row)) == 60 for row in rows.tolist())
    exact = (values - textbook(x, x, 60)[0]).abs().max(dim=1).values < 1e-5
    assert 0.5 < exact.double().mean() < 1.0


def test_rows_without_structure_are_searched_exactly():
    x = unit(1500, 64)
    assert torch.equal(
        indexed_neighbours(x, x, 5)[1], nearest_neighbours(x, x, 5, exclude_self=False)[1]
    )


def test_the_index_repeats_itself_and_depends_on_its_seed():
    x = clustered(3000)
    a, b, other = (indexed_neighbours(x, x, 5, seed=s) for s in (0, 0, 1))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[1], other[1])


def test_large_searches_go_through_the_index_and_small_ones_do_not(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 1500)
    x = clustered(2500)
    exact, indexed = textbook(x, x, 5)[0], indexed_neighbours(x, x, 5)
    assert torch.equal(nearest_neighbours(x, x, 5)[1], indexed[1])
    torch.testing.assert_close(nearest_neighbours(x[:900], x, 5)[0], exact[:900])
    few_keys = nearest_neighbours(x, x[:1500], 5)[0]
    torch.testing.assert_close(few_keys, textbook(x, x[:1500], 5)[0])


def test_recall_counts_what_is_as_similar_as_the_last_true_neighbour():
    x = unit(400, 16)
    values, _ = nearest_neighbours(x, x, 4, exclude_self=True)
    assert neighbour_recall(values, x, x, exclude_self=True, n_sample=400) == 1.0
    worse = values.clone()
    worse[:, 3] -= 0.01
    worse[:100, 2] -= 0.5
    want = 1 - (400 + 100) / 1600
    assert neighbour_recall(worse, x, x, exclude_self=True, n_sample=400) == pytest.approx(want)
    # the row itself counts where it is not excluded, so these are too low
    assert neighbour_recall(values, x, x, n_sample=400) == pytest.approx(0.75)


def test_what_cannot_be_searched_is_refused():
    x = unit(10, 8)
    for search in (nearest_neighbours, indexed_neighbours):
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            search(x, x, 0)
        with pytest.raises(ValueError, match="got 5 and 10 rows"):
            search(x[:5], x, 2, exclude_self=True)
