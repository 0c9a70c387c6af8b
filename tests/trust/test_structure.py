import torch
from sklearn.decomposition import PCA
from torch.nn.functional import normalize

from nameonly.trust.structure import feature_map, silhouette_of_two, two_groups
from nameonly.types import Features


def made(n=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(4, 12, generator=generator), dim=1)
    kind = torch.arange(n) % 4
    values = centres[kind] + 0.05 * torch.randn(n, 12, generator=generator)
    return Features(normalize(values, dim=1), tuple(f"i{i}" for i in range(n)), "made"), kind


def test_the_map_keeps_clusters_apart_and_within_its_frame():
    features, kind = made()
    rows, places = feature_map(features, most=200)
    assert len(rows) == len(set(rows.tolist())) == 200
    assert places.min() == 0 and places.max() == 1
    means = torch.stack([places[kind[rows] == k].mean(dim=0) for k in range(4)])
    spread = max(places[kind[rows] == k].std(dim=0).max().item() for k in range(4))
    assert torch.pdist(means).min() > 2 * spread
    few, centre = feature_map(features.subset(torch.tensor([0, 1])))
    assert len(few) == 2 and (centre == 0.5).all()


def test_the_map_is_of_the_two_axes_of_most_variance_whatever_was_drawn_before():
    features, _ = made()
    rows, places = feature_map(features)
    expected = PCA(2).fit_transform(features.values[rows].numpy())
    for found, axis in zip(places.T, torch.tensor(expected).T, strict=True):
        assert torch.corrcoef(torch.stack([found, axis]))[0, 1].abs() > 0.999
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(feature_map(features)[1], places)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_class_of_two_kinds_is_found_and_a_plain_one_is_not():
    features, kind = made()
    labels = torch.where(kind == 3, 2, kind)  # the last class holds two kinds
    found = two_groups(features, labels, [0, 1, 2])
    assert list(found) == [2] and found[2] > 0.5
    assert two_groups(features.subset(torch.arange(100)), labels[:100], [0]) == {}


def test_a_cloud_without_groups_is_no_two_groups():
    generator = torch.Generator().manual_seed(0)
    values = torch.zeros(300, 12)
    values[:, 0], values[:, 1:3] = 1, 0.3 * torch.randn(300, 2, generator=generator)
    features = Features(normalize(values, dim=1), tuple(f"i{i}" for i in range(300)), "made")
    assert 0.4 < silhouette_of_two(features.values) < 0.55
    assert two_groups(features, torch.zeros(300, dtype=torch.long), [0]) == {}


def test_a_few_odd_images_are_no_second_group():
    generator = torch.Generator().manual_seed(0)
    values = torch.eye(12)[:1] + 0.01 * torch.randn(100, 12, generator=generator)
    values[:5, 1] = 5
    assert silhouette_of_two(normalize(values, dim=1)) == 0
