from dataclasses import replace

import torch

from nameonly.pseudo_labels.deferred_acceptance import DeferredAcceptance
from nameonly.recipes.cpl import Cpl


def test_it_has_the_papers_settings():
    recipe = Cpl()
    assert (recipe.relabelling.rounds, recipe.relabelling.capacity) == (10, "balanced")
    assert recipe.relabelling.first_targets == "soft"
    assert recipe.prompt_learning.targets == "candidates"
    schedule = recipe.prompt_learning.schedule
    assert (schedule.epochs, schedule.batch_size, schedule.learning_rate) == (50, 64, 0.02)
    assert (schedule.weight_decay, schedule.warmup_epochs, schedule.clip) == (0.05, 2, 0.8)


def test_images_keep_several_candidates(quick, digit_task):
    labels = quick(Cpl(), epochs=1, rounds=1).fit(digit_task[0]).pseudo_labels
    assert (labels.candidates.sum(dim=1) > 1).any()


def test_without_candidate_sets_the_result_is_another(quick, run):
    recipe = quick(Cpl())
    hard = replace(recipe, pseudo_labels=DeferredAcceptance())
    assert not torch.allclose(run(recipe), run(hard), atol=1e-4)


def test_without_soft_first_targets_the_result_is_another(quick, run):
    recipe = quick(Cpl(), rounds=1)
    plain = replace(recipe, relabelling=replace(recipe.relabelling, first_targets=None))
    assert not torch.allclose(run(recipe), run(plain), atol=1e-4)
