"""Bundled miniature models for the demo and the tests: a CLIP that knows digits and letters.

``MODEL`` is a folder in the format of ``transformers``: weights, tokenizer and image processor. It
was trained on rendered glyphs by ``python -m nameonly.tiny.train_clip`` and loads without network.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "clip"
DIFFUSION = Path(__file__).parent / "diffusion"
