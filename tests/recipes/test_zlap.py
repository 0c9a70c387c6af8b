from dataclasses import replace

import torch

from nameonly.learning import scores
from nameonly.pseudo_labels.label_propagation import LabelPropagation
from nameonly.pseudo_labels.threshold import Threshold
from nameonly.recipes.zlap import Zlap
from nameonly.task import Task


def fitted(recipe, toy, **more):
    task = Task(*toy[:3], **more)
    return task, recipe.fit(task)


def test_the_images_get_the_propagated_scores(toy):
    task, adapted = fitted(Zlap(), toy)
    labels = LabelPropagation().label(task.features, task.start_logits(), task.label_space)
    torch.testing.assert_close(scores(task, adapted).softmax(dim=1), labels.probs)
    assert adapted.pseudo_labels.selected.all()


def test_new_images_are_scored_by_propagated_labels(toy):
    features, text, space, y = toy
    old, new = features.subset(torch.arange(40)), features.subset(torch.arange(40, 60))
    adapted = Zlap().fit(Task(old, text, space))
    got = adapted.scorer.predict_logits(new).argmax(dim=1)
    assert (got == y[40:]).float().mean() >= 0.9


def test_without_propagation_the_result_is_another(toy):
    task, adapted = fitted(Zlap(), toy)
    plain = fitted(replace(Zlap(), pseudo_labels=Threshold(0.0)), toy)[1]
    assert not torch.allclose(scores(task, adapted), scores(task, plain), atol=1e-3)


def test_given_labels_run_over_the_graph(toy):
    *_, y = toy
    wrong = torch.where(torch.arange(60) < 8, (y + 1) % 4, -1)
    task, adapted = fitted(Zlap(), toy)
    other = fitted(Zlap(), toy, given=wrong)[1]
    changed = (scores(task, adapted) - scores(task, other)).abs().amax(dim=1) > 1e-3
    assert changed[8:].any(), "labels reach images that were not given one"
