from dataclasses import replace

import torch

from nameonly.pseudo_labels.deferred_acceptance import DeferredAcceptance
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.recipes.fpl import Fpl


def test_it_has_the_papers_settings():
    recipe = Fpl()
    assert recipe.pseudo_labels == DeferredAcceptance(16)
    schedule = recipe.prompt_learning.schedule
    assert (schedule.epochs, schedule.batch_size, schedule.learning_rate) == (150, 16, 0.1)
    assert (schedule.optimiser, schedule.weight_decay, schedule.warmup_epochs) == ("sgd", 0.1, 5)
    assert recipe.prompt_learning.n_prompts == 1


def test_every_class_fills_its_places(quick, digit_task):
    task, _ = digit_task
    labels = quick(Fpl()).fit(task).pseudo_labels
    assert labels.candidates.sum(dim=0).tolist() == [16] * 10, "160 images for 160 places"


def test_without_the_places_the_result_is_another(quick, run):
    recipe = quick(Fpl())
    by_row = replace(recipe, pseudo_labels=TopKPerClass(16))
    assert not torch.allclose(run(recipe), run(by_row), atol=1e-4)
