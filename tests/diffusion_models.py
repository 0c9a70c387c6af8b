"""Real pipelines of diffusers with random weights, small enough to run in a moment."""

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.tiny import MODEL
from nameonly.tiny.diffusion_files import (
    build_autoencoder,
    build_denoiser,
    load_text_tower,
    save_folder,
)
from nameonly.types import LabelSpace

CLASSES = LabelSpace(("zero", "one", "seven"))
FACTOR = 4


def new_model(folder, seed=0):
    """Write a random Stable Diffusion; its pictures are noise, but not blank."""
    save_folder(build_autoencoder((8, 8, 16), seed), build_denoiser((16, 32), 128, seed), folder)
    return folder


def second_tower(width=32):
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=992,
        projection_dim=width,
        bos_token_id=990,
        eos_token_id=991,
        pad_token_id=991,
    )
    return CLIPTextModelWithProjection(config).eval()


def new_sdxl(folder):
    """Write a random SDXL: two text towers, and sizes as further conditions."""
    torch.manual_seed(0)
    tower, tokenizer = load_text_tower()
    denoiser = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=128 + 32,
        attention_head_dim=4,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    StableDiffusionXLPipeline(
        vae=build_autoencoder((8, 8, 16), 0),
        text_encoder=tower,
        text_encoder_2=second_tower(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=denoiser,
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def new_sd3(folder):
    """Write a random Stable Diffusion 3: a transformer, flow matching, three text towers."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=8,
    )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=8,
            shift_factor=0.1,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=second_tower(),
        tokenizer=tokenizer,
        text_encoder_2=second_tower(),
        tokenizer_2=tokenizer,
        text_encoder_3=T5EncoderModel(
            T5Config(vocab_size=992, d_model=64, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
        ).eval(),
        tokenizer_3=tokenizer,
    ).save_pretrained(folder)
    return folder


def bare(folder):
    """Open a model as diffusers itself does."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def changed(model, folder, change):
    """Write a model whose parts a function has changed."""
    pipeline = bare(model)
    with torch.no_grad():
        change(pipeline)
    pipeline.save_pretrained(folder)
    return folder


def generator(model, **fields):
    return TextToImage(**{"model": str(model), "steps": 3, "dtype": "float32", **fields})


def requests(n=4, tricks=("base",), **fields):
    return PromptTricks(tricks, **fields).requests(CLASSES, n)
