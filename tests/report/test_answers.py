import tracemalloc

import numpy as np

from nameonly.report.answers import (
    ClassPair,
    changed_rows,
    class_counts,
    close_calls,
    confusable_pairs,
    count_pairs,
    rank_answers,
)

PROBS = np.array(
    [[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.25, 0.35, 0.4]], dtype=np.float32
)


def test_answers_and_runners_up_by_hand():
    answers = rank_answers(PROBS, np.array([0, 1, -1, 2]))
    assert answers.classes.tolist() == [0, 1, 2, 2]
    np.testing.assert_allclose(answers.probs, [0.6, 0.3, 0.8, 0.4])
    assert answers.runners_up.tolist() == [1, 2, 0, 1]
    np.testing.assert_allclose(answers.runner_up_probs, [0.3, 0.5, 0.1, 0.35])


def test_many_blocks_give_what_one_block_gives(monkeypatch):
    probs = np.random.default_rng(0).dirichlet(np.ones(7), size=101).astype(np.float32)
    labels = probs.argmax(axis=1)
    labels[::5] = -1
    whole = rank_answers(probs, labels)
    monkeypatch.setattr("nameonly.report.answers._BLOCK_VALUES", 21)
    blocks = rank_answers(probs, labels)
    order = np.argsort(-probs, axis=1)
    for answers in (whole, blocks):
        assert answers.classes.tolist() == order[:, 0].tolist()
        assert answers.runners_up.tolist() == order[:, 1].tolist()
        np.testing.assert_array_equal(answers.runner_up_probs, np.sort(probs, axis=1)[:, -2])


def test_inputs_stay_as_they_were():
    probs, labels = PROBS.copy(), np.array([0, -1, 2, 2])
    rank_answers(probs, labels)
    np.testing.assert_array_equal(probs, PROBS)
    assert labels.tolist() == [0, -1, 2, 2]


def test_one_class_has_no_runner_up():
    answers = rank_answers(np.ones((2, 1), dtype=np.float32), np.array([0, -1]))
    assert answers.runners_up.tolist() == [-1, -1]
    assert not close_calls(answers).any()
    assert confusable_pairs(answers, 1) == []


def test_no_image_gives_empty_answers():
    answers = rank_answers(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64))
    assert len(answers.classes) == len(answers.probs) == 0
    assert confusable_pairs(answers, 3) == []


def test_probabilities_are_never_copied_whole():
    probs = np.full((40_000, 500), 1 / 500, dtype=np.float32)
    labels = np.zeros(40_000, dtype=np.int64)
    tracemalloc.start()
    rank_answers(probs, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < probs.nbytes / 2


def test_a_close_call_has_a_runner_up_of_half_the_probability_or_more():
    answers = rank_answers(PROBS, PROBS.argmax(axis=1))
    assert close_calls(answers).tolist() == [True, True, False, True]


def test_confusable_pairs_ignore_which_of_the_two_won():
    answers = rank_answers(PROBS, PROBS.argmax(axis=1))
    assert confusable_pairs(answers, 3) == [ClassPair(1, 2, 2), ClassPair(0, 1, 1)]


def test_pairs_are_ordered_by_number_then_by_class():
    first, second = np.array([2, 0, 2, 1, 0]), np.array([1, 2, 1, 0, 1])
    assert count_pairs(first, second, 3) == [
        ClassPair(2, 1, 2),
        ClassPair(0, 1, 1),
        ClassPair(0, 2, 1),
        ClassPair(1, 0, 1),
    ]


def test_pair_codes_do_not_overflow_small_integers():
    last = np.array([59_999], dtype=np.int32)
    assert count_pairs(last, last, 60_000) == [ClassPair(59_999, 59_999, 1)]


def test_a_change_needs_an_answer_of_zero_shot():
    zero_shot, classes = np.array([0, 0, 1, -1]), np.array([0, 1, 0, 0])
    assert changed_rows(zero_shot, classes).tolist() == [1, 2]


def test_abstentions_count_for_no_class():
    assert class_counts(np.array([2, -1, 2, 0]), 4).tolist() == [1, 0, 2, 0]
    assert class_counts(np.array([-1, -1]), 2).tolist() == [0, 0]
