"""The card of a saved classifier: what it is, where it came from, what is not known of it."""

from collections.abc import Mapping
from html import escape
from typing import Any

from nameonly.classifier import Classifier
from nameonly.methods import name_of

SHOWN = 50


def _labels_used(made: Mapping[str, Any]) -> str:
    if "learnt_from" in made:
        return "Their labels are those of the folders that they came from."
    given = made.get("given", 0)
    return f"{given:,} labels were given." if given else "No label was used."


def _estimated(made: Mapping[str, Any]) -> str:
    told = made.get("estimated_when_made")
    if told is None:
        return ""
    low, high = told["interval"]
    return (
        f"On the unlabelled images it was made with it is estimated at {told['accuracy']:.0%} "
        f"({told['level']:.0%} interval: {low:.0%} to {high:.0%}); on others it may differ. "
    )


def classifier_card(classifier: Classifier) -> str:
    """Return the card as Markdown: what the classifier says of itself."""
    names, made = classifier.label_space.class_names, classifier.made
    listed = escape(", ".join(names[:SHOWN]), quote=False)  # Markdown takes HTML for HTML
    if len(names) > SHOWN:
        listed += f", and {len(names) - SHOWN} more"
    backbone = classifier.backbone
    fingerprint = f", fingerprint `{classifier.fingerprint}`" if classifier.fingerprint else ""
    answers = (
        "Every image is given one of the classes above, also one that belongs to none of them."
        if name_of(classifier.decision) == "argmax"
        else f"The decision is `{name_of(classifier.decision)}`: some images get no class."
    )
    unlabelled = f"class names and {made.get('images', 'some')} unlabelled images"
    learnt_from = made.get("learnt_from", unlabelled)
    lines = [
        f"# Image classifier for {len(names)} classes",
        "",
        f"Made by nameonly {made.get('nameonly', '')} with the recipe `{made.get('recipe', '')}` "
        f"from {learnt_from}. {_labels_used(made)}",
        "",
        f"- Classes: {listed}",
        f"- Backbone: `{backbone.name}`{fingerprint}",
        f"- Paper: {made.get('paper', '')}",
        f"- Seed: {made.get('seed', '')}",
        "",
        "## Use",
        "",
        "```python",
        "from PIL import Image",
        "from nameonly import load",
        "",
        'predictions = load("classifier").predict([Image.open("photo.jpg")])',
        "```",
        "",
        "or `nameonly predict classifier photos/ --out predicted`.",
        "",
        "## What is not known",
        "",
        f"Its accuracy was not measured: that takes labels. {_estimated(made)}Probabilities are "
        "the model's own and uncalibrated; `nameonly predict` writes a calibrated confidence. "
        f"{answers}",
    ]
    if backbone.note:
        lines += ["", f"Backbone: {backbone.note}."]
    return "\n".join(lines) + "\n"
