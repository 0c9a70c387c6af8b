from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from nameonly import methods
from nameonly.loop import Schedule
from nameonly.ops.initial import named_normal
from nameonly.prompt_learning.text_context import TextContext, drawn_views
from nameonly.types import LabelSpace

NONE = Schedule(0, 32, 0.1)


def fitted(small, learner, features=None, labels=None):
    learner.fit(features or small.features, small.text, labels or small.labels, small.backbone)
    return learner.text_.weights


def with_views(features, noise, n_views=3):
    drawn = torch.randn(n_views, *features.values.shape, generator=torch.Generator().manual_seed(0))
    return replace(features, views=normalize(features.values + noise * drawn, dim=2))


def test_the_papers_values():
    learner = TextContext()
    assert (learner.n_context, learner.class_specific, learner.n_prompts) == (16, False, 1)
    assert learner.schedule == Schedule(50, 32, 2e-3, 1.0, weight_decay=5e-4, optimiser="sgd")
    for name in ("n_context", "n_prompts"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            TextContext(**{name: 0})


@pytest.mark.parametrize("class_specific", [False, True])
def test_one_step_by_hand(small, one_step, updated, class_specific):
    names = small.text.class_names if class_specific else ("",)
    start = named_normal(names, (3, 128), 0.02, 6)
    start = (start if class_specific else start[0]).requires_grad_()
    encode = small.backbone.text_prompter(small.text.class_names, 3)
    rows = small.labels.selected
    logits = small.text.logit_scale * small.features.values[rows] @ encode(start).T
    (after,) = updated(cross_entropy(logits, small.labels.labels[rows]), [start])
    with torch.no_grad():
        want = encode(after)
    learner = TextContext(3, class_specific, schedule=one_step, seed=6)
    torch.testing.assert_close(fitted(small, learner), want, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(want, encode(start), atol=1e-3)


@pytest.mark.parametrize("targets", ["soft", "candidates"])
def test_one_step_on_candidate_sets_by_hand(small, sets, one_step, updated, targets):
    start = named_normal([""], (3, 128), 0.02, 0)[0].requires_grad_()
    encode = small.backbone.text_prompter(small.text.class_names, 3)
    probs = (small.text.logit_scale * small.features.values @ encode(start).T).softmax(dim=1)
    kept = sets.probs * sets.candidates
    weights = kept / kept.sum(dim=1, keepdim=True) if targets == "soft" else sets.candidates
    (after,) = updated(-(probs * weights).sum(dim=1).log().mean(), [start])
    with torch.no_grad():
        want = encode(after)
    got = fitted(small, TextContext(3, targets=targets, schedule=one_step), labels=sets)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_kinds_of_targets_differ_where_an_image_has_several_candidates(small, sets):
    schedule = Schedule(1, 12, 0.05, optimiser="sgd")
    soft, hard = (TextContext(2, targets=t, schedule=schedule) for t in ("soft", "candidates"))
    assert torch.equal(fitted(small, soft), fitted(small, hard)), "one candidate: a hard label"
    soft, hard = fitted(small, soft, labels=sets), fitted(small, hard, labels=sets)
    assert not torch.allclose(soft, hard, atol=1e-4)


@pytest.mark.parametrize("class_specific", [False, True])
def test_a_phrase_untrained_is_the_zero_shot_classifier_of_the_phrase(small, class_specific):
    learner = TextContext(class_specific=class_specific, init="a photo of a", schedule=NONE)
    texts = [f"a photo of a {name}" for name in small.text.class_names]
    want = small.backbone.encode_texts(texts)
    torch.testing.assert_close(fitted(small, learner), want, atol=2e-6, rtol=1e-5)
    assert learner.backbone_ is small.backbone


def test_each_class_starts_with_vectors_of_its_own_by_name(small):
    names = small.text.class_names
    own = fitted(small, TextContext(2, class_specific=True, schedule=NONE))
    encode = small.backbone.text_prompter(names, 2)
    torch.testing.assert_close(own, encode(named_normal(names, (2, 128), 0.02, 0)))
    shared = fitted(small, TextContext(2, schedule=NONE))
    torch.testing.assert_close(shared, encode(named_normal([""], (2, 128), 0.02, 0)[0]))
    assert not torch.allclose(own, shared, atol=1e-3)


def test_several_prompts_average_their_logits(small):
    schedule = Schedule(2, 5, 0.05, optimiser="sgd")
    learner = TextContext(2, n_prompts=3, schedule=schedule, seed=4)
    joined = fitted(small, learner)
    single = [TextContext(2, schedule=schedule, seed=4 + i) for i in range(3)]
    logits = []
    for one in single:
        fitted(small, one)
        logits.append(one.text_.predict_logits(small.features))
    mean = torch.stack(logits).mean(dim=0)
    got = learner.text_.predict_logits(small.features)
    torch.testing.assert_close(got, mean, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits[0], logits[1], atol=1e-2) and joined.shape == (10, 128)


def test_several_prompts_of_one_phrase_differ(small):
    one = fitted(small, TextContext(init="a photo of a", schedule=NONE))
    two = fitted(small, TextContext(init="a photo of a", n_prompts=2, schedule=NONE))
    assert not torch.allclose(one, two, atol=1e-4)
    assert ((one * normalize(two, dim=1)).sum(dim=1) > 0.5).all()


def test_each_prompt_has_a_checkpoint_of_its_own(small, tmp_path):
    learner = TextContext(2, n_prompts=2, schedule=Schedule(1, 12, 0.1))
    path = tmp_path / "part.safetensors"
    learner.fit(small.features, small.text, small.labels, small.backbone, checkpoint=path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["part-0.safetensors", "part-1.safetensors"]


def test_one_view_of_each_image_is_drawn_by_the_batch(small):
    features = with_views(small.features, 0.02)
    order = torch.tensor([4, 0, 9])
    got = drawn_views(features, order, seed=1)
    assert torch.equal(got, drawn_views(features, order, seed=1))
    taken = set()
    for seed in range(30):
        near = features.views[:, order] == drawn_views(features, order, seed)
        which = near.all(dim=2).int()
        assert (which.sum(dim=0) == 1).all(), "one whole view, of the image itself"
        taken.add(tuple(which.argmax(dim=0).tolist()))
    assert len(taken) > 10
    batches = [torch.randperm(12, generator=torch.Generator().manual_seed(i)) for i in range(30)]
    back = [drawn_views(features, rows, 0)[rows.argsort()] for rows in batches]
    assert len({tuple(values[:, 0].tolist()) for values in back}) > 10, "another batch, other views"
    assert torch.equal(drawn_views(small.features, order, 0), small.features.values[order])


def test_views_are_what_is_trained_on(small):
    learner = TextContext(2, schedule=Schedule(2, 5, 0.05, optimiser="sgd"))
    plain = fitted(small, learner)
    same = replace(small.features, views=small.features.values.expand(3, -1, -1))
    assert torch.equal(fitted(small, learner, features=same), plain)
    noisy = with_views(small.features, 0.02)
    assert not torch.allclose(fitted(small, learner, features=noisy), plain, atol=1e-4)


def test_given_labels_are_learnt_whatever_the_scores_say(small):
    logits, space = small.text.predict_logits(small.features), LabelSpace(small.text.class_names)
    wrong = (logits.argmax(dim=1) + 1) % 10
    labels = methods.create("pseudo_labels", "top_k_per_class").label(
        small.features, logits, space, wrong
    )
    untrained = fitted(small, TextContext(2, schedule=NONE))
    losses = []
    learner = TextContext(2, schedule=Schedule(1, 12, 0.0))
    learner.fit(
        small.features,
        small.text,
        labels,
        small.backbone,
        on_epoch=lambda _, loss: losses.append(loss),
    )
    want = cross_entropy(small.text.logit_scale * small.features.values @ untrained.T, wrong)
    assert losses == [pytest.approx(want.item(), rel=1e-5)]


def test_features_of_another_backbone_are_refused(small):
    other = replace(small.features, backbone="another")
    with pytest.raises(ValueError, match="features of 'another', but the prompts train through"):
        fitted(small, TextContext(), features=other)


def test_a_context_that_leaves_no_room_is_refused(small):
    with pytest.raises(ValueError, match="lower n_context"):
        fitted(small, TextContext(77))
