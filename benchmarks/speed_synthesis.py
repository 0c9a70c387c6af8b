"""Generation and LoRA training against what a bare program of diffusers does, one run, ratios.

uv run python benchmarks/speed_synthesis.py [--no-sd15] [--device cuda]

Generation: the bundled model and our files, against ``pipeline(prompts)`` with the same batches,
steps and generators, each image saved as webp, on the very same requests. LoRA: a step from cached
latents and texts, against diffusers' example scheme, which encodes images and captions in every
step; on the bundled model, and on one of Stable Diffusion 1.5's shape with random weights at 512
pixels, whose memory is told too. Medians of alternating repetitions.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from results import write
from transformers import CLIPTextConfig, CLIPTextModel

from nameonly.ops.diffusion import noise_loss
from nameonly.synthesis._adaptation import add_lora
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.tiny import DIFFUSION
from nameonly.tiny.diffusion_files import build_scheduler, load_text_tower
from nameonly.tiny.digits import CLASS_NAMES
from nameonly.types import LabelSpace

STEPS, BATCH = 20, 50
REPETITIONS = 5


def seconds(work: Callable[[], Any]) -> float:
    """Return the time of some work."""
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def alternating(
    works: dict[str, Callable[[], Any]], repetitions: int = REPETITIONS
) -> dict[str, float]:
    """Return the median seconds of every piece of work, done in turn after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repetitions + 1):
        for name, work in works.items():
            taken = seconds(work)
            if turn:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def generation(device: str, dtype: str) -> tuple[float, dict[str, float]]:
    """Return the number of images, and seconds of ours and of a bare loop."""
    space = LabelSpace(CLASS_NAMES)
    wanted = PromptTricks(("base",), guidance_scale=3.0).requests(space, 20)
    ours = TextToImage("tiny", steps=STEPS, batch_size=BATCH, dtype=dtype, device=device)
    bare = StableDiffusionPipeline.from_pretrained(DIFFUSION, dtype=getattr(torch, dtype))
    bare.set_progress_bar_config(disable=True)
    bare.to(device)

    def own() -> None:
        with TemporaryDirectory() as folder:
            ours.generate(wanted, Path(folder))

    def plainly() -> None:
        with TemporaryDirectory() as folder:
            for start in range(0, len(wanted), BATCH):
                batch = wanted[start : start + BATCH]
                made = bare(
                    [request.prompt for request in batch],
                    generator=[torch.Generator().manual_seed(r.seed) for r in batch],
                    num_inference_steps=STEPS,
                    guidance_scale=3.0,
                )
                for i, image in enumerate(made.images):
                    image.save(Path(folder) / f"{start + i}.webp", lossless=True)

    return len(wanted), alternating({"ours": own, "bare": plainly})


def sd15(dtype: torch.dtype) -> StableDiffusionPipeline:
    """Return a pipeline of Stable Diffusion 1.5's shape with random weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=512,
        )
        unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
        marks = {"bos_token_id": 990, "eos_token_id": 991, "pad_token_id": 991}
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                vocab_size=49408,
                **marks,
            )
        )
    finally:
        torch.set_default_dtype(before)
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text,
        tokenizer=load_text_tower()[1],
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def lora(
    pipeline: Any, side: int, batch: int, dtype: torch.dtype, repetitions: int
) -> dict[str, float]:
    """Return the seconds of a step from cached latents, and of one that encodes its batch."""
    device = pipeline.device
    parameters = add_lora(pipeline, 16, 0)
    optimiser = torch.optim.AdamW(parameters, 1e-4)
    pixels = torch.rand(batch, 3, side, side, device=device, dtype=pipeline.vae.dtype) * 2 - 1
    tokens = pipeline.tokenizer(
        ["an image of a three"] * batch,
        padding="max_length",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    ).input_ids.to(device)

    @torch.no_grad()
    def encoded() -> tuple[Any, Any]:
        latents = pipeline.vae.encode(pixels).latent_dist.sample()
        return latents.float() * pipeline.vae.config.scaling_factor, pipeline.text_encoder(tokens)[
            0
        ]

    kept = encoded()

    def step(latents: Any, states: Any) -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = noise_loss(
                pipeline.unet,
                pipeline.scheduler,
                latents,
                states,
                torch.Generator().manual_seed(0),
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    return alternating(
        {"cached": lambda: step(*kept), "encoded": lambda: step(*encoded())}, repetitions
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-sd15", action="store_true")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(2)
    figures, rows = {}, []
    for dtype in ("float32", "bfloat16"):
        n, times = generation(args.device, dtype)
        ratio = times["bare"] / times["ours"]
        figures[f"generation, {dtype}"] = ratio
        rows.append(
            f"| generation, {dtype}, {n} images | {times['ours']:.2f} | {times['bare']:.2f} | "
            f"{ratio:.2f} |"
        )
        print(rows[-1], flush=True)
    tiny = StableDiffusionPipeline.from_pretrained(DIFFUSION)
    times = lora(tiny.to(args.device), 32, 16, torch.float32, 20)
    figures["LoRA, bundled model"] = times["encoded"] / times["cached"]
    rows.append(
        f"| LoRA step, bundled model, batch 16, float32 | {times['cached']:.3f} | "
        f"{times['encoded']:.3f} | {figures['LoRA, bundled model']:.2f} |"
    )
    print(rows[-1], flush=True)
    if not args.no_sd15:
        del tiny
        pipeline = sd15(torch.bfloat16).to(args.device)
        times = lora(pipeline, 512, 1, torch.bfloat16, 3)
        figures["LoRA, SD 1.5 shape"] = times["encoded"] / times["cached"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        figures["LoRA, SD 1.5 shape, GiB"] = peak
        rows.append(
            f"| LoRA step, SD 1.5 shape, 512 px, batch 1, bfloat16 | {times['cached']:.1f} | "
            f"{times['encoded']:.1f} | {figures['LoRA, SD 1.5 shape']:.2f} |"
        )
        rows.append(f"\nPeak memory of the process: {peak:.1f} GiB.")
        print(rows[-2], flush=True)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU, two threads"
    head = ["| what | ours, s | bare, s | times as fast |", "| --- | ---: | ---: | ---: |"]
    write("speed_synthesis", figures, [device, "", *head, *rows])


if __name__ == "__main__":
    main()
