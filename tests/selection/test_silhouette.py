from dataclasses import replace

import pytest
import torch
from sklearn.metrics import silhouette_score

from nameonly import methods
from nameonly.encoding import build_text_classifier, features_in_order
from nameonly.learning import scores
from nameonly.methods import settings_from
from nameonly.prompts.templates import Templates
from nameonly.recipes.auto import Auto
from nameonly.selection.silhouette import Silhouette, mean_silhouette
from nameonly.task import Adapted, Task


def test_it_is_the_mean_silhouette_and_constant_labels_are_worst(toy):
    features, *_, y = toy
    want = silhouette_score(features.values.numpy(), y.numpy(), metric="cosine")
    assert mean_silhouette(features, y, 1000) == pytest.approx(float(want), abs=1e-6)
    rows = features.content_order()[:20]
    part = silhouette_score(features.values[rows].numpy(), y[rows].numpy(), metric="cosine")
    assert mean_silhouette(features, y, 20) == pytest.approx(float(part), abs=1e-6)
    assert mean_silhouette(features, torch.zeros_like(y), 1000) == -1
    assert mean_silhouette(features, torch.arange(len(y)), 1000) == -1


def test_the_recipe_with_the_highest_is_taken_and_all_are_told(digit_task):
    task = digit_task[0]
    found = Silhouette().choose(task, Templates())
    rows = {row["recipe"]: row for row in found.candidates}
    assert list(rows) == list(Silhouette().recipes)
    for name, row in rows.items():
        labels = scores(task, methods.build_recipe(name).fit(task)).argmax(dim=1)
        want = mean_silhouette(task.features, labels, 5000)
        assert row["silhouette"] == pytest.approx(want, abs=1e-6)
        assert 0 < row["agreement"] <= 1 and 0 < row["observed_accuracy"] <= 1
    (best,) = (row for row in rows.values() if row["chosen"])
    assert best["silhouette"] == max(row["silhouette"] for row in rows.values())
    alone = methods.build_recipe(best["recipe"]).fit(task)
    assert torch.equal(scores(task, found), scores(task, alone))


def test_a_recipe_that_refuses_is_told_and_left_out(digit_task):
    task = replace(digit_task[0], backbone=None, images=None)
    found = Silhouette(recipes=("upl", "zero_shot")).choose(task, Templates())
    refused, taken = found.candidates
    assert "need a backbone" in refused["refused"] and taken["chosen"]
    with pytest.raises(ValueError, match=r"no recipe could be tried; upl: .*backbone"):
        Silhouette(recipes=("upl",)).choose(task, Templates())


def test_given_labels_reach_the_recipes(digit_task):
    task, truth = digit_task[0], torch.as_tensor(digit_task[1])
    given = torch.where(torch.arange(len(truth)) % 2 == 0, truth, -1)
    recipe = Auto(selection=Silhouette(recipes=("up_adapter",)))
    without, with_ = recipe.fit(task), recipe.fit(replace(task, given=given))
    assert not torch.equal(scores(task, without), scores(task, with_))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="no recipe auto to try"):
        Silhouette(recipes=("auto",))
    with pytest.raises(ValueError, match="sample"):
        Silhouette(sample=1)


def test_it_takes_the_plainest_of_equals(toy):
    features, text, space, _ = toy
    found = Silhouette(recipes=("zero_shot", "zero_shot")).choose(
        Task(features, text, space), Templates()
    )
    assert [row["chosen"] for row in found.candidates] == [True, False]


