"""The parts of the bundled CLIP and its folder: tokenizer, image processor, network, reference."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
POSITIONS = 77
REFERENCE_TEXTS = ("zero", "a photo of a three.", "the letter k")


def train_tokenizer(texts: Iterable[str], n_merges: int = 500) -> CLIPTokenizer:
    """Learn byte pairs on texts, in the layout of CLIP: bytes, word-final bytes, merges, two marks.

    Every byte is in the vocabulary, so that any Unicode text can be read.
    """
    rules = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    learner.normalizer, learner.pre_tokenizer = rules.normalizer, rules.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    final_letters = [letter + WORD_END for letter in letters]
    trainer = trainers.BpeTrainer(
        # Known from the start, or they are numbered in chance order and ties fall by chance.
        special_tokens=final_letters,
        vocab_size=100_000,
        min_frequency=20,
        end_of_word_suffix=WORD_END,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][:n_merges]
    merged = ["".join(pair) for pair in merges]
    # Two pairs may give one token; the first place counts.
    tokens = [*dict.fromkeys([*letters, *final_letters, *merged]), START, END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]
        model_max_length=POSITIONS,
    )


def build_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    image_layers: int,
    text_layers: int,
    width: int,
    seed: int,
) -> CLIPModel:
    """Return an untrained CLIP for 32 x 32 images and the tokenizer's vocabulary."""
    tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": 4}
    tower["projection_dim"] = width
    marks = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={
            **tower,
            **marks,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": text_layers,
            "max_position_embeddings": POSITIONS,
        },
        vision_config={
            **tower,
            "num_hidden_layers": image_layers,
            "image_size": 32,
            "patch_size": 8,
        },
        projection_dim=width,
        logit_scale_init_value=float(np.log(1 / 0.07)),
        **marks,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
    # Its matrix products run in bfloat16, which the fused kernels are slow at on a CPU.
    model.set_attn_implementation("eager")
    return model


def encode_images(model: CLIPModel, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """Return unit features of preprocessed images."""
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    return torch.nn.functional.normalize(model.visual_projection(pooled).float(), dim=-1)


def encode_texts(
    model: CLIPModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Float[Tensor, "t d"]:
    """Return unit features of texts, cut at 77 tokens."""
    tokens = tokenizer(
        list(texts), padding=True, truncation=True, max_length=POSITIONS, return_tensors="pt"
    )
    # Attention is causal and reads out at the first end mark, so what pads behind it is never seen.
    pooled = model.text_model(input_ids=tokens["input_ids"]).pooler_output
    return torch.nn.functional.normalize(model.text_projection(pooled).float(), dim=-1)


def save_folder(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a folder that ``transformers`` loads: weights as float16, computed in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    # What the last call padded and cut to would be written into the file.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    ).save_pretrained(folder)
    model.config.architectures = ["CLIPModel"]
    model.config.dtype = torch.float32
    model.config.save_pretrained(folder)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    reference = {
        "texts": list(REFERENCE_TEXTS),
        "logits": folder_logits(folder, reference_images(), REFERENCE_TEXTS).tolist(),
        "tolerance": 0.05,
    }
    (folder / "reference.json").write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")


def reference_images() -> list[Image.Image]:
    """Return three 64 x 64 RGB images drawn by formula, the same on every machine."""
    y, x, channel = np.mgrid[:64, :64, :3]
    pictures: list[UInt8[np.ndarray, "64 64 3"]] = [
        ((x * (k + 1) * 3 + y * (2 * k + 1) * 5 + channel * 85) % 256).astype(np.uint8)
        for k in range(3)
    ]
    return [Image.fromarray(picture) for picture in pictures]


@torch.inference_mode()
def folder_logits(
    folder: Path, images: Sequence[Image.Image], texts: Sequence[str], batch_size: int = 500
) -> Float[Tensor, "n t"]:
    """Return the scaled logits of images and texts by the model in a folder, in float32.

    Raises:
        OSError: If the folder holds no model.
    """
    model = CLIPModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
        folder, local_files_only=True, backend="pil"
    )
    parts = []
    for start in range(0, len(images), batch_size):
        batch = [image.convert("RGB") for image in images[start : start + batch_size]]
        parts.append(encode_images(model, processor(batch, return_tensors="pt")["pixel_values"]))
    class_texts = encode_texts(model, tokenizer, texts)
    logits: Tensor = model.logit_scale.exp() * torch.cat(parts) @ class_texts.T
    return logits
