"""What every method of a stage must keep, whatever it computes."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from PIL import Image

from nameonly import methods
from nameonly.encoding import features_in_order
from nameonly.images import load
from nameonly.learning import scores
from nameonly.loop import Schedule
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
    shorter = {"text_steps": 20, "epochs": 5} if request.param == "linear_head" else {}
    return methods.create("adapters", request.param, **shorter)


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


def test_open_images_have_unseen_classes_alone_where_some_are_seen(labeller, toy):
    features, text, space, _ = toy
    mixed = replace(space, seen=(True, False, False, True))
    given = torch.full((60,), -1)
    given[:6] = torch.tensor([0, 3, 3, 0, 0, 3])
    got = labeller.label(features, text.predict_logits(features), mixed, given)
    assert not got.candidates[6:, [0, 3]].any() and (got.probs[6:, [0, 3]] == 0).all()
    assert torch.equal(got.labels[:6], given[:6])
    assert torch.isfinite(got.probs).all() and (got.probs >= 0).all()
    torch.testing.assert_close(got.probs.sum(dim=1), torch.ones(60))


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


def shortened(recipe):
    """A recipe whose prompts, if it learns some, train for a moment."""
    if hasattr(recipe, "text_to_image"):
        tiny = replace(recipe.text_to_image, model="tiny", steps=1, batch_size=16)
        few = replace(recipe.support_set, images_per_class=2)
        recipe = replace(recipe, text_to_image=tiny, support_set=few)
    if hasattr(recipe, "domain_lora"):
        short = replace(recipe.domain_lora, schedule=Schedule(1, 32, 1e-3))
        recipe = replace(recipe, domain_lora=short)
    if hasattr(recipe, "training"):
        short = {"architecture": "test_resnet", "size": 32, "schedule": Schedule(1, 16, 1e-3)}
        recipe = replace(recipe, training=replace(recipe.training, **short))
    if not hasattr(recipe, "prompt_learning"):
        return recipe
    learner = recipe.prompt_learning
    few = {"n_prompts": 2} if hasattr(learner, "n_prompts") else {}
    schedule = replace(learner.schedule, epochs=2, batch_size=64, warmup_epochs=1.0)
    changed = {"prompt_learning": replace(learner, schedule=schedule, **few)}
    if hasattr(recipe, "relabelling"):
        changed["relabelling"] = replace(recipe.relabelling, rounds=2)
    return replace(recipe, **changed)


def said(adapted, task, cache):
    """What the scorer says of the task's images, by the features that it reads."""
    if adapted.backbone is None:
        return adapted.scorer.predict_logits(task.features)
    return adapted.scorer.predict_logits(features_in_order(task.images, adapted.backbone, cache))


def test_recipe_stays_as_it_is_and_repeats_itself(recipe, toy, digit_task, tmp_path):
    recipe = shortened(recipe)
    needs_images = hasattr(recipe, "prompt_learning") or hasattr(recipe, "text_to_image")
    task = replace(digit_task[0], cache=tmp_path) if needs_images else Task(*toy[:3])
    before = methods.describe_recipe(recipe)
    adapted = recipe.fit(task)
    assert methods.describe_recipe(recipe) == before
    for part in vars(recipe).values():
        assert not any(name.endswith("_") for name in vars(part)), "parts stay unfitted"
    logits = said(adapted, task, tmp_path)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, said(recipe.fit(task), task, tmp_path))
    own = scores(task, adapted)
    assert own.shape == logits.shape and torch.isfinite(own).all()


def on_features_alone():
    """Recipes that need no tower: prompts are held to this where they are learned, above."""
    made = {name: methods.create("recipes", name) for name in methods.names("recipes")}
    towers = ("prompt_learning", "text_to_image")
    return [name for name, r in made.items() if not any(hasattr(r, part) for part in towers)]


@pytest.mark.parametrize("name", on_features_alone())
def test_recipe_is_no_worse_than_zero_shot_on_easy_data(name, toy):
    features, text, space, y = toy
    task, recipe = Task(features, text, space), methods.create("recipes", name)
    zero_shot = text.predict_logits(features).argmax(1) == y
    adapted = scores(task, recipe.fit(task)).argmax(1) == y
    assert adapted.float().mean() >= zero_shot.float().mean()


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


@pytest.fixture(params=methods.names("prompt_learning"))
def learner(request):
    """A learner at its paper's rate for two short epochs."""
    made = methods.create("prompt_learning", request.param)
    return replace(made, schedule=replace(made.schedule, epochs=2, batch_size=8))


@pytest.fixture(scope="session")
def few(digit_task):
    """Sixteen digits as features and as images, with labels."""
    task, y = digit_task
    rows = torch.arange(16)
    images, features = task.images.subset(rows.tolist()), task.features.subset(rows)
    labels = pseudo(features, task.text, task.label_space, k=4)
    return images, features, task.text, labels, task.backbone, y[rows]


def learnt(learner, images, features, text, labels, backbone, **options):
    """Return copies of the class weights and of the image tower's tokens, if any."""
    inputs = features if learner.reads == "features" else images
    learner.fit(inputs, text, labels, backbone, **options)
    tokens = getattr(learner.backbone_, "tokens", torch.zeros(0))
    return learner.text_.weights.clone(), tokens.clone()


def labels_at(labels, rows, columns):
    return PseudoLabels(
        tuple(labels.ids[i] for i in rows.tolist()),
        labels.probs[rows][:, columns],
        labels.candidates[rows][:, columns],
        labels.confidence[rows],
    )


