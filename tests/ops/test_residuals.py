from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from nameonly.ops import residuals
from nameonly.ops.prototypes import spread
from nameonly.ops.residuals import join, residual_scale, scale_sample, spread_over
from nameonly.types import Features


def many(n=1300, d=16):
    g = torch.Generator().manual_seed(3)
    return normalize(torch.randn(n, d, generator=g), dim=1)


def test_join_by_hand():
    got = join(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 4.0]]), 2.0)
    torch.testing.assert_close(got, torch.tensor([[5 / 3, 8 / 3]]))


def test_blocks_change_no_spread():
    values, weights = many(), many(4)
    weights[0] *= 9
    got, largest = spread_over(lambda block: block @ weights.T, values)
    assert got == pytest.approx(spread(values @ weights.T).item(), rel=1e-6)
    assert largest == pytest.approx((values @ weights.T).abs().max().item())


@pytest.mark.parametrize("logit_scale", [1.0, 15.0, 100.0])
def test_both_branches_have_one_spread(toy, logit_scale):
    text, values = replace(toy[1], logit_scale=logit_scale), many()
    keys = many(4).flip(0)
    scale = residual_scale(text, lambda block: 7 * block @ keys.T - 40, values)
    text_spread = spread(logit_scale * values @ text.weights.T)
    assert spread(scale * 7 * values @ keys.T).item() == pytest.approx(text_spread.item(), rel=1e-5)


def test_a_branch_that_says_the_same_of_all_classes_is_silent(toy):
    def rounding(block):
        return 1e3 + 1e-5 * block[:, :4]

    assert residual_scale(toy[1], rounding, many()) == 0.0
    assert residual_scale(toy[1], lambda block: block[:, :1] * 0 + 5, many()) == 0.0
    assert residual_scale(toy[1], lambda block: 1e3 + block[:, :4], many()) > 0


def test_many_images_set_the_scale_by_a_sample_that_no_order_changes(toy, monkeypatch):
    few = scale_sample(toy[0])
    assert torch.equal(few.sort(dim=0).values, toy[0].values.sort(dim=0).values)
    values = normalize(torch.randn(5000, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    large = Features(values, tuple(map(str, range(5000))), "toy")
    monkeypatch.setattr(residuals, "SCALE_ROWS", 2000)
    sample = scale_sample(large)
    turned = scale_sample(large.subset(torch.arange(4999, -1, -1)))
    assert len(sample) == 2000 and torch.equal(sample, turned)
    keys = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    some, all_ = (spread_over(lambda block: block @ keys.T, v)[0] for v in (sample, values))
    assert some == pytest.approx(all_, rel=0.02)
