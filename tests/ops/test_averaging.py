import torch

from nameonly.ops.averaging import RunningAverage


def test_early_steps_weigh_more_and_the_decay_is_the_limit():
    value, steps = torch.zeros(1), torch.tensor(0)
    average = RunningAverage([value, steps], 0.5)
    want = 0.0
    for t in range(30):
        value.fill_(float(t))
        steps.fill_(t)
        average.update()
        kept = min(0.5, (1 + t) / (10 + t))
        want = kept * want + (1 - kept) * t
    average.put()
    torch.testing.assert_close(value.item(), want)
    assert steps.item() == 29


def test_its_state_goes_on_where_it_was():
    value = torch.ones(3)
    first = RunningAverage([value], 0.9)
    value.fill_(5.0)
    first.update()
    second = RunningAverage([torch.zeros(3)], 0.9)
    for own, other in zip(second.state, first.state, strict=True):
        own.copy_(other)
    assert all(torch.equal(a, b) for a, b in zip(first.state, second.state, strict=True))
