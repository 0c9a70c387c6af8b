import numpy as np
import pytest
from PIL import Image

from nameonly.report.answers import changed_rows, count_pairs, rank_answers
from nameonly.report.cards import (
    IMAGES_PER_SIDE,
    MAX_CHANGED_IMAGES,
    Pictures,
    make_card,
    make_changed_cards,
    make_gallery,
)


@pytest.fixture
def pictures(digits_report) -> Pictures:
    return Pictures(
        digits_report.class_names,
        digits_report.sources,
        digits_report.labels,
        digits_report.zero_shot,
        rank_answers(digits_report.probs, digits_report.labels),
        digits_report.open_image,
    )


def test_a_card_says_what_the_run_said(pictures, digits_report):
    row = int(np.flatnonzero(digits_report.labels >= 0)[0])
    card = make_card(pictures, row)
    order = np.argsort(-digits_report.probs[row])
    assert card.label == digits_report.class_names[order[0]]
    assert card.runner_up == digits_report.class_names[order[1]]
    assert card.best is None
    assert card.source == digits_report.sources[row]
    assert card.alt == f"{card.label}: {card.source}"
    assert card.zero_shot == digits_report.class_names[digits_report.zero_shot[row]]
    assert card.thumbnail.pixelated


def test_a_card_of_an_abstention_names_the_best_class(pictures, digits_report):
    row = int(np.flatnonzero(digits_report.labels < 0)[0])
    card = make_card(pictures, row)
    assert card.label == "no answer"
    assert card.best == digits_report.class_names[digits_report.probs[row].argmax()]
    assert card.alt.startswith("no answer: ")


def test_one_class_leaves_the_runner_up_out():
    answers = rank_answers(np.ones((1, 1), dtype=np.float32), np.array([0]))
    alone = Pictures(
        ("cat",), ("a",), np.array([0]), np.array([-1]), answers, lambda row: Image.new("L", (9, 9))
    )
    card = make_card(alone, 0)
    assert card.runner_up is None
    assert card.zero_shot is None


def test_a_gallery_shows_both_ends_of_its_class_only(pictures, digits_report):
    gallery = make_gallery(pictures, 3)
    rows = np.flatnonzero(digits_report.labels == 3)
    by_confidence = [
        digits_report.sources[i] for i in rows[np.argsort(-pictures.answers.probs[rows])]
    ]
    assert [card.source for card in gallery.most] == by_confidence[:IMAGES_PER_SIDE]
    assert [card.source for card in gallery.least] == by_confidence[::-1][:IMAGES_PER_SIDE]
    assert gallery.note.startswith(f"{len(rows)} images, median confidence ")


def test_the_gallery_of_abstentions_holds_abstentions(pictures, digits_report):
    gallery = make_gallery(pictures, -1)
    assert gallery.name == "no answer"
    abstained = {digits_report.sources[i] for i in np.flatnonzero(digits_report.labels < 0)}
    assert {card.source for card in gallery.most + gallery.least} <= abstained


def test_changed_cards_are_changes_and_few(pictures, digits_report):
    classes = pictures.answers.classes
    rows = changed_rows(digits_report.zero_shot, classes)
    pairs = count_pairs(digits_report.zero_shot[rows], classes[rows], 10)
    cards = make_changed_cards(pictures, rows, pairs)
    assert len(cards) == min(MAX_CHANGED_IMAGES, len(rows)) > 0
    assert all((card.best or card.label) != card.zero_shot for card in cards)
    assert (cards[0].zero_shot, cards[0].best or cards[0].label) == (
        digits_report.class_names[pairs[0].first],
        digits_report.class_names[pairs[0].second],
    )
    assert make_changed_cards(pictures, rows[:0], []) == ()
