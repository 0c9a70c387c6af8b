from dataclasses import replace

import torch

from nameonly.adapters.tip_adapter import TipAdapter
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.recipes.tip_adapter import TipAdapterRecipe
from nameonly.task import Task


def logits(recipe, toy, **task):
    features, text, space, _ = toy
    adapted = recipe.fit(Task(features, text, space, **task))
    return adapted.scorer.predict_logits(features)


def test_it_is_its_parts_in_a_row(toy):
    features, text, space, _ = toy
    labels = TopKPerClass(16).label(features, text.predict_logits(features), space)
    want = TipAdapter().fit(features, text, labels).predict_logits(features)
    assert torch.equal(logits(TipAdapterRecipe(), toy), want)


def test_without_the_cache_it_is_zero_shot(toy):
    features, text, *_ = toy
    silent = TipAdapterRecipe(adapters=TipAdapter(alpha=0.0))
    torch.testing.assert_close(logits(silent, toy), text.predict_logits(features))
    assert not torch.allclose(logits(TipAdapterRecipe(), toy), text.predict_logits(features))


def test_given_labels_enter_the_cache(toy):
    *_, y = toy
    wrong = torch.where(torch.arange(60) < 20, (y + 1) % 4, -1)
    recipe = replace(TipAdapterRecipe(), pseudo_labels=TopKPerClass(1))
    assert not torch.allclose(logits(recipe, toy), logits(recipe, toy, given=wrong))
