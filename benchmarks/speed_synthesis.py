"""Generation and LoRA training against what a bare program of diffusers does, in one run.

uv run python benchmarks/speed_synthesis.py [--device cuda] [--parts PART ...] [--write]

generation: the bundled model; ours (``TextToImage.generate``, from no known text on) against
``pipeline(prompts)`` with the same weights, batches, steps and generators, its images saved as the
same lossless webp without their facts, one by one, where ours writes four at once. lora: a step of
``DomainLora``, from kept latents and texts, against diffusers' example scheme
(train_text_to_image_lora.py), which encodes images and captions in every step; reading and resizing
images, which the example does in every epoch and ours once, is left out of both. sd15-generation
and sd15-lora: the same on Stable Diffusion 1.5's shape with random weights, in bfloat16 at 512
pixels. Medians of alternating repetitions after a warm-up; the largest peak of memory. Loading a
model, and ours' hash of its files, are start and not timed.
Without --parts: all on CUDA, all but sd15-generation on a CPU.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from results import device_name, write
from torch.nn.functional import mse_loss
from transformers import CLIPTextConfig, CLIPTextModel

from nameonly.bench.memory import PeakMemory
from nameonly.loop import Schedule, minimise
from nameonly.ops.chance import batch_generator
from nameonly.ops.diffusion import noise_loss
from nameonly.synthesis._adaptation import add_lora
from nameonly.synthesis._latents import Latents
from nameonly.synthesis._pipelines import PromptEncoder, load_pipeline
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.text_to_image import TextToImage
from nameonly.synthetic import FASTEST, ImageRequest, read_table
from nameonly.tiny import DIFFUSION
from nameonly.tiny.diffusion_files import build_scheduler, load_text_tower
from nameonly.tiny.digits import CLASS_NAMES
from nameonly.types import LabelSpace

PARTS = ("generation", "lora", "sd15-generation", "sd15-lora")
ROUNDING = (
    "Ours encodes every prompt alone, so that its numbers do not depend on its neighbours; a bare "
    "loop encodes a batch of them. In bfloat16 the two round differently, and so the pictures "
    "differ; on a CPU the bundled model's did not where both were given the same embeddings."
)
CAPTION = "an image of a three"


@dataclass(frozen=True)
class Cost:
    """Median seconds, and the largest peak of memory in GB: the device's, or the process's."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Part:
    """What one part found: its table's rows, and figures by name."""

    head: tuple[str, ...]
    row: tuple[str, ...]
    figures: dict[str, float]


