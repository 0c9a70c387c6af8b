"""Recipes at their own settings, but with a few passes over the images."""

from dataclasses import replace
from pathlib import Path

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


@pytest.fixture
def labels_and_predicts(digits, model, tmp_path):
    """Label the digits by a recipe that makes images, and require the saved classifier to agree."""
    from nameonly.backbones.clip import ClipBackbone  # after the jaxtyping hook
    from nameonly.jobs import label, predict
    from nameonly.tiny.digits import CLASS_NAMES

    def labels(recipe, **more):
        settings = {
            "text_to_image.model": str(model),
            "text_to_image.steps": 2,
            "text_to_image.dtype": "float32",
            "support_set.images_per_class": 2,
            **more,
        }
        backbone = ClipBackbone("tiny", device="cpu", dtype="float32")
        out, told = tmp_path / "r", {"recipe": recipe, "settings": settings}
        made = label(digits, CLASS_NAMES, backbone=backbone, out=out, **told)
        for saved in (out, *out.glob("classifier/*.onnx")):
            again = predict(saved, digits)
            assert again.table["label"].to_pylist() == made.table["label"].to_pylist()
        told = made.summary["synthetic"]
        assert told["n"] == 20 and told["n_real"] == made.summary["counts"]["images"]
        assert len(list(Path(told["folder"]).rglob("*.webp"))) == 20
        page = (out / "report.html").read_text()
        shown = page[page.index('id="synthetic"') : page.index('id="changes"')]
        assert shown.count("data:image/webp") == 20 and "could not be opened" not in shown
        assert "told apart" in shown.casefold()
        return made

    return labels