def test_learner_repeats_itself_forgets_and_changes_nothing_else(learner, few):
    images, features, text, labels, backbone, _ = few
    kept = copy.deepcopy((features.values, text.weights, labels.probs, labels.candidates))
    bytes_before = {k: v.clone() for k, v in backbone.network.state_dict().items()}
    before, chance = params(learner), torch.get_rng_state()
    first = learnt(copy.deepcopy(learner), *few[:5])
    turned = labels_at(labels, torch.arange(16), torch.arange(10).roll(1))
    other = learnt(learner, images, features, text, turned, backbone)
    again = learnt(learner, *few[:5])
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))
    assert all(torch.isfinite(values).all() for values in first)
    assert params(learner) == before and torch.equal(torch.get_rng_state(), chance)
    now = (features.values, text.weights, labels.probs, labels.candidates)
    assert all(map(torch.equal, kept, now))
    bytes_now = backbone.network.state_dict()
    assert all(torch.equal(bytes_before[k], bytes_now[k]) for k in bytes_before)
    assert all(p.grad is None for p in backbone.network.parameters())


def test_learner_gives_unit_weights_of_all_classes_and_a_backbone_to_read(learner, few):
    _, _, text, _, backbone, _ = few
    weights, tokens = learnt(learner, *few[:5])
    assert learner.text_.class_names == text.class_names
    torch.testing.assert_close(weights.norm(dim=1), torch.ones(10))
    assert weights.dtype == text.weights.dtype and not weights.requires_grad
    assert learner.text_.logit_scale == text.logit_scale
    assert not tokens.requires_grad
    assert (learner.backbone_ is backbone) == (learner.reads == "features")


def test_learner_follows_images_and_classes(learner, few):
    images, features, text, labels, backbone, _ = few
    a = learnt(learner, *few[:5])
    rows = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    shuffled = images.subset(rows.tolist()), features.subset(rows)
    b = learnt(learner, *shuffled, text, labels_at(labels, rows, torch.arange(10)), backbone)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
    columns = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    names = tuple(text.class_names[i] for i in columns.tolist())
    text_ = replace(text, weights=text.weights[columns], class_names=names)
    c = learnt(
        learner, images, features, text_, labels_at(labels, torch.arange(16), columns), backbone
    )
    torch.testing.assert_close(a[0][columns], c[0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(a[1], c[1], atol=1e-3, rtol=1e-3)


def test_learner_refuses_what_it_cannot_learn_from(learner, few):
    images, features, text, labels, backbone, _ = few
    none = replace(labels, candidates=labels.candidates & False)
    with pytest.raises(ValueError, match="none of the 16 images"):
        learnt(learner, images, features, text, none, backbone)
    rows = torch.arange(16).roll(1)
    with pytest.raises(ValueError, match=r"other|different"):
        learnt(learner, images.subset(rows.tolist()), features.subset(rows), text, labels, backbone)
    wrong = images if learner.reads == "features" else features
    with pytest.raises(ValueError, match="features"):
        learner.fit(wrong, text, labels, backbone)


def test_learner_stops_at_a_loss_that_is_not_finite(learner, few):
    wild = replace(learner, schedule=replace(learner.schedule, learning_rate=1e38, epochs=9))
    epochs = []
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        learnt(wild, *few[:5], on_epoch=lambda epoch, loss: epochs.append(epoch))
    assert len(epochs) < 9


def test_stopped_learner_goes_on_to_the_same_result(learner, few, tmp_path):
    def stop(epoch, loss):
        raise KeyboardInterrupt

    whole = learnt(learner, *few[:5])
    with pytest.raises(KeyboardInterrupt):
        learnt(learner, *few[:5], checkpoint=tmp_path / "part.safetensors", on_epoch=stop)
    epochs = []
    resumed = learnt(
        learner,
        *few[:5],
        checkpoint=tmp_path / "part.safetensors",
        on_epoch=lambda epoch, loss: epochs.append(epoch),
    )
    assert epochs == [2] and all(map(torch.equal, whole, resumed))
    with pytest.raises(ValueError, match="another run"):
        learnt(replace(learner, seed=1), *few[:5], checkpoint=tmp_path / "part.safetensors")


def test_learner_takes_one_image_and_one_class(learner, few):
    images, features, text, labels, backbone, _ = few
    row = labels.selected.nonzero()[:1, 0]
    one = images.subset(row.tolist()), features.subset(row)
    got = learnt(learner, *one, text, labels_at(labels, row, torch.arange(10)), backbone)
    assert all(torch.isfinite(values).all() for values in got)
    single = TextClassifier(text.weights[:1], text.logit_scale, text.class_names[:1])
    alone = pseudo(features, single, LabelSpace(single.class_names))
    got = learnt(learner, images, features, single, alone, backbone)
    assert got[0].shape == (1, text.weights.shape[1])
    assert all(torch.isfinite(values).all() for values in got)


def test_learner_is_no_worse_than_zero_shot_with_the_right_labels(learner, few):
    images, features, text, _, backbone, y = few
    given = methods.create("pseudo_labels", "top_k_per_class").label(
        features, text.predict_logits(features), LabelSpace(text.class_names), y
    )
    longer = replace(learner, schedule=replace(learner.schedule, epochs=12))
    learnt(longer, images, features, text, given, backbone)
    values = longer.backbone_.encode_images([load(images, row) for row in range(16)])
    made = Features(values, images.ids, longer.backbone_.name)
    adapted = (longer.text_.predict_logits(made).argmax(1) == y).sum()
    assert adapted >= (text.predict_logits(features).argmax(1) == y).sum()
