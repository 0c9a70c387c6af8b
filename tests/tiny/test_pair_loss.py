import math

import numpy as np
import pytest
import torch

from nameonly.tiny import glyphs
from nameonly.tiny.clip_files import build_model, train_tokenizer
from nameonly.tiny.glyph_set import render_set
from nameonly.tiny.pair_loss import (
    PairLoss,
    contrastive_loss,
    distinct_classes,
    false_captions,
    move_images,
)


def test_loss_of_two_pairs_by_hand():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    both = torch.tensor([[False, True], [True, False]])
    by_image = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))
    by_caption = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))
    assert contrastive_loss(logits, both).item() == pytest.approx((by_image + by_caption) / 4)


def test_what_is_no_negative_does_not_count():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    negative = torch.zeros(5, 5, dtype=torch.bool)
    assert contrastive_loss(logits, negative).item() == 0.0
    negative[0, 1] = True
    changed = logits.clone()
    changed[2:, :2] += 50
    assert contrastive_loss(changed, negative) == contrastive_loss(logits, negative) > 0


def test_loss_is_symmetric_and_finite_for_large_logits():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) * 1e4
    negative = torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) > 0.5
    value = contrastive_loss(logits, negative)
    assert torch.isfinite(value)
    assert contrastive_loss(logits.T.clone(), negative.T.clone()).item() == pytest.approx(
        value.item()
    )


def test_look_alikes_and_a_class_itself_are_no_negatives():
    distinct = distinct_classes()
    assert torch.equal(distinct, distinct.T)
    same = {(a, b) for a in range(36) for b in range(a + 1, 36) if not distinct[a, b]}
    names = {(glyphs.CLASS_NAMES[a], glyphs.CLASS_NAMES[b]) for a, b in same}
    assert names == {
        ("zero", "letter o"),
        ("one", "letter i"),
        ("one", "letter l"),
        ("letter i", "letter l"),
    }
    assert not distinct.diagonal().any()


def test_caption_is_false_where_it_names_what_is_not_there():
    seen = torch.tensor([[True, True, False], [False, True, False]])
    named = torch.tensor([[True, False, False], [False, True, False]])
    assert false_captions(named, seen).tolist() == [[False, False], [True, False]]
    nothing_named = torch.zeros(2, 3, dtype=torch.bool)
    assert not false_captions(nothing_named, seen).any()


def test_moved_pictures_stay_close_and_follow_the_generator():
    y, x = np.mgrid[:32, :32]
    disc = (np.hypot(y - 15.5, x - 15.5) < 9).astype(np.uint8) * 255
    images = torch.from_numpy(np.stack([disc] * 40))
    moved = move_images(images, torch.Generator().manual_seed(0))
    assert moved.shape == (40, 3, 32, 32)
    assert moved.min() >= -1
    assert moved.max() <= 1
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert torch.equal(moved, move_images(images, torch.Generator().manual_seed(0)))
    far = (moved[:, 0] - (images.float() / 127.5 - 1)).abs().mean(dim=(1, 2))
    assert (far > 0.01).all()
    assert (far < 0.5).all()
    assert moved[:, 0].std(dim=0).max() > 0.2


def test_loss_depends_on_rows_and_not_on_how_often_it_was_called(tmp_path):
    data = render_set(12, ("DejaVuSans",), 0, tmp_path)
    tokenizer = train_tokenizer(["a photo of a three."] * 30)
    model = build_model(tokenizer, image_layers=1, text_layers=1, width=16, seed=0)
    loss = PairLoss(model, tokenizer, data)
    rows, others = torch.arange(8), torch.arange(4, 12)
    first = loss(rows)
    assert loss(others) != first
    assert torch.equal(loss(rows), first)
    assert PairLoss(model, tokenizer, data, seed=1)(rows) != first
    first.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert any(p.grad.abs().sum() > 0 for p in model.text_model.parameters())
