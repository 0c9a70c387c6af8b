"""The parts of the bundled text-to-image model and its folder: autoencoder, denoiser, text tower.

They are Stable Diffusion's own classes at tiny size, in the layout of ``diffusers``.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import AutoTokenizer, CLIPModel, CLIPTextModel, PreTrainedTokenizerBase

from nameonly.tiny import MODEL

LATENT_CHANNELS, LATENT_SIDE = 4, 8
SIDE = 32


def build_autoencoder(widths: tuple[int, ...], seed: int) -> AutoencoderKL:
    """Return an untrained autoencoder between 32 x 32 RGB pictures and 4 x 8 x 8 latents."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=8,
            sample_size=SIDE,
        )


def build_denoiser(widths: tuple[int, int], text_width: int, seed: int) -> UNet2DConditionModel:
    """Return an untrained U-Net over latents that attends to a text's tokens at both sizes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = UNet2DConditionModel(
            sample_size=LATENT_SIDE,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            block_out_channels=widths,
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            layers_per_block=1,
            cross_attention_dim=text_width,
            attention_head_dim=4,
            norm_num_groups=16,
        )
    # its matrix products run in bfloat16, which the fused kernels are slow at on a CPU
    denoiser.set_attn_processor(AttnProcessor())
    return denoiser


def build_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's schedule of noise.

    ``diffusers`` would clip samples to [-1, 1], where pictures lie and latents do not.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def load_text_tower() -> tuple[CLIPTextModel, PreTrainedTokenizerBase]:
    """Return the bundled CLIP's text tower, frozen, and its tokenizer."""
    clip = CLIPModel.from_pretrained(MODEL, local_files_only=True, dtype=torch.float32)
    tower: Any = CLIPTextModel(clip.config.text_config)  # type: ignore[arg-type]
    tower.load_state_dict(clip.text_model.state_dict())
    tower.requires_grad_(False).eval()
    return tower, AutoTokenizer.from_pretrained(MODEL, local_files_only=True)


def save_folder(autoencoder: AutoencoderKL, denoiser: UNet2DConditionModel, folder: Path) -> None:
    """Write a folder that ``StableDiffusionPipeline`` loads: weights as float16."""
    text_encoder, tokenizer = load_text_tower()
    parts: dict[str, Any] = {"vae": autoencoder, "unet": denoiser, "text_encoder": text_encoder}
    StableDiffusionPipeline(
        **{name: deepcopy(part).half() for name, part in parts.items()},
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    # or transformers would compute in float16 where diffusers computes in float32
    config = folder / "text_encoder" / "config.json"
    stated = json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"}
    config.write_text(json.dumps(stated, indent=2, sort_keys=True) + "\n", encoding="utf-8")
