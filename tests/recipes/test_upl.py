from dataclasses import replace

import torch

from nameonly.learning import learn
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.recipes.upl import Upl


def test_it_has_the_papers_settings():
    recipe = Upl()
    assert recipe.pseudo_labels == TopKPerClass(16, "row")
    learner = recipe.prompt_learning
    assert (learner.n_context, learner.class_specific, learner.n_prompts) == (16, False, 16)
    schedule = learner.schedule
    assert (schedule.epochs, schedule.batch_size, schedule.learning_rate) == (50, 32, 2e-3)
    assert (schedule.optimiser, schedule.weight_decay, schedule.warmup_epochs) == ("sgd", 5e-4, 1)


def test_prompts_learn_from_the_most_confident_images(quick, digit_task):
    task, _ = digit_task
    recipe = quick(Upl(), n_prompts=1)
    adapted = recipe.fit(task)
    chosen = TopKPerClass(16).label(task.features, task.start_logits(), task.label_space)
    assert torch.equal(adapted.pseudo_labels.candidates, chosen.candidates)
    want = learn(task, recipe.prompt_learning, chosen)
    assert torch.equal(adapted.scorer.weights, want.scorer.weights)


def test_without_its_selection_the_result_is_another(quick, run):
    recipe = quick(Upl(), n_prompts=1)
    all_images = replace(recipe, pseudo_labels=TopKPerClass(160))
    assert not torch.allclose(run(recipe), run(all_images), atol=1e-4)


def test_several_prompts_are_joined_by_their_mean_logits(quick, run):
    recipe = quick(Upl(), n_prompts=2)
    alone = [
        run(replace(recipe, prompt_learning=replace(recipe.prompt_learning, n_prompts=1, seed=s)))
        for s in (0, 1)
    ]
    torch.testing.assert_close(run(recipe), torch.stack(alone).mean(dim=0))


def test_an_ensemble_decides_the_labels(quick, run, digit_task):
    recipe, y = quick(Upl(), n_prompts=1), digit_task[1]
    truth = 10.0 * torch.nn.functional.one_hot(y, 10).float()
    assert not torch.allclose(run(recipe), run(recipe, start=truth), atol=1e-4)