def test_the_better_backbone_is_taken_and_every_one_judges(digit_task, worse_backbone, tmp_path):
    task, truth = digit_task[0], torch.as_tensor(digit_task[1])
    worse = worse_backbone
    found = Silhouette(recipes=("zero_shot",), backbones=(worse,)).choose(task, Templates())
    own, other = found.candidates
    assert own["chosen"] and "backbone" not in own and other["backbone"] == worse
    copy = replace(task.backbone, model=worse)
    space = features_in_order(task.images, copy, tmp_path)
    labels = task.text.predict_logits(task.features).argmax(dim=1)
    both = [mean_silhouette(f, labels, 5000) for f in (task.features, space)]
    assert own["silhouette"] == pytest.approx(sum(both) / 2, abs=1e-6)

    text = build_text_classifier(
        Templates().texts(task.label_space), task.label_space, copy, tmp_path
    )
    turned = replace(task, features=space, text=text, backbone=copy)
    back = Silhouette(recipes=("zero_shot",), backbones=("tiny",)).choose(turned, Templates())
    assert back.candidates[1]["chosen"] and back.task.backbone.name == "tiny"
    assert torch.allclose(back.task.features.values, task.features.values, atol=1e-5)
    right = [
        (scores(t, Adapted(t.text)).argmax(dim=1) == truth).float().mean()
        for t in (turned, back.task)
    ]
    assert right[1] > right[0] + 0.1


def test_prompts_and_settings_are_tried_too(digit_task, tmp_path):
    task = digit_task[0]
    few = "up_adapter pseudo_labels.images_per_class=2"
    selection = Silhouette(recipes=("zero_shot", few), prompts=("openai7",))
    found = selection.choose(task, Templates())
    told = [(row["recipe"], row.get("prompts")) for row in found.candidates]
    assert told == [("zero_shot", None), (few, None), ("zero_shot", "openai7"), (few, "openai7")]
    assert len({row["silhouette"] for row in found.candidates}) > 2
    for name, templates in told:
        recipe = methods.build_recipe(name.split()[0], settings_from(name.split()[1:]))
        texts = Templates(templates or "single").texts(task.label_space)
        text = build_text_classifier(texts, task.label_space, task.backbone, tmp_path)
        seen = replace(task, text=text)
        labels = scores(seen, recipe.fit(seen)).argmax(dim=1)
        row = found.candidates[told.index((name, templates))]
        assert row["silhouette"] == pytest.approx(
            mean_silhouette(task.features, labels, 5000), abs=1e-6
        )


def test_what_trains_keeps_its_state_apart(digit_task, tmp_path):
    short = "upl prompt_learning.schedule.epochs=1 prompt_learning.n_prompts=1 "
    names = [f"{short}pseudo_labels.images_per_class={k}" for k in (1, 4)]
    task = replace(digit_task[0], checkpoints=tmp_path)
    together = Silhouette(recipes=tuple(names)).choose(task, Templates()).candidates
    for name, row in zip(names, together, strict=True):
        (alone,) = Silhouette(recipes=(name,)).choose(digit_task[0], Templates()).candidates
        assert row["silhouette"] == alone["silhouette"]


def test_what_cannot_be_tried_is_refused_at_once(digit_task, tmp_path):
    task = digit_task[0]
    own = replace(task, backbone=None, images=None)
    with pytest.raises(ValueError, match=r"own features come without them.*selection\.backbones"):
        Silhouette(backbones=("tiny",)).choose(own, Templates())
    refused = Silhouette(recipes=("zero_shot",), prompts=("openai7",)).choose(own, Templates())
    assert "leave other prompts out" in refused.candidates[1]["refused"]
    named = replace(task, label_space=replace(task.label_space, templates=("a {}.",)))
    with pytest.raises(ValueError, match="texts of their own"):
        Silhouette(prompts=("openai7",)).choose(named, Templates())
    with pytest.raises(ValueError, match="nowhere"):
        Silhouette(backbones=(str(tmp_path / "nowhere"),)).choose(task, Templates())
    with pytest.raises(ValueError, match="has no setting 'shots'"):
        Silhouette(recipes=("up_adapter pseudo_labels.shots=3",))
    with pytest.raises(ValueError, match="no set of templates 'openai9'"):
        Silhouette(prompts=("openai9",))
