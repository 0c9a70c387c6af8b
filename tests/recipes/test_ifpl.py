from dataclasses import replace

import torch

from nameonly.recipes.fpl import Fpl
from nameonly.recipes.grip import Grip
from nameonly.recipes.ifpl import Ifpl


def test_it_is_fpl_ten_times_over():
    recipe = Ifpl()
    assert (recipe.relabelling.rounds, recipe.relabelling.capacity) == (10, "fixed")
    assert recipe.pseudo_labels == Fpl().pseudo_labels
    assert recipe.prompt_learning == Fpl().prompt_learning


def test_one_round_is_fpl_and_two_are_not(quick, run):
    few = replace(Ifpl().pseudo_labels, images_per_class=6)
    once = replace(quick(Ifpl(), rounds=1), pseudo_labels=few)
    twice = replace(quick(Ifpl(), rounds=2), pseudo_labels=few)
    fpl = replace(quick(Fpl()), pseudo_labels=few)
    assert torch.equal(run(once), run(fpl))
    assert not torch.allclose(run(twice), run(fpl), atol=1e-4)


def test_it_is_not_grip(quick, run):
    assert not torch.allclose(run(quick(Ifpl())), run(quick(Grip())), atol=1e-4)
