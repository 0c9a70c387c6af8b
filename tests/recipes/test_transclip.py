import torch

from nameonly.adapters.transclip import TransClip
from nameonly.learning import scores
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.recipes.transclip import TransClipRecipe
from nameonly.task import Task


def fitted(recipe, toy):
    task = Task(*toy[:3])
    return task, recipe.fit(task)


def test_the_images_get_what_was_said_of_them_together(toy):
    task, adapted = fitted(TransClipRecipe(), toy)
    labels = TopKPerClass(8, "column").label(task.features, task.start_logits(), task.label_space)
    adapter = TransClip().fit(task.features, task.text, labels)
    assert torch.equal(scores(task, adapted), adapter.logits_)
    inductive = adapted.scorer.predict_logits(task.features)
    assert torch.equal(inductive, adapter.predict_logits(task.features))
    assert not torch.allclose(inductive.softmax(dim=1), scores(task, adapted).softmax(dim=1))


def test_without_its_neighbours_the_result_is_another(toy):
    task, adapted = fitted(TransClipRecipe(), toy)
    few = fitted(TransClipRecipe(adapters=TransClip(k=1)), toy)[1]
    assert not torch.allclose(scores(task, adapted), scores(task, few), atol=1e-4)


def test_without_its_gaussians_the_result_is_another(toy):
    task, adapted = fitted(TransClipRecipe(), toy)
    flat = fitted(TransClipRecipe(adapters=TransClip(temperature=1e9)), toy)[1]
    assert not torch.allclose(scores(task, adapted), scores(task, flat), atol=1e-4)
