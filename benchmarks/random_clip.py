"""A CLIP of real shape with random weights: for speed and memory, never for accuracy."""

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from nameonly.tiny import MODEL


def make(folder: Path) -> Path:
    """Write a ViT-B/32 CLIP (151 million parameters), once.

    The tokenizer is the bundled model's: its ids are a part of the real vocabulary's range.
    """
    if not (folder / "model.safetensors").exists():
        torch.manual_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        config = CLIPConfig()
        config.text_config.eos_token_id = tokenizer.eos_token_id
        config.text_config.bos_token_id = tokenizer.bos_token_id
        CLIPModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        CLIPImageProcessorPil().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
