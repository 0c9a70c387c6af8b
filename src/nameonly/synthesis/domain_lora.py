"""Domain LoRA: the text-to-image model learns what the unlabelled images look like (AiR).

Paper: AiR. Augmenting Discriminative Richness via Diffusions in Unsupervised Prompt Learning.
    CVPR 2025, arXiv 2504.11930. LoRA: Hu et al., arXiv 2106.09685.
Differs: reconstruction, the paper names neither captions nor length. One LoRA for all classes, on
    the attention projections of the U-Net; the caption of an image is the template with its
    pseudo-label's name; latents and captions are encoded once, where diffusers' example encodes
    every batch anew; the learning rate falls along a cosine.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nameonly.backbones._devices import choose_device, choose_dtype
from nameonly.loop import Schedule, minimise
from nameonly.ops.chance import batch_generator
from nameonly.ops.diffusion import noise_loss
from nameonly.synthesis._adaptation import (
    LATENTS,
    STATES,
    add_lora,
    epochs_behind,
    forget_training,
    save_lora,
)
from nameonly.synthesis._latents import Latents, encode_latents
from nameonly.synthesis._pipelines import (
    PromptEncoder,
    fingerprint,
    import_diffusers,
    load_pipeline,
)
from nameonly.types import ImageSet, LabelSpace, PseudoLabels

__all__ = ["DomainLora"]


@dataclass(frozen=True)
class DomainLora:
    """Trains one LoRA on images whose captions are their pseudo-labels.

    Attributes:
        rank: Of the added matrices.
        template: Caption, with one ``{}`` for the class name.
        flip: Whether an image is seen mirrored half of the time; not for what has a handedness,
            such as characters.
        schedule: Length and rate.
        gradient_checkpointing: Compute activations again in the backward pass: less memory, slower.
        device: ``"auto"``, or what ``torch.device`` takes.
        dtype: Of the frozen weights; the LoRA itself is float32.
        seed: Of initial values, noise and order.
    """

    rank: int = 16
    template: str = "an image of a {}"
    flip: bool = True
    schedule: Schedule = field(default_factory=lambda: Schedule(50, 4, 1e-4, clip=1.0))
    gradient_checkpointing: bool = False
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.template.count("{}") != 1:
            raise ValueError(f"template has exactly one {{}}, got {self.template!r}")

    def adapt(
        self,
        images: ImageSet,
        pseudo_labels: PseudoLabels,
        label_space: LabelSpace,
        model: Path,
        folder: Path,
        *,
        key: str = "",
        on_epoch: Callable[[int, float], None] | None = None,
    ) -> Path:
        """Train on the selected images and write the LoRA in the format of diffusers.

        Memory: the model, and 2 or 4 latents of every selected image in float32.

        Args:
            images: Unlabelled.
            pseudo_labels: One row per image; the selected ones are learnt from.
            label_space: Names the captions.
            model: Folder of a Stable Diffusion 1.x or 2.x.
            folder: Written: ``pytorch_lora_weights.safetensors``; until then the state of the
                training and the latents, so that the same call goes on where one was stopped.
            key: Written into the LoRA's metadata: says what it was trained on and how.
            on_epoch: Called after every epoch with its number and mean loss.

        Returns:
            The folder, for ``TextToImage(lora=...)``.

        Raises:
            ValueError: If no image is selected, an image cannot be read, or the model is of
                another architecture.
            FloatingPointError: If the loss or a latent is not finite.
        """
        pseudo_labels.check_fits(images)
        pipeline, parameters = self._begin(model)
        selected: list[int] = pseudo_labels.selected.nonzero()[:, 0].tolist()
        rows = sorted(selected, key=lambda i: images.ids[i])
        chosen = images.subset(rows)
        labels = pseudo_labels.labels[rows]
        mark, kept = fingerprint(model), folder / LATENTS
        latents = encode_latents(chosen, pipeline, mark, self.flip, kept)
        captions = [self.template.replace("{}", name) for name in label_space.class_names]
        states = PromptEncoder(pipeline)(captions, guided=False)["prompt_embeds"]
        # whatever the training depends on, so that another one never goes on from its state
        facts = [self, mark, str(pipeline.vae.dtype), chosen.ids, labels.tolist(), captions]
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
        state = folder / STATES.replace("*", digest)

        minimise(
            partial(self._loss, pipeline, latents, states, labels),
            parameters,
            len(chosen),
            self.schedule,
            seed=self.seed,
            checkpoint=state,
            on_epoch=on_epoch,
        )
        save_lora(pipeline, folder, mark, key)
        forget_training(folder)
        return folder

    def seconds(self, n: int, model: Path, folder: Path) -> float:
        """Return about how long ``adapt`` takes: a step to warm up and two others, multiplied.

        Args:
            n: How many images are learnt from.
            model: As in ``adapt``.
            folder: As in ``adapt``; epochs that a training there has behind it do not count.

        Raises:
            ValueError: If the model is of another architecture.
        """
        epochs = max(0, self.schedule.epochs - epochs_behind(folder))
        begun = time.perf_counter()
        pipeline, parameters = self._begin(model)
        loading = time.perf_counter() - begun
        size, unet = min(n, self.schedule.batch_size), pipeline.unet.config
        mean = torch.zeros(1, size, unet.in_channels, unet.sample_size, unet.sample_size)
        states = PromptEncoder(pipeline)([self.template], guided=False)["prompt_embeds"]
        labels = torch.zeros(size, dtype=torch.long)
        ends: list[float] = []
        minimise(
            partial(self._loss, pipeline, Latents(mean, torch.ones_like(mean)), states, labels),
            parameters,
            size,
            replace(self.schedule, epochs=3),
            on_epoch=lambda *_: ends.append(time.perf_counter()),
        )
        return loading + (ends[2] - ends[0]) / 2 * epochs * n / size

    def _begin(self, model: Path) -> tuple[Any, list[nn.Parameter]]:
        """Return the pipeline with a LoRA, and what of it is to be trained."""
        device = choose_device(self.device)
        pipeline = load_pipeline(model, device=device, dtype=choose_dtype(self.dtype, device))
        parameters = add_lora(pipeline, self.rank, self.seed)
        # a sampler's own noise may be on another scale, or have its levels in another order
        pipeline.scheduler = import_diffusers().DDPMScheduler.from_config(pipeline.scheduler.config)
        if self.gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
        return pipeline, parameters

    def _loss(
        self,
        pipeline: Any,
        latents: Latents,
        states: Float[Tensor, "c t d"],
        labels: Int[Tensor, " n"],
        batch: Int[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Return the mean loss of a batch of rows under the captions of their labels."""
        generator, device = batch_generator(batch, self.seed), pipeline.device
        drawn = latents.draw(batch, generator).to(device)
        chosen = states[labels[batch].to(device)]
        dtype = pipeline.vae.dtype  # of the frozen weights
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return noise_loss(pipeline.unet, pipeline.scheduler, drawn, chosen, generator)
