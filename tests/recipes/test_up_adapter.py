from dataclasses import replace

import torch

from nameonly.adapters.prototype_adapter import PrototypeAdapter
from nameonly.pseudo_labels.top_k_per_class import TopKPerClass
from nameonly.recipes.up_adapter import UpAdapter
from nameonly.task import Task


def test_it_is_its_parts_in_a_row(toy):
    features, text, space, _ = toy
    got = UpAdapter().fit(Task(features, text, space))
    labels = TopKPerClass().label(features, text.predict_logits(features), space)
    want = PrototypeAdapter().fit(features, text, labels).predict_logits(features)
    assert torch.equal(got.pseudo_labels.candidates, labels.candidates)
    assert torch.equal(got.scorer.predict_logits(features), want)


def test_without_the_residual_it_is_zero_shot(toy):
    features, text, space, _ = toy
    recipe = UpAdapter(adapters=PrototypeAdapter(residual_weight=0.0))
    logits = recipe.fit(Task(features, text, space)).scorer.predict_logits(features)
    torch.testing.assert_close(logits, text.predict_logits(features))
    with_it = UpAdapter().fit(Task(features, text, space)).scorer.predict_logits(features)
    assert not torch.allclose(with_it, logits)


def test_given_labels_reach_the_prototypes(toy):
    features, text, space, y = toy
    given = torch.full((60,), -1)
    given[:20] = (y[:20] + 1) % 4
    recipe = replace(UpAdapter(), pseudo_labels=TopKPerClass(images_per_class=1))
    a = recipe.fit(Task(features, text, space)).scorer.predict_logits(features)
    b = recipe.fit(Task(features, text, space, given)).scorer.predict_logits(features)
    assert not torch.allclose(a, b)
