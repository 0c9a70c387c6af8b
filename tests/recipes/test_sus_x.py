from dataclasses import replace

import pytest
import torch
from diffusion_models import generator

from nameonly.recipes.sus_x import SusX
from nameonly.synthesis.support_set import SupportSet


@pytest.fixture
def recipe(model):
    return replace(
        SusX(),
        text_to_image=generator(model, steps=2, batch_size=16),
        support_set=SupportSet(images_per_class=3),
    )


@pytest.fixture
def task(digit_task, tmp_path):
    return replace(digit_task[0], cache=tmp_path)


def test_it_has_the_papers_settings():
    recipe = SusX()
    assert recipe.text_to_image.steps == 85 and recipe.prompt_tricks.guidance_scale == 9.5
    assert recipe.support_set.images_per_class == 100


def logits(recipe, task):
    return recipe.fit(task).scorer.predict_logits(task.features)


def test_the_support_set_votes_and_nothing_is_learnt_from_the_images(recipe, task):
    adapted = recipe.fit(task)
    assert adapted.scorer.cache_keys_.shape == (30, task.features.values.shape[1])
    assert adapted.pseudo_labels is None
    few = replace(
        task, features=task.features.subset(torch.arange(9)), images=task.images.subset(range(9))
    )
    torch.testing.assert_close(logits(recipe, few), logits(recipe, task)[:9])


def test_without_its_support_or_its_distances_the_result_is_another(recipe, task):
    plain = logits(recipe, task)
    for changed in (
        replace(recipe, adapters=replace(recipe.adapters, alpha=0.0)),
        replace(recipe, adapters=replace(recipe.adapters, gamma=0.0)),
        replace(recipe, support_set=SupportSet(images_per_class=2)),
    ):
        assert not torch.allclose(logits(changed, task), plain, atol=1e-3)


def test_other_descriptions_are_other_images(recipe, task):
    """They are drawn into a folder of their own: none of the cache's could be named anew."""
    told = replace(recipe, prompt_tricks=replace(recipe.prompt_tricks, tricks=("descriptions",)))
    folders = set()
    for word in ("thin", "thick", "thin"):
        sentences = tuple((f"a {word} {name}",) for name in task.label_space.class_names)
        space = replace(task.label_space, descriptions=sentences)
        adapted = told.fit(replace(task, label_space=space))
        assert {row["prompt"] for row in adapted.support.rows} == {s for (s,) in sentences}
        folders.add(adapted.support.folder)
    plain = recipe.fit(replace(task, label_space=space)).support.folder
    assert len(folders) == 2 and plain == recipe.fit(task).support.folder


def test_what_it_needs_is_told(recipe, task):
    with pytest.raises(ValueError, match="need a backbone"):
        recipe.fit(replace(task, backbone=None))
    with pytest.raises(ValueError, match="kept in a cache folder"):
        recipe.fit(replace(task, cache=None))


def test_label_save_load_and_predict(labels_and_predicts):
    labels_and_predicts("sus_x")
