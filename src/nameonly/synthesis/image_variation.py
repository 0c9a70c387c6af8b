"""Image variation: real unlabelled images, noised in part and denoised under a prompt.

Paper: Meng et al. SDEdit: Guided Image Synthesis and Editing with Stochastic Differential
    Equations. ICLR 2022, arXiv 2108.01073; as training data: Trabucco et al. (DA-Fusion), ICLR
    2024, arXiv 2302.07944.
Differs: the class in the prompt is a pseudo-label, most confident images first and in turn; in the
    latent space of the text-to-image model, with the same weights and the same LoRA.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

# its check looks at attributes without computing them, which typing's does from Python 3.12 on
from typing_extensions import Protocol, runtime_checkable

from nameonly.images import load
from nameonly.synthesis._drawing import Drawing
from nameonly.synthesis._latents import square
from nameonly.synthesis._pipelines import PromptEncoder, draw_batch, image_to_image, picture_side
from nameonly.synthetic import ImageFormat, ImageRequest, SyntheticImages
from nameonly.types import ImageSet, LabelSpace, PseudoLabels

__all__ = ["ImageVariation"]


@runtime_checkable
class TextToImageModel(Protocol):
    """What is taken of a text-to-image generator: its weights and its manner."""

    @property
    def facts(self) -> dict[str, Any]:
        """What its images depend on besides their requests."""
        ...

    @property
    def pipeline(self) -> Any:
        """Of diffusers."""
        ...

    steps: int
    side: int | None
    batch_size: int
    draws: int
    image_format: ImageFormat


@dataclass(frozen=True)
class ImageVariation:
    """Makes variations of the images that a pseudo-labeller selected.

    Attributes:
        strength: How much of an image is made anew, in (0, 1]: the share of the denoising steps
            that it goes through.
        template: Prompt, with one ``{}`` for the class name.
        guidance_scale: Weight of the prompt against none.
        seed: Of the noise.
    """

    strength: float = 0.6
    template: str = "an image of a {}"
    guidance_scale: float = 7.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be in (0, 1], got {self.strength}")
        if self.template.count("{}") != 1:
            raise ValueError(f"template has exactly one {{}}, got {self.template!r}")

    def requests(
        self, pseudo_labels: PseudoLabels, label_space: LabelSpace, images_per_class: int
    ) -> tuple[ImageRequest, ...]:
        """Return the requests of every class that has a selected image, class by class.

        Raises:
            ValueError: If less than one image a class is asked for, or a class has no image.
        """
        if images_per_class < 1:
            raise ValueError(f"images_per_class must be at least 1, got {images_per_class}")
        labels, ids = pseudo_labels.labels.tolist(), pseudo_labels.ids
        confidence = pseudo_labels.confidence.tolist()
        found = []
        for i, name in enumerate(label_space.class_names):
            rows = [row for row, label in enumerate(labels) if label == i]
            if not rows:
                raise ValueError(f"no image was pseudo-labelled {name!r}, so none can be varied")
            rows.sort(key=lambda row: (-confidence[row], ids[row]))
            for number in range(images_per_class):
                found.append(self._request(name, number, ids[rows[number % len(rows)]]))
        return tuple(found)

    def _request(self, name: str, number: int, source: str) -> ImageRequest:
        return ImageRequest(
            name,
            number,
            self.template.replace("{}", name),
            "variation",
            self.guidance_scale,
            # the noise of an image's second variation differs from that of its first
            int(source[:8], 16) // 2 + number + self.seed,
            source,
            self.strength,
        )

    def generate(
        self,
        requests: Sequence[ImageRequest],
        folder: Path,
        images: ImageSet,
        generator: TextToImageModel,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> SyntheticImages:
        """Make every image that the folder lacks, then its table; the same call resumes.

        Raises:
            ValueError: If a request varies none of the images, or see ``TextToImage.generate``.
            BadImageError: If a real image can no longer be read.
            OSError: If an image cannot be written.
        """
        rows = images.first_rows()
        foreign = [r.source for r in requests if r.source not in rows]
        if foreign:
            raise ValueError(f"{len(foreign)} requests vary other images, first {foreign[0]!r}")
        pipeline = image_to_image(generator.pipeline)
        draw = partial(self._draw, images, rows, generator, pipeline, PromptEncoder(pipeline))
        how = Drawing(
            draw, generator.facts, generator.batch_size, generator.draws, generator.image_format
        )
        return how.into(folder, requests, on_progress)

    def _draw(
        self,
        images: ImageSet,
        rows: dict[str, int],
        generator: TextToImageModel,
        pipeline: Any,
        encode: PromptEncoder,
        requests: Sequence[ImageRequest],
    ) -> tuple[Float[np.ndarray, "b h w 3"], list[bool]]:
        side = generator.side or picture_side(pipeline)
        return draw_batch(
            pipeline,
            encode,
            requests,
            image=[square(load(images, rows[request.source]), side) for request in requests],
            strength=requests[0].strength,
            num_inference_steps=generator.steps,
        )