def cost(work: Callable[[], Any], device: str) -> Cost:
    """Return the time and the peak of memory of some work."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    memory = PeakMemory()
    begun = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    taken = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0
    return Cost(taken, peak or (memory.peak() or 0) / 1e3)


def alternating(
    works: dict[str, Callable[[], Any]], repetitions: int, device: str
) -> dict[str, Cost]:
    """Return what every piece of work costs, done in turn after a warm-up."""
    found: dict[str, list[Cost]] = {name: [] for name in works}
    for turn in range(repetitions + 1):
        for name, work in works.items():
            taken = cost(work, device)
            if turn:
                found[name].append(taken)
    return {
        name: Cost(statistics.median(c.seconds for c in costs), max(c.memory for c in costs))
        for name, costs in found.items()
    }


def generation(
    name: str, ours: TextToImage, wanted: Sequence[ImageRequest], repetitions: int
) -> Part:
    """Compare ours with a bare loop that saves the same files, and the files alone."""
    # the very same modules, so that memory holds them once
    bare = StableDiffusionPipeline(**ours.pipeline.components, requires_safety_checker=False)
    bare.set_progress_bar_config(disable=True)
    turns, size = {"ours": count(), "bare": count(), "files": count()}, ours.batch_size
    pictures: list[Image.Image] = []

    def save(images: Sequence[Image.Image], folder: Path) -> None:
        folder.mkdir()
        for i, image in enumerate(images):
            image.save(folder / f"{i}.webp", **FASTEST[".webp"])

    with TemporaryDirectory() as base:

        def fresh(kind: str) -> Path:
            return Path(base) / f"{kind}-{next(turns[kind])}"

        def own() -> None:
            ours.__dict__.pop("_encode", None)  # it knows no text
            ours.generate(wanted, fresh("ours"))

        def plainly() -> None:
            pictures.clear()
            for start in range(0, len(wanted), size):
                batch = wanted[start : start + size]
                made = bare(
                    [request.prompt for request in batch],
                    generator=[torch.Generator().manual_seed(r.seed) for r in batch],
                    num_inference_steps=ours.steps,
                    guidance_scale=batch[0].guidance_scale,
                    height=ours.side,
                    width=ours.side,
                )
                pictures.extend(made.images)
            save(pictures, fresh("bare"))

        works = {"ours": own, "bare": plainly, "files": lambda: save(pictures, fresh("files"))}
        costs = alternating(works, repetitions, ours.device)
        apart, mean, redrawn, lost = differences(Path(base) / "ours-0", Path(base) / "bare-0")
    n, seconds = len(wanted), {kind: found.seconds for kind, found in costs.items()}
    figures = {
        "images": n,
        "ours, s": seconds["ours"],
        "bare, s": seconds["bare"],
        "writing the bare files, s": seconds["files"],
        "ours, images/s": n / seconds["ours"],
        "bare, images/s": n / seconds["bare"],
        "times as fast": seconds["bare"] / seconds["ours"],
        "ours, GB": costs["ours"].memory,
        "bare, GB": costs["bare"].memory,
        "largest difference of a pixel, of 255": apart,
        "mean difference of a pixel, of 255": mean,
        "redrawn": redrawn,
        "given up": lost,
    }
    digits = (0, 2, 2, 2, 2, 2, 2, 2, 2, 0, 3, 0, 0)
    return made_part(name, figures, digits)


def differences(ours: Path, bare: Path) -> tuple[int, float, int, int]:
    """Compare the pixels of images that ours drew once.

    Returns:
        The largest difference, the mean one, how often ours drew again, and images it gave up.
    """
    rows = read_table(ours)
    apart = [
        np.abs(pixels(ours / row["path"]) - pixels(bare / f"{i}.webp"))
        for i, row in enumerate(rows)
        if row["made"] and row["draws"] == 1
    ]
    redrawn = sum(row["draws"] - 1 for row in rows)
    lost = sum(not row["made"] for row in rows)
    apart = apart or [np.array([-1])]  # none to compare
    return int(np.max(apart)), float(np.mean(apart)), redrawn, lost


def pixels(path: Path) -> np.ndarray:
    """Return the values of an image."""
    return np.asarray(Image.open(path)).astype(int)


def lora(
    name: str, pipeline: Any, side: int, batch: int, steps: int, args: argparse.Namespace
) -> Part:
    """Compare a step from kept latents and texts with one that encodes its batch."""
    device, dtype = pipeline.device, pipeline.unet.dtype
    parameters = add_lora(pipeline, 16, 0)
    photos = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kept = kept_latents(pipeline, photos, steps)
    states = PromptEncoder(pipeline)([CAPTION], guided=False)["prompt_embeds"]
    labels = torch.zeros(batch * steps, dtype=torch.int64)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        """As ``DomainLora.adapt`` has it."""
        generator = batch_generator(rows, 0)
        drawn = kept.draw(rows, generator).to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            texts = states[labels[rows].to(device)]
            return noise_loss(pipeline.unet, pipeline.scheduler, drawn, texts, generator)

    def own() -> None:
        minimise(loss, parameters, batch * steps, Schedule(1, batch, 1e-4, clip=1.0))

    optimiser = torch.optim.AdamW(parameters, 1e-4)
    limit = {"padding": "max_length", "max_length": pipeline.tokenizer.model_max_length}
    tokens = pipeline.tokenizer([CAPTION] * batch, return_tensors="pt", **limit).input_ids

    def plainly() -> None:
        for _ in range(steps):
            plain_step(pipeline, optimiser, photos, tokens)

    costs = alternating({"ours": own, "bare": plainly}, args.repetitions, args.device)
    cached, encoded = (costs[kind].seconds / steps for kind in ("ours", "bare"))
    figures = {
        "batch": batch,
        "kept, ms a step": 1000 * cached,
        "encoded, ms a step": 1000 * encoded,
        "times as fast": encoded / cached,
        "kept, images/s": batch / cached,
        "encoded, images/s": batch / encoded,
        "kept, GB": costs["ours"].memory,
        "encoded, GB": costs["bare"].memory,
    }
    return made_part(name, figures, (0, 1, 1, 2, 2, 2, 2, 2))


def plain_step(
    pipeline: Any, optimiser: torch.optim.Optimizer, photos: torch.Tensor, tokens: torch.Tensor
) -> None:
    """Take a step as diffusers' example has it."""
    device, dtype = pipeline.device, pipeline.unet.dtype
    with torch.no_grad():
        seen = pipeline.vae.encode(photos.to(device, pipeline.vae.dtype)).latent_dist
        latents = seen.sample() * pipeline.vae.config.scaling_factor
        texts = pipeline.text_encoder(tokens.to(device), return_dict=False)[0]
    noise = torch.randn_like(latents)
    times = torch.randint(0, 1000, (len(photos),), device=device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        noised = pipeline.scheduler.add_noise(latents, noise, times)
        guess = pipeline.unet(noised, times, texts, return_dict=False)[0]
    value = mse_loss(guess.float(), noise.float())
    value.backward()
    torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
    optimiser.step()
    optimiser.zero_grad()
    value.item()


@torch.no_grad()
def kept_latents(pipeline: Any, photos: torch.Tensor, times: int) -> Latents:
    """Return the latents of images, encoded once and repeated."""
    vae = pipeline.vae
    found = vae.encode(photos.to(vae.device, vae.dtype)).latent_dist
    mean, std = (
        (values.float() * vae.config.scaling_factor).cpu().repeat(times, 1, 1, 1)[None]
        for values in (found.mean, found.std)
    )
    return Latents(mean, std)


def made_part(name: str, figures: dict[str, float], digits: tuple[int, ...]) -> Part:
    """Return a part whose row shows every figure, and print it."""
    cells = [f"{value:.{d}f}" for value, d in zip(figures.values(), digits, strict=True)]
    print(name, dict(zip(figures, cells, strict=True)), flush=True)
    named = {f"{name}: {key}": value for key, value in figures.items()}
    return Part(("what", *figures), (name, *cells), named)


def sd15(device: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Return a pipeline of Stable Diffusion 1.5's shape with random weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    marks = {"bos_token_id": 990, "eos_token_id": 991, "pad_token_id": 991}
    try:
        with torch.device(device):
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                sample_size=512,
            )
            unet = UNet2DConditionModel(
                cross_attention_dim=768, sample_size=64, attention_head_dim=8
            )
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
        text_encoder=text.eval(),
        tokenizer=load_text_tower()[1],
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def requests(n: int, guidance_scale: float) -> tuple[ImageRequest, ...]:
    """Return n requests, of the ten digits in even shares as far as they go."""
    tricks = PromptTricks(("base",), guidance_scale=guidance_scale)
    return tricks.requests(LabelSpace(CLASS_NAMES), -(-n // len(CLASS_NAMES)))[:n]


def bundled_generation(args: argparse.Namespace) -> list[Part]:
    """Compare on the bundled model, in both dtypes."""
    wanted = requests(args.images, 3.0)
    parts = []
    for dtype in ("float32", "bfloat16"):
        ours = TextToImage("tiny", steps=args.steps, batch_size=50, dtype=dtype, device=args.device)
        parts.append(generation(f"bundled model, {dtype}", ours, wanted, args.repetitions))
    return parts


def bundled_lora(args: argparse.Namespace) -> list[Part]:
    """Compare steps on the bundled model."""
    device = torch.device(args.device)
    pipeline = load_pipeline(DIFFUSION, device=device, dtype=torch.float32)
    return [lora("bundled model, float32", pipeline, 32, 4, 20, args)]


def large_generation(args: argparse.Namespace) -> list[Part]:
    """Compare on Stable Diffusion 1.5's shape, from a folder as ours needs one."""
    wanted = requests(args.sd15_images, 7.5)
    name = f"SD 1.5 shape, {args.sd15_dtype}, {args.side} px"
    with TemporaryDirectory() as folder:
        sd15(args.device, getattr(torch, args.sd15_dtype)).save_pretrained(folder)
        ours = TextToImage(
            folder,
            steps=args.steps,
            side=args.side,
            batch_size=8,
            dtype=args.sd15_dtype,
            device=args.device,
        )
        return [generation(name, ours, wanted, args.repetitions)]


def large_lora(args: argparse.Namespace) -> list[Part]:
    """Compare steps on Stable Diffusion 1.5's shape."""
    pipeline = sd15(args.device, torch.bfloat16)
    batch, steps = (4, 5) if args.device == "cuda" else (1, 1)
    name = f"SD 1.5 shape, bfloat16, {args.side} px"
    return [lora(name, pipeline, args.side, batch, steps, args)]


def page(title: str, parts: list[Part]) -> list[str]:
    """Return the table of one kind of part: figures down, what was measured across."""
    if not parts:
        return []
    columns = list(zip(parts[0].head, *(part.row for part in parts), strict=True))
    lines = [" | ".join(column) for column in columns]
    rule = " | ".join(["---"] + ["---:"] * len(parts))
    return ["", f"{title}:", "", *(f"| {line} |" for line in (lines[0], rule, *lines[1:]))]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=200, help="of the bundled model")
    parser.add_argument("--sd15-images", type=int, default=16)
    parser.add_argument(
        "--sd15-dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16"
    )
    parser.add_argument("--side", type=int, default=512, help="pixels of SD 1.5's shape")
    parser.add_argument("--write", action="store_true", help="write the results page")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(2)
    todo = args.parts or [p for p in PARTS if args.device == "cuda" or p != "sd15-generation"]
    works = {
        "generation": bundled_generation,
        "lora": bundled_lora,
        "sd15-generation": large_generation,
        "sd15-lora": large_lora,
    }
    found = {part: works[part](args) if part in todo else [] for part in PARTS}
    lines = [f"{device_name(args.device)}, diffusers {version('diffusers')}."]
    lines += page("Generation", found["generation"] + found["sd15-generation"])
    if len(lines) > 1:
        lines += ["", ROUNDING]
    lines += page("A step of LoRA training, rank 16", found["lora"] + found["sd15-lora"])
    figures = {k: v for parts in found.values() for part in parts for k, v in part.figures.items()}
    if args.write:
        name = "speed_synthesis" + ("_cuda" if args.device == "cuda" else "")
        write("_".join([name, *(args.parts or [])]), figures, lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
