import pytest
import torch

from nameonly.assessment import assess, assumed_equal, find_level
from nameonly.types import PseudoLabels


def taught(labels, n_classes=3):
    """Return hard pseudo-labels; -1 leaves an image out."""
    labels = torch.tensor(labels)
    hard = torch.nn.functional.one_hot(labels.clamp(min=0), n_classes).bool()
    hard &= (labels >= 0)[:, None]
    ids = tuple(map(str, range(len(labels))))
    return PseudoLabels(ids, hard.float(), hard, hard.float().amax(dim=1))


@pytest.mark.parametrize(
    ("labels", "equal"),
    [
        ([0, 1, 2, 0, 1, 2], True),
        ([0, 1, 2, -1, -1, -1, -1], False),
        ([0, 0, 0, 0, 1, 2], False),
        ([-1, -1], False),
    ],
)
def test_equal_classes_were_assumed_where_most_images_are_taught_alike(labels, equal):
    assert assumed_equal(taught(labels)) is equal
    assert assumed_equal(None) is False


def test_a_flat_prior_that_was_assumed_wrongly_is_told(digit_task):
    task = digit_task[0]
    logits = task.start_logits()
    alike = taught([i % 10 for i in range(len(logits))], 10)
    skewed = logits.clone()
    skewed[:, 3] += 2 * logits.std()  # nearly everything is a three
    level = find_level(task.features, task.text, skewed)
    told = assess(task, skewed, skewed.argmax(dim=1), level, alike).warnings
    assert any("equal classes were assumed, but 'three'" in text for text in told)
    silent = assess(task, skewed, skewed.argmax(dim=1), level).warnings
    assert not any("were assumed" in text for text in silent)


def test_known_clusters_change_nothing(digit_task):
    task = digit_task[0]
    logits = task.start_logits()
    first = find_level(task.features, task.text, logits)
    again = find_level(task.features, task.text, logits, first.clusters)
    assert torch.equal(first.stability, again.stability)
    assert first.temperature == again.temperature
