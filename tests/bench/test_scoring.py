from dataclasses import replace

import numpy as np
import pytest
import torch

from nameonly.bench.draws import Draw
from nameonly.bench.fitting import Answers
from nameonly.bench.memory import PeakMemory
from nameonly.bench.scoring import figures
from nameonly.types import PseudoLabels

Y_POOL = np.array([0, 0, 1, 1, 2])
Y_TEST = np.array([0, 0, 0, 1, 1, 2])


def answers(labels=(0, 0, 1, 1, -1, 2), pool=(0, 1, 1, 1, 0), learnt=(0, 1, 1, -1, -1)):
    candidates = torch.zeros(5, 3, dtype=torch.bool)
    for row, label in enumerate(learnt):
        if label >= 0:
            candidates[row, label] = True
    pseudo = PseudoLabels(tuple("abcde"), torch.full((5, 3), 1 / 3), candidates, torch.ones(5))
    return Answers(
        labels=torch.tensor(labels),
        zero_shot=torch.tensor([1, 0, 1, 1, 1, 0]),
        pool_labels=torch.tensor(pool),
        pool_zero_shot=torch.tensor([0, 0, 0, 1, 0]),
        pseudo_labels=pseudo,
        seconds=1.0,
        memory=PeakMemory(),
        peak_memory=None,
    )


def drawn(given=None, seen=None):
    rows = np.arange(5)
    return Draw("pool", rows, "test", np.arange(6), given, seen)


def test_figures_by_hand():
    found = figures(answers(), Y_POOL, Y_TEST, drawn())
    assert found["accuracy"] == pytest.approx(4 / 6)  # -1 is wrong
    assert found["mean_class_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["zero_shot_accuracy"] == pytest.approx(3 / 6)
    assert found["pool_accuracy"] == pytest.approx(3 / 5)
    assert found["zero_shot_pool_accuracy"] == pytest.approx(3 / 5)
    assert found["pseudo_label_precision"] == pytest.approx(2 / 3)
    assert found["pseudo_label_coverage"] == pytest.approx(3 / 5)
    for name in ("seen_accuracy", "unseen_accuracy", "harmonic_mean", "zero_shot_harmonic_mean"):
        assert found[name] is None


def test_given_labels_do_not_flatter_the_pool():
    given = np.array([0, -1, 1, -1, -1])
    found = figures(answers(), Y_POOL, Y_TEST, drawn(given))
    assert found["pool_accuracy"] == pytest.approx(1 / 3)
    assert found["zero_shot_pool_accuracy"] == pytest.approx(2 / 3)
    assert found["pseudo_label_precision"] == 0.0
    assert found["pseudo_label_coverage"] == pytest.approx(1 / 3)


def test_trzsl_by_hand():
    seen = np.array([True, False, False])
    found = figures(answers(), Y_POOL, Y_TEST, drawn(np.array([0, 0, -1, -1, -1]), seen))
    assert found["seen_accuracy"] == pytest.approx(2 / 3)
    assert found["unseen_accuracy"] == pytest.approx(2 / 3)
    assert found["harmonic_mean"] == pytest.approx(2 / 3)
    # zero-shot: seen 1 of 3, unseen 2 of 3
    assert found["zero_shot_harmonic_mean"] == pytest.approx(4 / 9)


def test_what_a_run_does_not_have_is_none():
    nothing = answers(learnt=(-1,) * 5)
    found = figures(nothing, Y_POOL, Y_TEST, drawn())
    assert found["pseudo_label_coverage"] == 0.0 and found["pseudo_label_precision"] is None
    nothing = replace(nothing, pseudo_labels=None)
    assert figures(nothing, Y_POOL, Y_TEST, drawn())["pseudo_label_coverage"] is None
    found = figures(answers(), Y_POOL, Y_TEST, drawn(Y_POOL))
    assert found["pool_accuracy"] is None and found["pseudo_label_coverage"] is None
