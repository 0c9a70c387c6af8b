import pytest
import torch
from PIL import Image

from nameonly.backbones import Backbone
from nameonly.backbones._prompted import PromptedBackbone
from nameonly.backbones.clip import ClipBackbone


@pytest.fixture
def base(clip_folder):
    return ClipBackbone(str(clip_folder), device="cpu", dtype="float32", batch_size=2)


def tokens(seed=0, layers=1):
    return torch.randn(layers, 3, 32, generator=torch.Generator().manual_seed(seed))


def pictures():
    return [Image.effect_noise((40, 32), 90.0).convert("RGB") for _ in range(3)]


def test_features_are_those_of_the_base_with_the_tokens(base):
    images, learned = pictures(), tokens(layers=2)
    prompted = PromptedBackbone(base, learned)
    pixels = torch.stack([base.preprocess(i) for i in images])
    want = base.encode_with_tokens(pixels, learned)
    got = prompted.encode_images(images)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)  # batches of two and one
    assert got.dtype == torch.float32 and not got.requires_grad
    torch.testing.assert_close(got.norm(dim=1), torch.ones(3))
    assert (got - base.encode_images(images)).abs().max() > 1e-2
    assert torch.equal(prompted.preprocess(images[0]), base.preprocess(images[0]))
    assert prompted.encode_images([]).shape == (0, 24)


def test_all_but_the_image_features_is_the_bases(base):
    prompted = PromptedBackbone(base, tokens())
    assert isinstance(prompted, Backbone)
    for name in ("dim", "logit_scale", "batch_size", "note", "text_key", "prompt_shape"):
        assert getattr(prompted, name) == getattr(base, name)
    assert torch.equal(prompted.encode_texts(["one", "two"]), base.encode_texts(["one", "two"]))
    context = prompted.embed_phrase("a photo of")
    assert torch.equal(context, base.embed_phrase("a photo of"))
    encoded = [b.text_prompter(["one"], len(context))(context) for b in (prompted, base)]
    assert torch.equal(*encoded)


def test_other_tokens_are_another_backbone(base):
    made = [PromptedBackbone(base, t) for t in (tokens(0), tokens(0), tokens(1))]
    names = [b.name for b in made]
    assert names[0] == names[1] != names[2] and base.name not in names
    keys = [dict(b.image_key) for b in made]
    assert keys[0] == keys[1] != keys[2]
    assert {**keys[0], "tokens": None} == {**base.image_key, "tokens": None}
    assert made[0].reference() == {**base.reference(), "tokens": made[0].digest}
    assert made[0] != made[2]
    strided = tokens(0).transpose(1, 2).contiguous().transpose(1, 2)
    assert PromptedBackbone(base, strided).digest == made[0].digest


def test_tokens_are_kept_as_they_were_given(base):
    learned = torch.nn.Parameter(tokens())
    prompted = PromptedBackbone(base, learned)
    with torch.no_grad():
        learned.zero_()
    assert torch.equal(prompted.tokens, tokens()) and not prompted.tokens.requires_grad


def test_tokens_take_the_place_of_others(base):
    first, pixels = PromptedBackbone(base, tokens(0)), torch.zeros(1, 3, 32, 32)
    second = PromptedBackbone(first, tokens(1))
    alone = PromptedBackbone(base, tokens(1))
    assert second.base is base and second.name == alone.name
    assert torch.equal(second.encode_pixels(pixels), alone.encode_pixels(pixels))
    with torch.no_grad():
        assert torch.equal(first.encode_with_tokens(pixels, tokens(1)), alone.encode_pixels(pixels))


def test_what_is_not_finite_is_told(base):
    prompted = PromptedBackbone(base, torch.full((1, 3, 32), torch.nan))
    with pytest.raises(FloatingPointError, match="not finite"):
        prompted.encode_pixels(torch.zeros(1, 3, 32, 32))
