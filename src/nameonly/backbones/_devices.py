"""Devices, dtypes and batches: what all backbones that run a network share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from nameonly.backbones import Backbone

# the allocator gives larger results back to the system each time, and to touch their pages anew
# takes longer than much of the computing: 15 to 20 % of all time for a ViT-B/32 (decisions/0008)
PASS_BYTES = 10 << 20


def choose_device(device: str) -> torch.device:
    """Return the device asked for, or the best there is for ``"auto"``.

    Raises:
        ValueError: If the device does not exist here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); "
            "try --device cpu, or leave it out"
        ) from error
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the dtype asked for; ``"auto"``: bfloat16 where the processor has it, else float32."""
    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            dtype
        ]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(capabilities.get(k) for k in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))
    return torch.bfloat16 if device.type == "cpu" and native else torch.float32


def in_passes(
    encode: Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, "n d"]],
    pixels: Float[Tensor, "n 3 h w"],
    device: torch.device,
    tower: nn.Module,
) -> Float[Tensor, "n d"]:
    """Encode a batch: on a processor by few images at a time, elsewhere at once where it fits.

    Args:
        encode: Encodes some of them in one forward pass.
        pixels: The batch.
        device: That it is encoded on.
        tower: The network that does it.

    Raises:
        ValueError: If the memory does not hold one image.
    """
    few = images_a_pass(tower, pixels) if device.type == "cpu" else None
    parts = (pixels,) if few is None else torch.split(pixels, few)
    return torch.cat([in_halves(encode, part, device) for part in parts])


def images_a_pass(tower: nn.Module, pixels: Float[Tensor, "n 3 h w"]) -> int | None:
    """Return of how many images the widest result in between stays within ``PASS_BYTES``.

    None where the network is no transformer on patches: those of others shrink from stage to stage.
    """
    convolutions = [part for part in tower.modules() if isinstance(part, nn.Conv2d)]
    widths = [part.out_features for part in tower.modules() if isinstance(part, nn.Linear)]
    if len(convolutions) != 1 or convolutions[0].kernel_size != convolutions[0].stride:
        return None
    down, across = convolutions[0].kernel_size
    tokens = (pixels.shape[2] // down) * (pixels.shape[3] // across) + 1
    each = tokens * max(widths, default=1) * next(tower.parameters()).element_size()
    return int(max(1, PASS_BYTES // each))


def in_halves(
    encode: Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, "n d"]],
    pixels: Float[Tensor, "n 3 h w"],
    device: torch.device,
) -> Float[Tensor, "n d"]:
    """Encode images in one pass, or in halves where the memory does not hold them at once.

    Raises:
        ValueError: If it does not hold one image.
    """
    try:
        return encode(pixels)
    except RuntimeError as error:
        if not _lacks_memory(error):
            raise
        reason = str(error).splitlines()[0]
    # outside of the handler: the error would keep what the failed pass had allocated
    if len(pixels) == 1:
        raise ValueError(
            f"one image does not fit the memory of {device} ({reason}); take a smaller model, "
            "or --device cpu"
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    middle = len(pixels) // 2
    return torch.cat([in_halves(encode, p, device) for p in (pixels[:middle], pixels[middle:])])


def _lacks_memory(error: RuntimeError) -> bool:
    # the processor's allocator has no error of its own
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def unit_rows(values: Float[Tensor, "n d"], model: str, dtype: torch.dtype) -> Float[Tensor, "n d"]:
    """Return unit rows in float32 on the CPU.

    Raises:
        FloatingPointError: If a value is not finite.
    """
    rows: Tensor = normalize(values.float(), dim=1).cpu()
    if not torch.isfinite(rows).all():
        raise FloatingPointError(
            f"backbone {model!r} gave values that are not finite in {dtype}; try --dtype float32"
        )
    return rows


def encode_in_batches(images: Sequence[Image.Image], backbone: Backbone) -> Float[Tensor, "n d"]:
    """Preprocess and encode RGB images, ``batch_size`` at a time."""
    if not images:
        return torch.zeros(0, backbone.dim)
    size = backbone.batch_size
    rows = [
        backbone.encode_pixels(torch.stack([backbone.preprocess(i) for i in images[k : k + size]]))
        for k in range(0, len(images), size)
    ]
    return torch.cat(rows)
