from dataclasses import replace

import pytest
import torch
from sklearn.metrics import silhouette_score

from nameonly import methods
from nameonly.learning import scores
from nameonly.recipes.auto import Auto
from nameonly.selection.silhouette import Silhouette, mean_silhouette
from nameonly.task import Task


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
    found = Silhouette().choose(task)
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
    found = Silhouette(recipes=("upl", "zero_shot")).choose(task)
    refused, taken = found.candidates
    assert "need a backbone" in refused["refused"] and taken["chosen"]
    with pytest.raises(ValueError, match=r"no recipe could be tried; upl: .*backbone"):
        Silhouette(recipes=("upl",)).choose(task)


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
    found = Silhouette(recipes=("zero_shot", "zero_shot")).choose(Task(features, text, space))
    assert [row["chosen"] for row in found.candidates] == [True, False]
