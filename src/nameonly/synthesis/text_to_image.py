"""Images from texts by any text-to-image pipeline of diffusers.

Paper: Rombach, Blattmann, Lorenz, Esser, Ommer. High-Resolution Image Synthesis with Latent
    Diffusion Models. CVPR 2022, arXiv 2112.10752; guidance: Ho, Salimans, arXiv 2207.12598;
    as a training set: Shipard et al. (MA-ZSC), arXiv 2302.03298.
Code: https://github.com/huggingface/diffusers
Differs: one generator per image, on the CPU, so that a seed gives its image in any batch and on any
    device, within rounding; 40 steps as MA-ZSC, by the scheduler that belongs to the weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from nameonly.backbones._devices import choose_device, choose_dtype
from nameonly.synthesis._adaptation import lora_id
from nameonly.synthesis._drawing import DrawAll, Drawing, Drawn
from nameonly.synthesis._pipelines import (
    PromptEncoder,
    Scheduler,
    draw_batch,
    find_model,
    fingerprint,
    load_pipeline,
    scheduler_name,
    tells_steps,
)
from nameonly.synthesis._timing import seconds_to_draw
from nameonly.synthetic import ImageFormat, ImageRequest, SyntheticImages

__all__ = ["TextToImage"]

# what an image of one latent measures in Stable Diffusion
LEAST_SIDE = 8


@dataclass(frozen=True)
class TextToImage:
    """Makes images with Stable Diffusion 1 to 3, its turbo kinds, or what else diffusers has.

    Attributes:
        model: A hub id, a folder in the layout of diffusers, or ``"tiny"`` (knows glyphs only).
        revision: Branch, tag or commit on the hub.
        steps: Denoising steps; turbo kinds take 1 to 4.
        scheduler: ``"model"`` for the one that belongs to the weights.
        lora: File or folder of LoRA weights (see ``domain_lora``); empty for none.
        side: Height and width in pixels; None for the model's own.
        batch_size: Images made at once.
        draws: How often an image that is blank or refused by the model's safety checker is drawn
            before it is given up.
        image_format: ``"webp"`` or ``"png"``, both lossless.
        device: ``"auto"``, or what ``torch.device`` takes.
        dtype: ``"auto"`` takes bfloat16 where the processor has it, else float32.
    """

    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: str = "main"
    steps: int = 40
    scheduler: Scheduler = "model"
    lora: str = ""
    side: int | None = None
    batch_size: int = 8
    draws: int = 5
    image_format: ImageFormat = "webp"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.side is not None and self.side < LEAST_SIDE:
            raise ValueError(f"side must be at least {LEAST_SIDE} pixels, got {self.side}")

    @cached_property
    def folder(self) -> Path:
        """Where the model lies."""
        return find_model(self.model, self.revision)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What its images depend on besides their requests."""
        return {
            "model": self.model,
            "revision": fingerprint(self.folder),
            "lora": lora_id(Path(self.lora)) if self.lora else "",
            "scheduler": scheduler_name(self.folder, self.scheduler),
            "steps": self.steps,
            "side": self.side or 0,
            "dtype": str(self._dtype).removeprefix("torch."),
        }

    @cached_property
    def pipeline(self) -> Any:
        """The pipeline of diffusers, loaded at first use."""
        return load_pipeline(
            self.folder,
            device=choose_device(self.device),
            dtype=self._dtype,
            scheduler=self.scheduler,
            lora=Path(self.lora) if self.lora else None,
        )

    @property
    def _dtype(self) -> torch.dtype:
        return choose_dtype(self.dtype, choose_device(self.device))

    @cached_property
    def _encode(self) -> PromptEncoder:
        return PromptEncoder(self.pipeline)

    def generate(
        self,
        requests: Sequence[ImageRequest],
        folder: Path,
        on_progress: Callable[[int, int], None] | None = None,
        draw_all: DrawAll | None = None,
    ) -> SyntheticImages:
        """Make every image that the folder lacks, then its table; the same call resumes.

        The same request gives the same bytes in batches of the same shape, and values within 2/255
        in others (measured in float32 on a CPU).

        Args:
            requests: What to make.
            folder: Of the images.
            on_progress: Called with the images there and in all.
            draw_all: Draws batches elsewhere, as ``drawn`` does here; None draws here.

        Raises:
            ValueError: If the model cannot be had, the LoRA is another model's, no image could be
                made, or the folder holds other images in these places.
            FloatingPointError: If images are not finite.
            OSError: If an image cannot be written.
        """
        return self._drawing().into(folder, requests, on_progress, draw_all)

    def drawn(self, batch: Sequence[ImageRequest], lacking: Sequence[int]) -> Drawn:
        """Make a batch; return rows and pixels of some of it, None where there is only a blank.

        Args:
            batch: Requests of one guidance scale.
            lacking: Places in it of what is returned.

        Raises:
            FloatingPointError: If images are not finite.
        """
        return self._drawing().drawn(batch, lacking)

    def seconds(self, requests: Sequence[ImageRequest], folder: Path | None) -> float:
        """Return about how long ``generate`` takes for what a folder lacks; None lacks all.

        A few steps are tried on the device at hand; images stay what they are.

        Raises:
            ValueError: See ``generate``.
        """
        left = self._drawing().lacking(folder, requests)
        if not left:
            return 0.0
        told = tells_steps(self.pipeline)
        return seconds_to_draw(left, self.steps, self.draw, self.image_format, told)

    def draw(
        self, requests: Sequence[ImageRequest], **more: Any
    ) -> tuple[Float[np.ndarray, "b h w 3"], list[bool]]:
        """Make images of one guidance scale: values in [0, 1], and which are refused as unsafe.

        Args:
            requests: What to make.
            more: What else the pipeline is told.
        """
        told = {"num_inference_steps": self.steps, "height": self.side, "width": self.side, **more}
        return draw_batch(self.pipeline, self._encode, requests, **told)

    def _drawing(self) -> Drawing:
        return Drawing(self.draw, self.facts, self.batch_size, self.draws, self.image_format)
