"""Visual context: learned tokens among an image's patches (VPT), trained on pseudo-labels.

Paper: Jia et al. Visual Prompt Tuning. ECCV 2022, arXiv 2203.12119, section 3.2. Beside a frozen
    CLIP and without labels: Menghini, Delworth, Bach (GRIP). NeurIPS 2023, arXiv 2306.01669.
Code: https://github.com/KMnP/vpt, https://github.com/BatsResearch/menghini-neurips23-code
Differs: the class texts take the place of VPT's linear head. Tokens start as GRIP's do, normal with
    a standard deviation of width^-1/2 (VPT's Xavier limits have the same at a patch size of 16), in
    every layer where they are deep. No dropout and no search of rate and length with labels:
    GRIP's setting for all data. Images are preprocessed as for prediction, as in GRIP's code, not
    augmented; the warm-up rises step by step, and the last epoch counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from nameonly.backbones import Backbone
from nameonly.backbones._prompted import PromptedBackbone
from nameonly.loop import Schedule, minimise
from nameonly.ops.initial import named_normal
from nameonly.ops.losses import partial_label_loss
from nameonly.prompt_learning._pixels import PixelCache, training_set
from nameonly.types import Features, ImageSet, PromptShape, PseudoLabels, TextClassifier

__all__ = ["VisualContext"]


def start_tokens(
    shape: PromptShape, n_context: int, deep: bool, seed: int
) -> Float[Tensor, "l m w"]:
    """Return normal tokens of about unit length: for the input, or for every layer's."""
    layers = [f"layer {i}" for i in range(shape.image_layers if deep else 1)]
    width = shape.image_width
    return named_normal(layers, (n_context, width), width**-0.5, seed)


@dataclass
class VisualContext:
    """Learns ``n_context`` tokens that stand behind the class token.

    Attributes:
        n_context: How many tokens.
        deep: Whether every layer has new tokens (VPT-deep), or the input alone (VPT-shallow).
        targets: ``"soft"`` weighs each candidate by its probability (one candidate: a hard label),
            ``"candidates"`` takes the candidate set as it is.
        schedule: GRIP's by default.
        seed: Of initial values and of the order of images.
    """

    n_context: int = 16
    deep: bool = False
    targets: Literal["soft", "candidates"] = "soft"
    schedule: Schedule = field(
        default_factory=lambda: Schedule(150, 16, 0.1, 5.0, weight_decay=0.1, optimiser="sgd")
    )
    seed: int = 0
    reads: ClassVar[Literal["features", "images"]] = "images"

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    backbone_: Backbone = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.n_context < 1:
            raise ValueError(f"n_context must be at least 1, got {self.n_context}")

    def fit(
        self,
        inputs: Features | ImageSet,
        text: TextClassifier,
        pseudo_labels: PseudoLabels,
        backbone: Backbone,
        *,
        checkpoint: Path | None = None,
        on_epoch: Callable[[int, float], None] | None = None,
    ) -> "VisualContext":
        """Train the tokens on the selected images; see ``PromptLearner.fit``.

        Memory: the selected images' pixels, up to 2 GiB, their targets (m x c), and one pass of the
        image tower over a batch with its gradients.

        Raises:
            ValueError: If the inputs are features, no image is selected, the pseudo-labels belong
                to other images, or an image can no longer be read.
            FloatingPointError: If the loss is not finite.
        """
        images, targets, weights = training_set(inputs, pseudo_labels, self.targets)
        pixels, shape = PixelCache(images, backbone), backbone.prompt_shape
        tokens = nn.Parameter(start_tokens(shape, self.n_context, self.deep, self.seed))

        def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            values = backbone.encode_with_tokens(pixels.read(rows), tokens)
            logits = text.logit_scale * values @ text.weights.to(values).T
            weighing = None if weights is None else weights[rows].to(values)
            return partial_label_loss(logits, targets[rows].to(values), weighing)

        minimise(
            loss,
            [tokens],
            len(images),
            self.schedule,
            seed=self.seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
        self.text_, self.backbone_ = text, PromptedBackbone(backbone, tokens)
        return self
