from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from nameonly.backbones.clip import ClipBackbone
from nameonly.images import load
from nameonly.loop import Schedule
from nameonly.prompt_learning.visual_context import VisualContext, start_tokens
from nameonly.types import PromptShape

SHAPE = PromptShape(text_width=8, image_width=64, image_layers=3)


def chosen_pixels(small):
    """Return the selected images' pixels and labels, in the set's own order."""
    rows = small.labels.selected.nonzero()[:, 0].tolist()
    pixels = torch.stack([small.backbone.preprocess(load(small.images, i)) for i in rows])
    return pixels, small.labels.labels[rows], rows


def test_the_papers_values():
    learner = VisualContext()
    assert (learner.n_context, learner.deep, learner.targets) == (16, False, "soft")
    want = Schedule(150, 16, 0.1, 5.0, weight_decay=0.1, optimiser="sgd")
    assert learner.schedule == want
    with pytest.raises(ValueError, match="n_context must be at least 1, got 0"):
        VisualContext(n_context=0)


def test_tokens_start_at_about_unit_length_layer_by_layer():
    shallow, deep = (start_tokens(SHAPE, 500, d, seed=3) for d in (False, True))
    assert shallow.shape == (1, 500, 64) and deep.shape == (3, 500, 64)
    assert deep.std().item() == pytest.approx(0.125, rel=0.02)
    assert torch.equal(deep[:1], shallow) and not torch.equal(deep[0], deep[1])
    assert not torch.equal(shallow, start_tokens(SHAPE, 500, False, seed=4))


@pytest.mark.parametrize("deep", [False, True])
def test_one_step_by_hand(small, one_step, updated, deep):
    pixels, labels, _ = chosen_pixels(small)
    start = start_tokens(small.backbone.prompt_shape, 2, deep, seed=5).requires_grad_()
    values = small.backbone.encode_with_tokens(pixels, start)
    logits = small.text.logit_scale * values @ small.text.weights.T
    (want,) = updated(cross_entropy(logits, labels), [start])
    learner = VisualContext(n_context=2, deep=deep, schedule=one_step, seed=5)
    learner.fit(small.images, small.text, small.labels, small.backbone)
    torch.testing.assert_close(learner.backbone_.tokens, want, atol=1e-5, rtol=1e-4)
    assert len(want) == (5 if deep else 1) and ((want - start).abs().amax(dim=(1, 2)) > 1e-5).all()


@pytest.mark.parametrize("targets", ["soft", "candidates"])
def test_one_step_on_candidate_sets_by_hand(small, sets, one_step, updated, targets):
    pixels = torch.stack([small.backbone.preprocess(load(small.images, i)) for i in range(12)])
    start = start_tokens(small.backbone.prompt_shape, 2, False, seed=0).requires_grad_()
    values = small.backbone.encode_with_tokens(pixels, start)
    probs = (small.text.logit_scale * values @ small.text.weights.T).softmax(dim=1)
    kept = sets.probs * sets.candidates
    weights = kept / kept.sum(dim=1, keepdim=True) if targets == "soft" else sets.candidates
    (want,) = updated(-(probs * weights).sum(dim=1).log().mean(), [start])
    learner = VisualContext(n_context=2, targets=targets, schedule=one_step)
    learner.fit(small.images, small.text, sets, small.backbone)
    torch.testing.assert_close(learner.backbone_.tokens, want, atol=1e-5, rtol=1e-4)


def test_the_loss_falls_and_the_texts_stay(small):
    losses = []
    learner = VisualContext(schedule=Schedule(8, 5, 0.05, optimiser="sgd"))
    learner.fit(
        small.images,
        small.text,
        small.labels,
        small.backbone,
        on_epoch=lambda _, loss: losses.append(loss),
    )
    assert losses[-1] < losses[0] / 2 and learner.text_ is small.text
    pixels, labels, _ = chosen_pixels(small)
    logits = small.text.logit_scale * learner.backbone_.encode_pixels(pixels) @ small.text.weights.T
    assert cross_entropy(logits, labels) < losses[0] / 2


def test_images_that_are_left_out_are_not_even_read(small, tmp_path):
    *_, rows = chosen_pixels(small)
    gone = replace(small.images.locations[0], path=str(tmp_path / "gone.png"))
    places = [p if i in rows else gone for i, p in enumerate(small.images.locations)]
    images = replace(small.images, locations=tuple(places))
    learner = VisualContext(n_context=1, schedule=Schedule(1, 16, 0.1))
    learner.fit(images, small.text, small.labels, small.backbone)
    torch.testing.assert_close(learner.backbone_.tokens.shape, torch.Size([1, 1, 128]))


def test_names_of_files_do_not_matter(small):
    learner = VisualContext(n_context=2, schedule=Schedule(1, 4, 0.1))
    learner.fit(small.images, small.text, small.labels, small.backbone)
    first = learner.backbone_.tokens
    renamed = replace(small.images, sources=tuple(f"{99 - i}.png" for i in range(12)))
    learner.fit(renamed, small.text, small.labels, small.backbone)
    assert torch.equal(first, learner.backbone_.tokens)


def test_a_tower_in_bfloat16_turns_the_tokens_the_same_way(small):
    """The tokens themselves are kept and changed in float32."""
    narrow = ClipBackbone("tiny", device="cpu", dtype="bfloat16")
    start = start_tokens(small.backbone.prompt_shape, 16, False, seed=0)
    turns = []
    for backbone in (small.backbone, narrow):
        learner = VisualContext(schedule=Schedule(1, 64, 1e-3, optimiser="sgd"))
        learner.fit(small.images, small.text, small.labels, backbone)
        assert learner.backbone_.tokens.dtype == torch.float32
        turns.append((learner.backbone_.tokens - start).flatten())
    assert cosine_similarity(*turns, dim=0) > 0.99
