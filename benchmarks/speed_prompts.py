"""Text-prompt training against the published scheme: each factor on its own, and all together.

uv run python benchmarks/speed_prompts.py [--classes 10 100 1000] [--bfloat16]

A CLIP of ViT-B/32 shape with random weights (151 million parameters), batch 32. The published
scheme encodes the images of every batch anew and every class's prompt at the tower's full length of
77 tokens. A step is forward and backward to the context; seconds are the median of the steps.
With --bfloat16 the same steps in that dtype, and those of tokens in the image tower: how much
faster, and how exact their gradients are.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

import torch
from random_clip import make
from results import write
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from nameonly.backbones import _tokens
from nameonly.backbones._clip_prompts import _encode_layout, _frame
from nameonly.backbones._clip_prompts import _tokens as tokenise
from nameonly.backbones.clip import ClipBackbone
from nameonly.prompt_learning.visual_context import start_tokens
from nameonly.tiny.digits import CLASS_NAMES

BATCH, CONTEXT = 32, 16
# of a thousand classes at full length a step holds some 80 GB: it is timed as ten hundreds
LARGEST_AT_ONCE = 100


def names(c: int) -> list[str]:
    """Return class names of three words, a token each, as long as those of common data sets."""
    return [" ".join(CLASS_NAMES[int(digit)] for digit in f"{i:03d}") for i in range(c)]


def full_length(backbone: ClipBackbone, tokens: list[list[int]], length: int) -> _tokens.Packed:
    """Lay out one prompt a sequence, filled to a length: the published scheme."""
    begin, end = _frame(backbone.tokenizer)
    packs = [
        _tokens.pack([t], CONTEXT, shared=True, begin=begin, end=end, length=77) for t in tokens
    ]

    def padded(field: str, filler: int) -> Tensor:
        rows = [getattr(p, field)[0] for p in packs]
        return torch.stack(
            [torch.cat([r, torch.full((length - len(r),), filler)])[:length] for r in rows]
        )

    segment = padded("segment", -2)
    segment[segment >= 0] = 0
    ends = torch.tensor([[i, int(p.ends[0, 1])] for i, p in enumerate(packs)])
    return _tokens.Packed(
        padded("ids", end), padded("positions", 0), padded("context", -1), segment, ends
    )


def seconds(step: Callable[[], None], repeats: int) -> float:
    """Return the median time of a step, after one that warms up."""
    step()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        step()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def measure(backbone: ClipBackbone, c: int, repeats: int) -> dict[str, float]:
    """Return seconds a step of every variant, for a number of classes."""
    at_once = min(c, LARGEST_AT_ONCE)
    tokens = tokenise(backbone.tokenizer, names(c))
    begin, end = _frame(backbone.tokenizer)
    longest = 1 + CONTEXT + max(map(len, tokens)) + 1
    pixels = torch.randn(BATCH, 3, 224, 224)
    features = backbone.encode_pixels(pixels)
    labels = torch.arange(BATCH) % c
    context = nn.Parameter(0.02 * torch.randn(CONTEXT, backbone.prompt_shape.text_width))

    def text_step(layout: _tokens.Packed, classes: int) -> Callable[[], None]:
        def step() -> None:
            context.grad = None
            weights = _encode_layout(backbone.network, layout, context)
            cross_entropy(100 * features @ weights.T, labels % classes).backward()

        return step

    def images() -> None:
        with torch.no_grad():
            backbone.network.get_image_features(pixel_values=pixels.to(backbone.resolved_dtype))

    full = full_length(backbone, tokens[:at_once], 77)
    trimmed = full_length(backbone, tokens[:at_once], longest)
    packed = _tokens.pack(tokens, CONTEXT, shared=True, begin=begin, end=end, length=77)
    found = {
        "images": seconds(images, repeats),
        "text, 77 tokens": seconds(text_step(full, at_once), repeats) * c / at_once,
        "text, longest prompt": seconds(text_step(trimmed, at_once), repeats) * c / at_once,
        "text, shared context": seconds(text_step(packed, c), repeats),
    }
    found["tokens, 77"] = 77 * c
    found["tokens, longest prompt"] = longest * c
    found["tokens, shared context"] = packed.ids.numel()
    return found


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--bfloat16", action="store_true", help="time that dtype too")
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "nameonly-random-clip")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    folder = make(arguments.folder)
    lines = [
        "ViT-B/32 shape, random weights, 16 shared context vectors, names of three words, batch "
        "32, two threads, float32. Every factor is the ratio of the step without it to the step "
        "with it, added in this order; together: the published step to ours.",
        "",
        "| classes | published, ms | ours, ms | cached features | longest prompt | shared context "
        "| together | limit by tokens | bfloat16 | with it |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    figures: dict[str, float] = {}
    for c in arguments.classes:
        backbone = ClipBackbone(str(folder), device="cpu", dtype="float32")
        found = measure(backbone, c, 5 if c <= 10 else 3 if c <= 100 else 1)
        full, trimmed = found["text, 77 tokens"], found["text, longest prompt"]
        ours, published = found["text, shared context"], found["images"] + full
        bfloat16 = "- | -"
        if arguments.bfloat16:
            half = ClipBackbone(str(folder), device="cpu", dtype="bfloat16")
            found["text, bfloat16"] = measure_packed(half, c)
            faster = measure_packed(backbone, c) / found["text, bfloat16"]
            bfloat16 = f"{faster:.1f} | {faster * published / ours:.1f}"
        factors = (
            published / full,
            full / trimmed,
            trimmed / ours,
            published / ours,
            (found["images"] / full + 1) * found["tokens, 77"] / found["tokens, shared context"],
        )
        cells = " | ".join(f"{factor:.1f}" for factor in factors)
        lines.append(f"| {c} | {1000 * published:.0f} | {1000 * ours:.0f} | {cells} | {bfloat16} |")
        figures |= {f"{c} classes: {key}": value for key, value in found.items()}
        figures[f"{c} classes: together"] = published / ours
    lines += [
        "",
        "A thousand classes at 77 tokens or at the longest prompt are timed as ten hundreds: at "
        "once they would hold some 80 GB. The limit counts tokens through the text tower, beside "
        "the images. bfloat16 is the same step in that dtype, and the last column the product with "
        "it; on a processor without such units it is slower.",
    ]
    if arguments.bfloat16:
        lines += visual(folder, figures)
    write("speed_prompts", figures, lines)


def visual(folder: Path, figures: dict[str, float]) -> list[str]:
    """Return the part about tokens in the image tower: bfloat16 beside float32."""
    lines = [
        "",
        f"Sixteen tokens in the image tower (VPT), batch {BATCH}: a step in float32 and in "
        "bfloat16, and the cosine of the two gradients of the tokens. Weights are random, pixels "
        "are noise: the gradients are of nothing but chance.",
        "",
        "| tokens | float32, ms | bfloat16, ms | ratio | cosine of gradients | ratio of lengths |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    pixels, labels = torch.randn(BATCH, 3, 224, 224), torch.arange(BATCH) % 10
    encoder = ClipBackbone(str(folder), device="cpu", dtype="float32")
    weights = encoder.encode_texts(names(10)).clone()  # one made for inference has no gradients
    for kind, deep in (("shallow", False), ("deep", True)):
        took, gradients = [], []
        for dtype in ("float32", "bfloat16"):
            backbone = ClipBackbone(str(folder), device="cpu", dtype=dtype)
            tokens = nn.Parameter(start_tokens(backbone.prompt_shape, 16, deep, seed=0))
            took.append(seconds(visual_step(backbone, pixels, tokens, weights, labels), 3))
            gradients.append(tokens.grad.float().flatten())
        lengths = [gradient.norm().item() for gradient in gradients]
        row = {
            "ratio": took[0] / took[1],
            "cosine": cosine_similarity(*gradients, dim=0).item(),
            "lengths": lengths[1] / lengths[0],
        }
        lines.append(
            f"| {kind} | {1000 * took[0]:.0f} | {1000 * took[1]:.0f} | {row['ratio']:.1f} "
            f"| {row['cosine']:.4f} | {row['lengths']:.3f} |"
        )
        figures |= {f"visual, {kind}: {key}": value for key, value in row.items()}
    return lines


def visual_step(
    backbone: ClipBackbone, pixels: Tensor, tokens: nn.Parameter, weights: Tensor, labels: Tensor
) -> Callable[[], None]:
    """Return one step of tokens in the image tower."""

    def step() -> None:
        tokens.grad = None
        values = backbone.encode_with_tokens(pixels, tokens).float()
        cross_entropy(100 * values @ weights.T, labels).backward()

    return step


def measure_packed(backbone: ClipBackbone, c: int) -> float:
    """Return seconds a step of the shared context alone, in the backbone's dtype."""
    context = nn.Parameter(0.02 * torch.randn(CONTEXT, backbone.prompt_shape.text_width))
    encode = backbone.text_prompter(names(c), CONTEXT)

    def step() -> None:
        context.grad = None
        encode(context).sum().backward()

    return seconds(step, 1)


if __name__ == "__main__":
    main()
