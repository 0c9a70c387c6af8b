from dataclasses import dataclass, field, replace

import pytest
import torch

from nameonly.images import BadImageError, load
from nameonly.prompt_learning._pixels import Packed, PixelCache, pack, training_set


@dataclass(frozen=True)
class Counted:
    """A location that knows how often it was read."""

    inner: object
    reads: list = field(default_factory=list)

    def read(self):
        self.reads.append(1)
        return self.inner.read()


@pytest.fixture
def counted(small):
    return replace(small.images, locations=tuple(map(Counted, small.images.locations)))


def reads(images):
    return [len(location.reads) for location in images.locations]


def preprocessed(small, rows):
    return torch.stack([small.backbone.preprocess(load(small.images, i)) for i in rows])


def test_packing_loses_nothing(small):
    pixels = preprocessed(small, [3])[0]
    packed = pack(pixels)
    assert isinstance(packed, Packed) and torch.equal(packed.unpack(), pixels)
    full = torch.arange(256.0).repeat(3, 256, 1) * torch.tensor([0.1, -3.0, 7.0])[:, None, None]
    large = pack(full)
    assert torch.equal(large.unpack(), full) and large.nbytes < full.nbytes / 3.9


def test_pixels_of_more_values_stay_as_they_are():
    rich = torch.arange(3 * 257.0).reshape(3, 1, 257)
    assert pack(rich) is rich


def test_an_image_is_decoded_once(small, counted):
    cache = PixelCache(counted, small.backbone)
    for rows in ([0, 5, 2], [2, 0], [5, 7]):
        assert torch.equal(cache.read(torch.tensor(rows)), preprocessed(small, rows))
    assert reads(counted) == [1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0]


def test_what_does_not_fit_the_budget_is_decoded_anew(small, counted):
    size = pack(preprocessed(small, [0])[0]).nbytes
    cache = PixelCache(counted, small.backbone, budget=2 * size + 10)
    for _ in range(3):
        rows = [4, 1, 8, 4]
        assert torch.equal(cache.read(torch.tensor(rows)), preprocessed(small, rows))
    assert reads(counted)[4] == reads(counted)[1] == 1 and reads(counted)[8] == 3
    assert cache.budget == 10


def test_an_image_that_is_gone_is_named(small, tmp_path):
    gone = replace(small.images.locations[1], path=str(tmp_path / "gone.png"))
    images = replace(small.images, locations=(small.images.locations[0], gone) * 6)
    with pytest.raises(BadImageError, match=images.sources[1]):
        PixelCache(images, small.backbone).read(torch.tensor([1]))


def test_only_selected_images_in_order_of_content(small, sets):
    rows = torch.tensor([7, 1, 3])
    ids = tuple(small.labels.ids[i] for i in rows.tolist())
    chosen = replace(
        sets, ids=ids, probs=sets.probs[rows], candidates=sets.candidates[rows], confidence=rows / 9
    )
    chosen.candidates[2] = False
    renamed = replace(small.images.subset(rows.tolist()), sources=("c", "b", "a"))
    images, targets, weights = training_set(renamed, chosen, "soft")
    want = [1, 7] if small.labels.ids[1] < small.labels.ids[7] else [7, 1]
    assert images.ids == tuple(small.labels.ids[i] for i in want)
    assert torch.equal(targets, sets.targets[want]) and weights is None
    weighed = replace(chosen, weights=rows.float())
    _, targets, weights = training_set(renamed, weighed, "candidates")
    assert weights.tolist() == want
    assert torch.equal(targets, sets.candidates[want].float())
    assert not torch.equal(targets, sets.targets[want])
