import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from nameonly.tiny import train_clip
from nameonly.tiny.train_clip import Recipe, held_out_accuracy, train

SMALL = Recipe(
    n_glyphs=96, epochs=3, batch_size=32, image_layers=1, text_layers=1, width=32, seed=7
)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("whole")
    train(SMALL, folder / "out", folder / "work")
    return folder / "out"


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_killed_and_resumed_run_gives_the_same_weights(whole_run, tmp_path, monkeypatch, capsys):
    log = train_clip._log

    def kill(line, started):
        log(line, started)
        if line.startswith("epoch 1"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_clip, "_log", kill)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    train(SMALL, tmp_path / "out", tmp_path / "work")
    printed = capsys.readouterr().out
    assert "epoch 1:" not in printed
    assert "epoch 2:" in printed
    resumed, whole = weights(tmp_path / "out"), weights(whole_run)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_every_part_is_trained_and_the_scale_is_capped(whole_run, tmp_path):
    train(replace(SMALL, epochs=0), tmp_path / "out", tmp_path / "work")
    before, after = weights(tmp_path / "out"), weights(whole_run)
    same = [name for name in before if torch.equal(before[name], after[name])]
    # The bias of keys cancels in the softmax, so it has no gradient.
    assert all(name.endswith("k_proj.bias") for name in same)
    assert after["logit_scale"].exp() <= 100.1


def test_other_seed_gives_other_weights(whole_run, tmp_path):
    train(replace(SMALL, seed=8, epochs=1), tmp_path / "out", tmp_path / "work")
    assert not torch.equal(
        weights(tmp_path / "out")["visual_projection.weight"],
        weights(whole_run)["visual_projection.weight"],
    )


def test_held_out_accuracy_of_a_hardly_trained_model_is_near_chance(whole_run, tmp_path):
    among_all, among_ten = held_out_accuracy(whole_run, tmp_path, n=200)
    assert 0 <= among_all < 0.3
    assert 0 <= among_ten < 0.4


@pytest.mark.slow
def test_loss_falls_on_few_glyphs(tmp_path, one_thread, capsys):
    recipe = replace(SMALL, epochs=120, n_glyphs=64, learning_rate=3e-3)
    train(recipe, tmp_path / "out", tmp_path / "work")
    lines = [line for line in capsys.readouterr().out.splitlines() if "mean loss" in line]
    losses = [float(line.split()[-1]) for line in lines]
    assert len(losses) == 120
    # One answer for all pairs of a batch would cost log 32 at least, were all others negatives.
    assert losses[-1] < math.log(32) - 0.3
