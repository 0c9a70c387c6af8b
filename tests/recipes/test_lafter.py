from dataclasses import replace

import pytest
import torch

from nameonly.adapters.linear_head import LinearHead
from nameonly.recipes.lafter import Lafter
from nameonly.task import Task


def logits(recipe, toy, **more):
    features, text, space, _ = toy
    features = replace(features, **more)
    return recipe.fit(Task(features, text, space)).scorer.predict_logits(features)


def test_every_image_teaches(toy):
    features, text, space, _ = toy
    assert Lafter().fit(Task(features, text, space)).pseudo_labels.selected.all()


def test_without_the_texts_the_result_is_another(toy):
    untaught = Lafter(adapters=LinearHead(text_steps=0))
    assert not torch.allclose(logits(Lafter(), toy), logits(untaught, toy), atol=1e-3)


def test_without_self_training_the_result_is_another(toy):
    texts_only = Lafter(adapters=LinearHead(epochs=0))
    assert not torch.allclose(logits(Lafter(), toy), logits(texts_only, toy), atol=1e-3)


def test_views_teach_another_head(toy):
    features = toy[0]
    noise = torch.randn(2, 60, 16, generator=torch.Generator().manual_seed(0))
    views = torch.nn.functional.normalize(features.values + 0.2 * noise, dim=2)
    assert not torch.allclose(logits(Lafter(), toy), logits(Lafter(), toy, views=views), atol=1e-3)


def test_strong_views_are_encoded_where_they_are_asked_for(digit_task):
    task, _ = digit_task
    task = replace(
        task, features=task.features.subset(torch.arange(12)), images=task.images.subset(range(12))
    )
    recipe = Lafter(adapters=LinearHead(text_steps=20, epochs=2, views=2))
    plain = Lafter(adapters=LinearHead(text_steps=20, epochs=2))
    with_views, without = (r.fit(task).scorer.weights_ for r in (recipe, plain))
    assert not torch.allclose(with_views, without, atol=1e-5)
    with pytest.raises(ValueError, match=r"2 augmented views .*adapters.views=0"):
        recipe.fit(replace(task, images=None))
