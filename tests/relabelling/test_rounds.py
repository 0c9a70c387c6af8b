from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from nameonly.adapters.prototype_adapter import PrototypeAdapter
from nameonly.pseudo_labels.deferred_acceptance import DeferredAcceptance
from nameonly.pseudo_labels.threshold import Threshold
from nameonly.relabelling.rounds import Rounds, places
from nameonly.task import Task


@dataclass(frozen=True)
class Listening(DeferredAcceptance):
    """The labeller itself, which also writes down how many places it was given."""

    heard: ClassVar[list] = []

    def label(self, features, logits, label_space, given=None):
        self.heard.append((self.images_per_class, logits.clone()))
        return DeferredAcceptance.label(self, features, logits, label_space, given)


@pytest.fixture
def task(toy):
    features, text, space, _ = toy
    Listening.heard.clear()
    return Task(features, text, space)


def test_places_by_hand():
    assert [places(t, 10, 1000, 7) for t in (1, 2, 10)] == [14, 28, 142]
    assert places(10, 10, 1009, 7) == 142, "floor(N / 10) first, as the paper has it"
    assert places(1, 10, 50, 10) == 1, "rounds down to none, and has one place at least"
    assert places(10, 3, 90, 4) == 22, "never above an equal share"


def test_a_class_grows_no_faster_than_the_fullest():
    held = torch.tensor([10, 4, 0])
    # K_2 = 2 * 10 / ... here 20; the fullest grows by 10, so do the others
    assert places(2, 10, 300, 3, held).tolist() == [20, 14, 10]
    assert places(1, 10, 300, 3, torch.tensor([30, 0, 5])).tolist() == [10, 1, 1]


def test_growing_places_reach_every_image(task):
    got = Rounds(4, "growing").run(task, Listening(), PrototypeAdapter(steps=3))
    assert [k for k, _ in Listening.heard] == [3, 7, 11, 15]
    assert got.pseudo_labels.candidates.sum(dim=0).tolist() == [15, 15, 15, 15]


def test_fixed_places_are_the_labellers_own(task):
    Rounds(3, "fixed").run(task, Listening(5), PrototypeAdapter(steps=3))
    assert [k for k, _ in Listening.heard] == [5, 5, 5]


def test_balanced_places_are_one_number_a_class(task):
    Rounds(3, "balanced").run(task, Listening(), PrototypeAdapter(steps=3))
    first, *others = [k for k, _ in Listening.heard]
    assert first == 5 and all(isinstance(k, tuple) and len(k) == 4 for k in others)


def test_each_round_labels_by_what_the_last_learnt(task):
    learner = PrototypeAdapter(steps=3)
    got = Rounds(2, "fixed").run(task, Listening(5), learner)
    (_, first), (_, second) = Listening.heard
    assert torch.equal(first, task.text.predict_logits(task.features))
    labels = DeferredAcceptance(5).label(task.features, first, task.label_space)
    once = PrototypeAdapter(steps=3).fit(task.features, task.text, labels)
    assert torch.equal(second, once.predict_logits(task.features))
    again = DeferredAcceptance(5).label(task.features, second, task.label_space)
    twice = PrototypeAdapter(steps=3).fit(task.features, task.text, again)
    want = twice.predict_logits(task.features)
    assert torch.equal(got.scorer.predict_logits(task.features), want)
    assert not hasattr(learner, "prototypes_"), "the learner that was handed over stays unfitted"


def test_an_ensembles_scores_are_where_it_starts(task, toy):
    other = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    Rounds(1, "fixed").run(replace(task, start=other), Listening(5), PrototypeAdapter(steps=1))
    assert torch.equal(Listening.heard[0][1], other)


def test_given_images_and_seen_classes_take_no_places(task, toy):
    *_, y = toy
    space = replace(task.label_space, seen=(True, True, False, False))
    given = torch.where(y < 2, y, -1)
    Rounds(2, "growing").run(
        replace(task, given=given, label_space=space), Listening(), PrototypeAdapter(steps=1)
    )
    assert [k for k, _ in Listening.heard] == [7, 15], "30 open images, two classes"


def test_progress_counts_all_rounds(toy):
    heard = []
    task = Task(*toy[:3], on_progress=lambda done, total: heard.append((done, total)))
    Rounds(2, "fixed").run(task, DeferredAcceptance(5), PrototypeAdapter(steps=1))
    assert heard == [], "an adapter has no epochs to tell of"


def test_parts_without_the_field_are_refused(task):
    with pytest.raises(ValueError, match="PrototypeAdapter has no targets"):
        Rounds(first_targets="soft").run(task, DeferredAcceptance(), PrototypeAdapter())
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Rounds(rounds=0)
    with pytest.raises(ValueError, match="Threshold has no images_per_class"):
        Rounds().run(task, Threshold(), PrototypeAdapter())
