from dataclasses import replace

import torch

from nameonly.recipes.fpl import Fpl
from nameonly.recipes.grip import Grip
from nameonly.types import LabelSpace


def test_it_has_the_papers_settings():
    recipe = Grip()
    assert (recipe.relabelling.rounds, recipe.relabelling.capacity) == (10, "growing")
    assert recipe.relabelling.first_targets is None
    assert recipe.prompt_learning == Fpl().prompt_learning


def test_in_the_end_all_images_have_labels(quick, digit_task):
    task, _ = digit_task
    labels = quick(Grip(), epochs=1, rounds=2).fit(task).pseudo_labels
    assert labels.candidates.sum(dim=0).tolist() == [16] * 10


def test_without_growth_the_result_is_another(quick, run):
    recipe = quick(Grip())
    fixed = replace(recipe, relabelling=replace(recipe.relabelling, capacity="fixed"))
    assert not torch.allclose(run(recipe), run(fixed), atol=1e-4)


def test_without_relabelling_the_result_is_another(quick, run):
    assert not torch.allclose(run(quick(Grip(), rounds=2)), run(quick(Grip(), rounds=1)), atol=1e-4)


def test_images_of_seen_classes_are_learnt_from_and_the_others_get_unseen_ones(quick, digit_task):
    task, y = digit_task
    names = task.label_space.class_names
    space = LabelSpace(names, seen=tuple(j < 6 for j in range(10)))
    given = torch.where(y < 6, y, -1)
    labels = (
        quick(Grip(), epochs=1).fit(replace(task, label_space=space, given=given)).pseudo_labels
    )
    assert torch.equal(labels.labels[y < 6], y[y < 6])
    assert (labels.labels[y >= 6] >= 6)[labels.selected[y >= 6]].all()
