from nameonly.recipes.zero_shot import ZeroShot
from nameonly.task import Task


def test_it_is_the_text_classifier_itself(toy):
    features, text, space, _ = toy
    adapted = ZeroShot().fit(Task(features, text, space))
    assert adapted.scorer is text and adapted.pseudo_labels is None
