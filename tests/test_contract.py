"""What every method of a stage must keep, whatever it computes."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from PIL import Image

from nameonly import methods
from nameonly.task import Task
from nameonly.types import Features, LabelSpace, PseudoLabels, TextClassifier

PERM = torch.randperm(60, generator=torch.Generator().manual_seed(1))
COLS = torch.tensor([2, 0, 3, 1])


def params(method):
    return {f.name: getattr(method, f.name) for f in fields(method) if f.init}


def permuted(text, label_space):
    names = tuple(text.class_names[i] for i in COLS.tolist())
    return replace(text, weights=text.weights[COLS], class_names=names), LabelSpace(names)


def pseudo(features, text, label_space, k=8):
    labeller = methods.create("pseudo_labels", "top_k_per_class", images_per_class=k)
    return labeller.label(features, text.predict_logits(features), label_space)


def fitted(adapter, features, text, label_space):
    return adapter.fit(features, text, pseudo(features, text, label_space))


@pytest.fixture(params=methods.names("pseudo_labels"))
def labeller(request):
    return methods.create("pseudo_labels", request.param)


@pytest.fixture(params=methods.names("adapters"))
def adapter(request):
    return methods.create("adapters", request.param)


@pytest.fixture(params=methods.names("decisions"))
def decision(request):
    return methods.create("decisions", request.param)


@pytest.fixture(params=methods.names("recipes"))
def recipe(request):
    return methods.create("recipes", request.param)


@pytest.mark.parametrize("stage", methods.STAGES)
def test_every_method_is_made_without_arguments_and_keeps_its_fields(stage):
    for name in methods.names(stage):
        method = methods.create(stage, name)
        assert params(methods.create(stage, name)) == params(method)


def test_labels_follow_images_and_classes(labeller, toy):
    features, text, space, _ = toy
    a = labeller.label(features, text.predict_logits(features), space)
    shuffled = features.subset(PERM)
    b = labeller.label(shuffled, text.predict_logits(shuffled), space)
    assert torch.equal(a.candidates[PERM], b.candidates)
    text_, space_ = permuted(text, space)
    c = labeller.label(features, text_.predict_logits(features), space_)
    assert torch.equal(a.candidates[:, COLS], c.candidates)


def test_labels_with_ties_follow_ids_not_rows(labeller, toy):
    features, text, space, _ = toy
    same = replace(features, values=features.values[:1].expand(60, -1).contiguous())
    a = labeller.label(same, text.predict_logits(same), space)
    shuffled = same.subset(PERM)
    b = labeller.label(shuffled, text.predict_logits(shuffled), space)
    assert torch.equal(a.candidates[PERM], b.candidates)


def test_labeller_changes_nothing_and_repeats_itself(labeller, toy):
    features, text, space, _ = toy
    logits = text.predict_logits(features)
    kept, before = logits.clone(), params(labeller)
    a, b = (labeller.label(features, logits, space) for _ in range(2))
    assert torch.equal(logits, kept) and params(labeller) == before
    assert torch.equal(a.candidates, b.candidates) and torch.equal(a.probs, b.probs)
    torch.testing.assert_close(a.probs.sum(dim=1), torch.ones(60))
    assert ((a.confidence >= 0) & (a.confidence <= 1)).all() and a.ids == features.ids


def test_given_labels_are_kept(labeller, toy):
    features, text, space, _ = toy
    given = torch.full((60,), -1)
    given[:6] = torch.tensor([3, 3, 2, 1, 0, 0])
    got = labeller.label(features, text.predict_logits(features), space, given)
    assert torch.equal(got.labels[:6], given[:6])
    assert (got.candidates[:6].sum(dim=1) == 1).all() and (got.confidence[:6] == 1).all()


def test_one_image_and_one_class(labeller, adapter, toy):
    features, text, space, _ = toy
    one = features.subset(torch.tensor([0]))
    assert labeller.label(one, text.predict_logits(one), space).candidates.shape == (1, 4)
    single = TextClassifier(text.weights[:1], 20.0, text.class_names[:1])
    for x, t in ((one, text), (features, single)):
        labels = pseudo(x, t, LabelSpace(t.class_names))
        logits = copy.deepcopy(adapter).fit(x, t, labels).predict_logits(x)
        assert torch.isfinite(logits).all()


def test_adapter_follows_images_and_classes(adapter, toy):
    features, text, space, _ = toy
    a = fitted(adapter, features, text, space).predict_logits(features)
    shuffled = features.subset(PERM)
    b = fitted(adapter, shuffled, text, space).predict_logits(shuffled)
    torch.testing.assert_close(a[PERM], b, atol=1e-4, rtol=1e-4)
    text_, space_ = permuted(text, space)
    c = fitted(adapter, features, text_, space_).predict_logits(features)
    torch.testing.assert_close(a[:, COLS], c, atol=1e-4, rtol=1e-4)


def test_adapter_keeps_inputs_and_hyperparameters(adapter, toy):
    features, text, space, _ = toy
    before, kept = params(adapter), copy.deepcopy((features.values, text.weights))
    logits = fitted(adapter, features, text, space).predict_logits(features)
    assert params(adapter) == before
    assert torch.equal(features.values, kept[0]) and torch.equal(text.weights, kept[1])
    assert logits.dtype == features.values.dtype and torch.isfinite(logits).all()


def test_adapter_repeats_itself_and_forgets(adapter, toy):
    features, text, space, _ = toy
    first = fitted(copy.deepcopy(adapter), features, text, space).predict_logits(features)
    other = replace(features, values=-features.values)
    fitted(adapter, other, text, space)
    again = fitted(adapter, features, text, space).predict_logits(features)
    assert torch.equal(first, again)


def test_adapter_refuses_before_fit_and_without_labels(adapter, toy):
    features, text, space, _ = toy
    with pytest.raises(ValueError, match="fit"):
        adapter.predict_logits(features)
    labels = pseudo(features, text, space)
    none = PseudoLabels(labels.ids, labels.probs, labels.candidates & False, labels.confidence)
    with pytest.raises(ValueError, match="60 images"):
        adapter.fit(features, text, none)
    with pytest.raises(ValueError, match=r"other|different"):
        adapter.fit(features.subset(PERM), text, labels)


def test_adapter_scores_new_images_or_refuses(adapter, toy):
    features, text, space, _ = toy
    seen, unseen = features.subset(torch.arange(40)), features.subset(torch.arange(40, 60))
    fitted(adapter, seen, text, space)
    if adapter.transductive:
        with pytest.raises(ValueError, match="transductive"):
            adapter.predict_logits(unseen)
    else:
        assert adapter.predict_logits(unseen).shape == (20, 4)


def test_adapter_is_no_worse_than_zero_shot_on_easy_data(adapter, toy):
    features, text, space, y = toy
    zero_shot = (text.predict_logits(features).argmax(1) == y).float().mean()
    adapted = fitted(adapter, features, text, space).predict_logits(features).argmax(1) == y
    assert adapted.float().mean() >= zero_shot


def test_decision_gives_a_class_or_none(decision, toy):
    features, text, _, _ = toy
    logits = text.predict_logits(features)
    kept = logits.clone()
    labels = decision.fit(logits, features).decide(logits, features)
    assert torch.equal(logits, kept)
    assert labels.shape == (60,) and labels.min() >= -1 and labels.max() < 4
    shuffled = decision.fit(logits[PERM]).decide(logits[PERM])
    assert torch.equal(labels[PERM], shuffled)
    answered = labels >= 0
    assert torch.equal(labels[answered], logits.argmax(dim=1)[answered])


def test_recipe_stays_as_it_is_and_scores(recipe, toy):
    features, text, space, y = toy
    before = methods.describe_recipe(recipe)
    adapted = recipe.fit(Task(features, text, space))
    assert methods.describe_recipe(recipe) == before
    assert not any(hasattr(part, "prototypes_") for part in vars(recipe).values())
    logits = adapted.scorer.predict_logits(features)
    zero_shot = text.predict_logits(features)
    assert (logits.argmax(1) == y).float().mean() >= (zero_shot.argmax(1) == y).float().mean()
    assert torch.equal(
        logits, recipe.fit(Task(features, text, space)).scorer.predict_logits(features)
    )


def test_prompts_give_every_class_a_text(toy):
    space = toy[2]
    for name in methods.names("prompts"):
        texts = methods.create("prompts", name).texts(space)
        assert len(texts) == 4 and all(texts)
        assert all(
            n in t for n, sentences in zip(space.class_names, texts, strict=True) for t in sentences
        )


def test_features_of_another_dimension_are_refused(adapter, toy):
    features, text, space, _ = toy
    fitted(adapter, features, text, space)
    wrong = Features(torch.eye(8), tuple("abcdefgh"), "toy")
    with pytest.raises(ValueError, match="dimension"):
        adapter.predict_logits(wrong)


def test_backbones_are_cheap_to_make_and_say_what_they_lack():
    for name in methods.names("backbones"):
        backbone = methods.create("backbones", name)
        with pytest.raises(ValueError, match=r"cannot load backbone|expected an npz"):
            _ = backbone.dim
        if name == "precomputed":
            with pytest.raises(ValueError, match="encode them with the model"):
                backbone.encode_images([Image.new("RGB", (4, 4))])
