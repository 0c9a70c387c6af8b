import pytest
import torch
from torch.nn.functional import normalize

from nameonly.backbones import _tokens
from nameonly.backbones.clip import ClipBackbone

NAMES = ("zero", "seven and a half", "ein Haus", "one", "nine o'clock")
PHRASE = "a photo of a"


@pytest.fixture(params=["clip", "siglip"])
def backbone(request):
    folder = request.getfixturevalue(f"{request.param}_folder")
    return ClipBackbone(str(folder), device="cpu", dtype="float32")


def pixels(n=3):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_context_of_a_phrases_own_vectors_is_the_phrase(backbone):
    context = backbone.embed_phrase(PHRASE)
    got = backbone.text_prompter(NAMES, len(context))(context)
    want = backbone.encode_texts([f"{PHRASE} {name}" for name in NAMES])
    torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-5)


def test_a_context_for_each_class_is_its_own(backbone):
    phrases = ["a photo of a", "a photo of one", "one photo of a"]
    context = torch.stack([backbone.embed_phrase(p) for p in phrases])
    got = backbone.text_prompter(NAMES[:3], context.shape[1])(context)
    want = backbone.encode_texts([f"{p} {n}" for p, n in zip(phrases, NAMES[:3], strict=True)])
    torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-5)


def test_what_shares_a_sequence_does_not_see_each_other(backbone):
    names = [f"{a} {b}" for a in NAMES for b in NAMES]
    context = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    together = backbone.text_prompter(names, 4)(context)
    alone = torch.cat([backbone.text_prompter([name], 4)(context) for name in names])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=1e-5)


def test_packs_hold_several_names_and_no_more_than_the_tower_reads():
    names = [[5] * (1 + i % 4) for i in range(30)]
    got = _tokens.pack(names, 4, shared=True, begin=[1], end=2, length=24)
    assert got.ids.shape[1] <= 24 and len(got.ids) < 10
    for row, (pack, place) in enumerate(got.ends.tolist()):
        assert got.ids[pack, place] == 2 and got.segment[pack, place] == row
        assert got.positions[pack, place] == 5 + len(names[row])
    assert (got.context >= 0).sum() == 4 * len(got.ids)


def test_gradients_reach_every_vector_and_no_weight(backbone):
    before = {k: v.clone() for k, v in backbone.network.state_dict().items()}
    context = (0.02 * torch.randn(3, 32)).requires_grad_()
    backbone.text_prompter(NAMES, 3)(context)[:, 0].sum().backward()
    assert (context.grad.abs().sum(dim=1) > 0).all()
    tokens = (0.02 * torch.randn(2, 5, 32)).requires_grad_()
    backbone.encode_with_tokens(pixels(), tokens)[:, 0].sum().backward()
    assert (tokens.grad.abs().sum(dim=2) > 0).all()
    assert all(p.grad is None for p in backbone.network.parameters())
    after = backbone.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_gradient_is_that_of_the_slope(backbone):
    backbone.network.double()
    context = torch.randn(2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    encode = backbone.text_prompter(NAMES[:2], 2)
    context.requires_grad_()
    encode(context)[:, 0].sum().backward()
    step = torch.zeros_like(context)
    step[1, 3] = 1e-3
    with torch.no_grad():
        rise = (encode(context + step) - encode(context - step))[:, 0].double().sum() / 2e-3
    assert rise.item() == pytest.approx(context.grad[1, 3].item(), rel=1e-2, abs=1e-6)


def test_no_hook_stays_behind(backbone):
    plain = backbone.encode_pixels(pixels())
    texts = backbone.encode_texts(NAMES)
    backbone.encode_with_tokens(pixels(), torch.randn(2, 4, 32))
    backbone.text_prompter(NAMES, 2)(torch.randn(2, 32))
    with pytest.raises(ValueError, match="3 rows of tokens, expected 1 or 2"):
        backbone.encode_with_tokens(pixels(), torch.randn(3, 4, 32))
    with pytest.raises(RuntimeError):
        backbone.encode_with_tokens(pixels(), torch.randn(1, 4, 31))
    assert torch.equal(plain, backbone.encode_pixels(pixels()))
    assert torch.equal(texts, backbone.encode_texts(NAMES))


@pytest.mark.parametrize("rows", [1, 2])
def test_image_tokens_by_hand(backbone, rows):
    tokens = torch.randn(rows, 4, 32, generator=torch.Generator().manual_seed(3))
    tower = backbone.network.vision_model
    at = 0 if backbone.network.config.model_type == "siglip" else 1
    with torch.no_grad():
        hidden = tower.embeddings(pixels())
        patches = hidden[:, at:]
        hidden = torch.cat([hidden[:, :at], tokens[0].expand(3, -1, -1), patches], dim=1)
        if at:
            hidden = tower.pre_layrnorm(hidden)
        for i, layer in enumerate(tower.encoder.layers):
            if rows == 2 and i == 1:
                rest = hidden[:, at + 4 :]
                hidden = torch.cat([hidden[:, :at], tokens[1].expand(3, -1, -1), rest], dim=1)
            hidden = layer(hidden, None)
        if at:
            want = backbone.network.visual_projection(tower.post_layernorm(hidden[:, 0]))
        else:
            want = tower.head(tower.post_layernorm(hidden))
        got = backbone.encode_with_tokens(pixels(), tokens)
    torch.testing.assert_close(got, normalize(want, dim=1), atol=2e-6, rtol=1e-5)
    assert not torch.allclose(got, backbone.encode_pixels(pixels()), atol=1e-3)


def test_a_context_that_leaves_no_room_is_refused(backbone):
    with pytest.raises(ValueError, match="lower n_context"):
        backbone.text_prompter(NAMES, 24)(torch.zeros(24, 32))


def test_a_name_too_long_is_cut(backbone):
    context = torch.zeros(2, 32)
    long = backbone.text_prompter([" ".join(["zero"] * 40)], 2)(context)
    longer = backbone.text_prompter([" ".join(["zero"] * 50)], 2)(context)
    assert torch.isfinite(long).all() and torch.equal(long, longer)


def test_shapes_of_what_can_be_learned(backbone):
    shape = backbone.prompt_shape
    assert (shape.text_width, shape.image_width, shape.image_layers) == (32, 32, 2)


def test_many_packs_are_encoded_in_parts_with_the_same_gradient(backbone, monkeypatch):
    names = [f"{a} {b}" for a in NAMES for b in NAMES]
    found = []
    for at_once in (64, 2):
        monkeypatch.setattr("nameonly.backbones._clip_prompts.PACKS_AT_ONCE", at_once)
        for shape in ((3, 32), (25, 3, 32)):
            start = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(4))
            context = start.requires_grad_()
            rows = backbone.text_prompter(names, 3)(context)
            (rows * torch.arange(rows.numel()).reshape(rows.shape)).sum().backward()
            found.append((rows.detach(), context.grad))
    for whole, parts in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(whole[0], parts[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(whole[1], parts[1], atol=1e-3, rtol=1e-4)
