import pytest
import torch

from nameonly.ops.graphs import Graph, neighbour_graph, propagate


def random_graph(n=40, k=4, seed=0):
    """A graph and its dense matrix, built entry by entry."""
    g = torch.Generator().manual_seed(seed)
    affinity = torch.rand(n, k, generator=g) * 1.5 - 0.5
    rows = torch.stack([torch.randperm(n - 1, generator=g)[:k] for _ in range(n)]) + torch.zeros(
        n, k, dtype=torch.long
    )
    rows += (rows >= torch.arange(n)[:, None]).long()
    dense = torch.zeros(n, n)
    for i in range(n):
        for w, j in zip(affinity[i].tolist(), rows[i].tolist(), strict=True):
            dense[i, j] += max(w, 0.0)
            dense[j, i] += max(w, 0.0)
    return neighbour_graph(affinity, rows), dense


def test_the_graph_is_the_positive_part_both_ways():
    affinity = torch.tensor([[0.5], [0.25], [-1.0], [0.125]])
    graph = neighbour_graph(affinity, torch.tensor([[1], [0], [0], [0]]))
    want = torch.zeros(4, 4)
    want[0, 1] = want[1, 0] = 0.75  # each is the other's neighbour
    want[0, 3] = want[3, 0] = 0.125
    torch.testing.assert_close(graph.sums(torch.eye(4)), want)
    torch.testing.assert_close(graph.degrees, want.sum(dim=1))


def test_sums_are_the_matrix_product_in_any_slice():
    graph, dense = random_graph()
    values = torch.randn(40, 7, generator=torch.Generator().manual_seed(1))
    want = dense @ values
    torch.testing.assert_close(graph.sums(values), want)
    torch.testing.assert_close(graph.sums(values, 10, 25), want[10:25])
    torch.testing.assert_close(graph.sums(values, 39, 40), want[39:])
    torch.testing.assert_close(graph.sums(values.double()), want.double(), rtol=1e-6, atol=1e-6)


def test_nodes_without_edges_have_sum_and_degree_zero():
    graph = neighbour_graph(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.long))
    assert torch.equal(graph.sums(torch.ones(3, 2)), torch.zeros(3, 2))
    assert torch.equal(graph.normalised().degrees, torch.zeros(3))
    lonely = Graph(torch.tensor([0, 1, 1, 2]), torch.tensor([2, 0]), torch.ones(2))
    got = lonely.sums(torch.arange(6.0).view(3, 2))
    assert torch.equal(got, torch.tensor([[4.0, 5.0], [0.0, 0.0], [0.0, 1.0]]))


def test_normalised_divides_by_the_roots_of_both_degrees():
    graph, dense = random_graph()
    roots = dense.sum(dim=1).sqrt()
    torch.testing.assert_close(
        graph.normalised().sums(torch.eye(40)), dense / roots[:, None] / roots
    )


def solved(graph, sources, alpha):
    n = len(sources)
    matrix = torch.eye(n).double() - alpha * graph.sums(torch.eye(n)).double()
    return torch.linalg.solve(matrix, sources.double()).float()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.99])
def test_propagation_solves_the_system(alpha):
    graph = random_graph()[0].normalised()
    sources = torch.rand(40, 5, generator=torch.Generator().manual_seed(2))
    sources[:, 1] *= 1e-6  # a class that nearly nobody is of, solved as well as the others
    sources[:, 2] = 0.0
    want = solved(graph, sources, alpha)
    got = propagate(graph, sources, alpha)
    assert torch.equal(got[:, 2], torch.zeros(40))
    errors = (got - want).norm(dim=0) / want.norm(dim=0).clamp(min=1e-30)
    assert errors.max() < 1e-6 / (1 - alpha) + 1e-6
    if alpha == 0:
        torch.testing.assert_close(got, sources)


def test_every_column_stops_by_its_own_residual():
    graph = random_graph()[0].normalised()
    g = torch.Generator().manual_seed(3)
    easy = torch.linalg.eigh(graph.sums(torch.eye(40)))[1][:, 0]  # one step solves it
    sources = torch.stack([easy, torch.rand(40, generator=g)], dim=1)
    together = propagate(graph, sources, 0.9, tolerance=1e-3)
    for j in range(2):
        alone = propagate(graph, sources[:, j : j + 1], 0.9, tolerance=1e-3)
        torch.testing.assert_close(together[:, j : j + 1], alone, rtol=1e-5, atol=1e-7)
    residual = sources - (together - 0.9 * graph.sums(together))
    relative = residual.norm(dim=0) / sources.norm(dim=0)
    assert (relative <= 1.01e-3).all() and relative[1] > 1e-6, "it went on past the tolerance"


def test_steps_are_limited_and_inputs_stay():
    graph = random_graph()[0].normalised()
    sources = torch.rand(40, 2, generator=torch.Generator().manual_seed(4))
    kept = sources.clone()
    rough, fine = (propagate(graph, sources, 0.9, max_steps=m) for m in (1, 1000))
    want = solved(graph, sources, 0.9)
    assert (rough - want).norm() > 100 * (fine - want).norm()
    assert torch.equal(sources, kept)


def test_edges_of_weight_zero_stay_zero():
    graph = neighbour_graph(torch.tensor([[1.0], [1.0], [-0.5]]), torch.tensor([[1], [0], [0]]))
    want = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(graph.normalised().sums(torch.eye(3)), want)


def test_as_many_steps_as_eigenvalues_are_enough():
    # every node joined to every other: S has two eigenvalues, and directions must be conjugate
    rows = torch.tensor([[j for j in range(6) if j != i] for i in range(6)])
    graph = neighbour_graph(torch.ones(6, 5), rows).normalised()
    sources = torch.rand(6, 3, generator=torch.Generator().manual_seed(5))
    got = propagate(graph, sources, 0.9, tolerance=1e-9, max_steps=2)
    torch.testing.assert_close(got, solved(graph, sources, 0.9), rtol=1e-5, atol=1e-5)
