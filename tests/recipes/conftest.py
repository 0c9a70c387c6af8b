"""Recipes at their own settings, but with a few passes over the images."""

from dataclasses import replace

import pytest
import torch


@pytest.fixture
def quick():
    """Return a recipe whose prompts train for a few epochs, and which relabels twice."""

    def shorten(recipe, epochs=4, rounds=2, **prompt):
        learner = recipe.prompt_learning
        schedule = replace(learner.schedule, epochs=epochs, batch_size=32, warmup_epochs=1.0)
        changed = {"prompt_learning": replace(learner, schedule=schedule, **prompt)}
        if hasattr(recipe, "relabelling"):
            changed["relabelling"] = replace(recipe.relabelling, rounds=rounds)
        return replace(recipe, **changed)

    return shorten


@pytest.fixture
def run(digit_task):
    """Return the weights that a recipe's text classifier ends with, on the digits."""

    def weights(recipe, **task):
        adapted = recipe.fit(replace(digit_task[0], **task))
        assert torch.isfinite(adapted.scorer.weights).all()
        return adapted.scorer.weights

    return weights
