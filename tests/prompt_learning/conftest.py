"""Twelve digits of a development half, as images and as features of the bundled model."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from nameonly import methods
from nameonly.loop import Schedule


@pytest.fixture(scope="session")
def small(digit_task):
    """Images, features, text, hard labels (two images left out) and the backbone."""
    task, _ = digit_task
    rows = torch.arange(12)
    images, features = task.images.subset(rows.tolist()), task.features.subset(rows)
    labels = methods.create("pseudo_labels", "top_k_per_class").label(
        features, task.text.predict_logits(features), task.label_space
    )
    chosen = labels.candidates & (rows > 1)[:, None]
    labels = replace(labels, candidates=chosen)
    return SimpleNamespace(
        images=images, features=features, text=task.text, labels=labels, backbone=task.backbone
    )


@pytest.fixture(scope="session")
def sets(small):
    """Labels of which every image has two candidates, with different probabilities."""
    top = small.labels.probs.topk(2, dim=1).indices
    candidates = torch.zeros_like(small.labels.candidates).scatter(1, top, True)
    return replace(small.labels, candidates=candidates)


@pytest.fixture
def one_step():
    """A single step over all images at a constant rate, with weight decay."""
    return Schedule(1, 64, 0.05, weight_decay=0.3, optimiser="sgd")


@pytest.fixture
def updated():
    """Return what one such step makes of parameters, by the rule of gradient descent."""

    def step(loss, parameters):
        gradients = torch.autograd.grad(loss, parameters)
        pairs = zip(parameters, gradients, strict=True)
        return [(p - 0.05 * (g + 0.3 * p)).detach() for p, g in pairs]

    return step
