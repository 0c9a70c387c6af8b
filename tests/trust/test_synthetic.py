import statistics

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from nameonly.trust import synthetic
from nameonly.trust.synthetic import (
    density_and_coverage,
    drawn,
    mean_pairwise_distance,
    measure,
    mmd,
    told_apart,
    vendi_score,
)
from nameonly.types import Features, TextClassifier


def rows(n, seed, centre=None, spread=1.0, d=8):
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * spread
    return normalize(drawn if centre is None else drawn + centre, dim=1)


def features(values, backbone="toy"):
    return Features(values, tuple(map(str, range(len(values)))), backbone)


def test_distance_is_the_mean_over_all_pairs():
    values = rows(9, 0)
    pairs = [1 - values[i] @ values[j] for i in range(9) for j in range(9) if i != j]
    assert mean_pairwise_distance(values) == pytest.approx(
        torch.stack(pairs).mean().item(), abs=1e-6
    )
    assert mean_pairwise_distance(values[:1].expand(5, -1)) == pytest.approx(0, abs=1e-6)
    assert mean_pairwise_distance(values[:1]) is None


def test_vendi_counts_different_images():
    assert vendi_score(torch.eye(5)) == pytest.approx(5)
    assert vendi_score(torch.eye(5).repeat(7, 1)) == pytest.approx(5), "more rows than dimensions"
    assert vendi_score(torch.eye(5)[:1].expand(4, -1)) == pytest.approx(1)
    assert vendi_score(torch.eye(5)[[0, 0, 0, 1]]) == pytest.approx(
        np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    )


def slowly(made, real, k):
    """Density and coverage as the paper writes them."""
    apart = (real[:, None] - real[None]).norm(dim=2)
    radius = apart.sort(dim=1).values[:, k]
    within = (made[:, None] - real[None]).norm(dim=2) <= radius
    return within.sum().item() / (k * len(made)), within.any(dim=0).float().mean().item()


def test_density_and_coverage_are_the_papers():
    real = rows(60, 0)
    for made in (rows(40, 1), rows(25, 2, torch.ones(8)), real[:10]):
        assert density_and_coverage(made, real, 3) == pytest.approx(slowly(made, real, 3), abs=1e-5)


def test_density_and_coverage_tell_outliers_from_copies():
    real = rows(200, 0, 3 * torch.eye(8)[0])
    like, far = rows(200, 1, 3 * torch.eye(8)[0]), rows(200, 2, -3 * torch.eye(8)[0])
    density, coverage = density_and_coverage(like, real)
    assert density == pytest.approx(1, abs=0.3) and coverage > 0.9
    assert max(density_and_coverage(far, real)) < 0.02
    one = density_and_coverage(real[:1].expand(200, -1), real)
    assert one[1] < 0.2, "one image again and again covers little"
    assert density_and_coverage(like, real[:5]) is None


def test_mmd_by_hand_and_of_one_distribution():
    a, b = rows(30, 0), rows(20, 1, torch.ones(8))

    def kernel(x, y):
        apart = (x[:, None] - y[None]).square().sum(dim=2).double()
        return (-apart / (2 * 10.0**2)).exp()

    def others(x):
        return kernel(x, x)[~torch.eye(len(x), dtype=torch.bool)].mean()

    want = 1000 * (others(a) + others(b) - 2 * kernel(a, b).mean()).item()
    assert mmd(a, b) == pytest.approx(want, rel=1e-3)
    few = statistics.mean(mmd(rows(10, i), rows(500, 100)) for i in range(30))
    assert abs(few) < want / 30, "few images of one distribution are no further apart than many"
    assert mmd(a[:1], b) is None


def test_of_many_images_some_are_compared(monkeypatch):
    monkeypatch.setattr(synthetic, "MOST_COMPARED", 50)
    made, real = rows(400, 0), rows(400, 1)
    labels = torch.zeros(400, dtype=torch.long)
    found = measure(features(made), labels, TEXT, features(real)).all
    assert (found.n, found.n_real) == (400, 400)
    assert found.mmd == mmd(drawn(made, 50), drawn(real, 50)) != mmd(made, real)
    assert len(drawn(made, 50)) == 50 and drawn(made, 400) is made


def test_two_samples_of_one_distribution_cannot_be_told_apart():
    assert told_apart(rows(300, 0), rows(300, 1)) == pytest.approx(0.5, abs=0.07)
    assert told_apart(rows(300, 0), rows(60, 1, 3 * torch.ones(8))) > 0.95
    assert told_apart(rows(300, 0), rows(60, 1)) == pytest.approx(0.5, abs=0.1), "of any sizes"
    assert told_apart(rows(9, 0), rows(300, 1)) is None


TEXT = TextClassifier(torch.eye(8)[:3], 20.0, ("ant", "bee", "cat"))


def test_classes_are_measured_by_what_the_text_says_of_the_real_images():
    made = torch.cat([rows(30, i, 4 * torch.eye(8)[i], 0.5) for i in range(3)])
    real = torch.cat([rows(40, 9 + i, 4 * torch.eye(8)[i], 0.5) for i in range(2)])
    labels = torch.arange(3).repeat_interleave(30)
    tricks = ["base", "class_prompt"] * 45
    measured = measure(features(made), labels, TEXT, features(real), tricks)
    whole, classes = measured.all, measured.classes
    assert {name: w.n for name, w in measured.tricks.items()} == {"base": 45, "class_prompt": 45}
    assert measured.tricks["base"].n_real == 80
    assert (whole.n, whole.n_real) == (90, 80)
    assert list(classes) == ["ant", "bee", "cat"]
    assert [classes[name].n_real for name in classes] == [40, 40, 0]
    assert classes["ant"].recognised == 1.0 and classes["ant"].agreement > 0.9
    assert classes["ant"].coverage > 0.8 and classes["ant"].mmd < 1
    assert classes["cat"].mmd is None and classes["cat"].coverage is None
    assert whole.vendi > classes["ant"].vendi and whole.distance > classes["ant"].distance
    wrong = measure(features(made), labels.roll(30), TEXT, features(real))
    assert wrong.all.recognised == 0.0 and not wrong.tricks


def test_without_real_images_nothing_is_compared():
    found = measure(features(rows(20, 0)), torch.zeros(20, dtype=torch.long), TEXT).all
    assert (found.n, found.n_real) == (20, 0) and found.vendi > 1
    assert (found.coverage, found.density, found.mmd, found.told_apart) == (None,) * 4


def test_a_class_without_images_is_left_out():
    ones = torch.ones(20, dtype=torch.long)
    assert list(measure(features(rows(20, 0)), ones, TEXT).classes) == ["bee"]


def test_what_cannot_be_compared_is_refused():
    one = features(rows(5, 0))
    with pytest.raises(ValueError, match="'toy' and 'other' cannot be compared"):
        measure(one, torch.zeros(5, dtype=torch.long), TEXT, features(rows(5, 1), "other"))
    with pytest.raises(ValueError, match="4 labels for 5 synthetic images"):
        measure(one, torch.zeros(4, dtype=torch.long), TEXT, one)
    with pytest.raises(ValueError, match="1 tricks for 5 synthetic images"):
        measure(one, torch.zeros(5, dtype=torch.long), TEXT, one, ["base"])
