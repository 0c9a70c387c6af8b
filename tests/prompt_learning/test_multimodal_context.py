from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, gelu, layer_norm

from nameonly.images import load
from nameonly.loop import Schedule
from nameonly.prompt_learning.multimodal_context import MultimodalContext, SharedTokens
from nameonly.types import PromptShape

SHAPE = PromptShape(text_width=12, image_width=20, image_layers=3)


def test_the_papers_values():
    learner = MultimodalContext()
    assert (learner.n_context, learner.width, learner.targets) == (4, 128, "soft")
    want = Schedule(150, 16, 0.01, 5.0, weight_decay=0.1, optimiser="sgd")
    assert learner.schedule == want
    for name in ("n_context", "width"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            MultimodalContext(**{name: 0})


def test_the_transformer_by_hand():
    shared = SharedTokens(SHAPE, 3, 8, seed=1)
    p = dict(shared.named_parameters())
    with torch.no_grad():
        for value in p.values():  # so that no bias is zero and no norm is one
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(2)))

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = torch.cat([linear(p["text"], "text_in"), linear(p["image"], "image_in")])
    normed = layer_norm(x, (8,), p["layer.norm1.weight"], p["layer.norm1.bias"])
    joined = normed @ p["layer.self_attn.in_proj_weight"].T + p["layer.self_attn.in_proj_bias"]
    query, key, value = joined.chunk(3, dim=1)
    attention = (query @ key.T / 8**0.5).softmax(dim=1) @ value
    x = x + linear(attention, "layer.self_attn.out_proj")
    normed = layer_norm(x, (8,), p["layer.norm2.weight"], p["layer.norm2.bias"])
    x = x + linear(gelu(linear(normed, "layer.linear1")), "layer.linear2")
    context, tokens = shared()
    assert p["layer.linear1.weight"].shape == (32, 8)
    torch.testing.assert_close(context, linear(x[:3], "text_out"), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tokens, linear(x[3:], "image_out")[None], atol=1e-6, rtol=1e-5)


def test_every_token_of_one_tower_is_heard_in_the_other():
    shared = SharedTokens(SHAPE, 3, 8, seed=0)
    context, tokens = shared()
    (from_image,) = torch.autograd.grad(context[0].sum(), shared.image, retain_graph=True)
    (from_text,) = torch.autograd.grad(tokens[0, 0].sum(), shared.text)
    assert (from_image.abs().sum(dim=1) > 0).all() and (from_text.abs().sum(dim=1) > 0).all()


def test_initial_values_follow_name_and_seed_alone():
    def values(seed, n_context=4):
        shared = SharedTokens(PromptShape(512, 768, 12), n_context, 128, seed)
        return {k: v.detach() for k, v in shared.named_parameters()}

    chance = torch.get_rng_state()
    first = values(7)
    assert torch.equal(torch.get_rng_state(), chance)
    torch.manual_seed(5)
    again, other = values(7, n_context=9), values(8)
    torch.set_rng_state(chance)
    drawn = [k for k, v in first.items() if v.dim() > 1 and k not in ("text", "image")]
    assert len(drawn) == 8
    for name in drawn:
        fan_in = first[name].shape[1]
        assert first[name].std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05), name
        assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
    rows = [first[f"{tower}_out.weight"][0] for tower in ("text", "image")]
    assert not torch.equal(*rows), "each name has values of its own"
    assert first["text"].std().item() == pytest.approx(0.02, rel=0.05)
    assert first["image"].std().item() == pytest.approx(768**-0.5, rel=0.05)
    assert all((v == 0).all() for k, v in first.items() if k.endswith("bias"))
    assert (first["layer.norm1.weight"] == 1).all() and (first["layer.norm2.weight"] == 1).all()


@pytest.mark.parametrize("targets", ["soft", "candidates"])
def test_one_step_by_hand(small, sets, one_step, updated, targets):
    pixels = torch.stack([small.backbone.preprocess(load(small.images, i)) for i in range(12)])
    shared = SharedTokens(small.backbone.prompt_shape, 2, 24, seed=4)
    encode = small.backbone.text_prompter(small.text.class_names, 2)
    context, tokens = shared()
    values = small.backbone.encode_with_tokens(pixels, tokens)
    probs = (small.text.logit_scale * values @ encode(context).T).softmax(dim=1)
    kept = sets.probs * sets.candidates
    weights = kept / kept.sum(dim=1, keepdim=True) if targets == "soft" else sets.candidates
    parameters = list(shared.parameters())
    after = updated(-(probs * weights).sum(dim=1).log().mean(), parameters)
    with torch.no_grad():
        for parameter, value in zip(parameters, after, strict=True):
            parameter.copy_(value)
        context, tokens = shared()
        want = encode(context)
    learner = MultimodalContext(2, 24, targets=targets, schedule=one_step, seed=4)
    learner.fit(small.images, small.text, sets, small.backbone)
    torch.testing.assert_close(learner.text_.weights, want, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(learner.backbone_.tokens, tokens, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(want, small.text.weights, atol=1e-2)


def test_the_loss_falls_for_what_is_kept(small):
    losses = []
    learner = MultimodalContext(schedule=Schedule(8, 5, 0.05, optimiser="sgd"))
    learner.fit(
        small.images,
        small.text,
        small.labels,
        small.backbone,
        on_epoch=lambda _, loss: losses.append(loss),
    )
    rows = small.labels.selected.nonzero()[:, 0].tolist()
    pixels = torch.stack([small.backbone.preprocess(load(small.images, i)) for i in rows])
    values = learner.backbone_.encode_pixels(pixels)
    logits = small.text.logit_scale * values @ learner.text_.weights.T
    assert cross_entropy(logits, small.labels.labels[rows]) < losses[0] / 2


def test_a_context_that_leaves_no_room_is_refused(small):
    learner = replace(MultimodalContext(), n_context=77)
    with pytest.raises(ValueError, match="lower n_context"):
        learner.fit(small.images, small.text, small.labels, small.backbone)
