"""The card of a saved classifier: what it is, where it came from, what is not known of it."""

from collections.abc import Mapping
from typing import Any

SHOWN = 50


def classifier_card(summary: Mapping[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        summary: Content of ``run.json``.
    """
    names = summary["classes"]
    listed = ", ".join(names[:SHOWN]) + (
        f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )
    backbone, counts = summary["backbone"], summary["counts"]
    lines = [
        f"# Image classifier for {len(names)} classes",
        "",
        f"Made by nameonly {summary['nameonly']} with the recipe `{summary['recipe']}` "
        f"from class names and {counts['images']} unlabelled images. No label was used.",
        "",
        f"- Classes: {listed}",
        f"- Backbone: `{backbone['name']}`"
        + (f", fingerprint `{backbone['fingerprint']}`" if "fingerprint" in backbone else ""),
        *([f"- Paper: {summary['paper']}"] if summary.get("paper") else []),
        f"- Seed: {summary['seed']}",
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
        "Its accuracy was not measured: that takes labels, and there were none. Probabilities are "
        "the model's own and uncalibrated. Every image is given one of the classes above, also one "
        "that belongs to none of them.",
    ]
    if note := backbone.get("note"):
        lines += ["", f"Backbone: {note}."]
    return "\n".join(lines) + "\n"
