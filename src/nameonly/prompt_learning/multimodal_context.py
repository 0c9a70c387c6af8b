"""Multimodal context: both towers' learned vectors out of one small transformer (UPT).

Paper: Zang, Li, Zhou, Huang, Loy. Unified Vision and Language Prompt Learning. 2022,
    arXiv 2210.07225. Without labels: Menghini, Delworth, Bach (GRIP). NeurIPS 2023,
    arXiv 2306.01669.
Code: https://github.com/BatsResearch/menghini-neurips23-code (the paper's own repository is empty)
Differs: reconstruction from the abstract and GRIP's code, for the paper's text could not be read.
    Tokens in either tower's width, projected to 128 and back; one layer, one head, norms before
    attention and MLP, no dropout. All tokens attend to each other; in GRIP's code a text token sees
    only the image token of its place, for sequence and batch change roles there. GELU, not its fast
    form. The image tower's tokens stand at the input alone, as in GRIP. Initial values are normal
    and keyed by the parameter's name, biases zero. Images are preprocessed as for prediction, not
    augmented; the warm-up rises step by step, and the last epoch counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nameonly.backbones import Backbone
from nameonly.backbones._prompted import PromptedBackbone
from nameonly.loop import Schedule, minimise
from nameonly.ops.initial import named_normal
from nameonly.ops.losses import partial_label_loss
from nameonly.prompt_learning._pixels import PixelCache, training_set
from nameonly.types import Features, ImageSet, PromptShape, PseudoLabels, TextClassifier

__all__ = ["MultimodalContext"]


class SharedTokens(nn.Module):
    """Tokens of both towers that a transformer layer lets see each other."""

    def __init__(self, shape: PromptShape, n_context: int, width: int, seed: int) -> None:
        """Make ``n_context`` tokens a tower and a layer of ``width``, all from one seed."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # torch's own initial values are not used
            self.text = nn.Parameter(torch.empty(n_context, shape.text_width))
            self.image = nn.Parameter(torch.empty(n_context, shape.image_width))
            self.text_in = nn.Linear(shape.text_width, width)
            self.image_in = nn.Linear(shape.image_width, width)
            self.layer = nn.TransformerEncoderLayer(
                width, 1, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            self.text_out = nn.Linear(width, shape.text_width)
            self.image_out = nn.Linear(width, shape.image_width)
        spread = {"text": 0.02, "image": shape.image_width**-0.5}
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                elif parameter.dim() > 1:
                    std = spread.get(name, (3 * parameter.shape[1]) ** -0.5)
                    parameter.copy_(named_normal([name], parameter.shape, std, seed)[0])

    def forward(self) -> tuple[Float[Tensor, "m w"], Float[Tensor, "1 m w2"]]:
        """Return the text context and the image tokens."""
        joined = torch.cat([self.text_in(self.text), self.image_in(self.image)])
        context, tokens = self.layer(joined[None])[0].chunk(2)
        return self.text_out(context), self.image_out(tokens)[None]


@dataclass
class MultimodalContext:
    """Learns ``n_context`` vectors before the class name and as many behind the class token.

    Attributes:
        n_context: How many for each tower.
        width: Of the transformer that makes them.
        targets: ``"soft"`` weighs each candidate by its probability (one candidate: a hard label),
            ``"candidates"`` takes the candidate set as it is.
        schedule: GRIP's by default.
        seed: Of initial values and of the order of images.
    """

    n_context: int = 4
    width: int = 128
    targets: Literal["soft", "candidates"] = "soft"
    schedule: Schedule = field(
        default_factory=lambda: Schedule(150, 16, 0.01, 5.0, weight_decay=0.1, optimiser="sgd")
    )
    seed: int = 0
    reads: ClassVar[Literal["features", "images"]] = "images"

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    backbone_: Backbone = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("n_context", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def fit(
        self,
        inputs: Features | ImageSet,
        text: TextClassifier,
        pseudo_labels: PseudoLabels,
        backbone: Backbone,
        *,
        checkpoint: Path | None = None,
        on_epoch: Callable[[int, float], None] | None = None,
    ) -> "MultimodalContext":
        """Train tokens and transformer on the selected images; see ``PromptLearner.fit``.

        Only what the transformer makes is kept: prediction costs what it would cost without it.
        Memory: the selected images' pixels, up to 2 GiB, their targets (m x c), and one pass of the
        image tower over a batch and of the text tower over c prompts, with their gradients.

        Raises:
            ValueError: If the inputs are features, no image is selected, the pseudo-labels belong
                to other images, or an image can no longer be read.
            FloatingPointError: If the loss is not finite.
        """
        images, targets, weights = training_set(inputs, pseudo_labels, self.targets)
        pixels = PixelCache(images, backbone)
        shared = SharedTokens(backbone.prompt_shape, self.n_context, self.width, self.seed)
        encode = backbone.text_prompter(text.class_names, self.n_context)

        def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            context, tokens = shared()
            values = backbone.encode_with_tokens(pixels.read(rows), tokens)
            logits = text.logit_scale * values @ encode(context).T
            weighing = None if weights is None else weights[rows].to(values)
            return partial_label_loss(logits, targets[rows].to(values), weighing)

        minimise(
            loss,
            list(shared.parameters()),
            len(images),
            self.schedule,
            seed=self.seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
        with torch.no_grad():
            context, tokens = shared()
            learned = encode(context).cpu()
        self.text_ = TextClassifier(learned, text.logit_scale, text.class_names)
        self.backbone_ = PromptedBackbone(backbone, tokens)
        return self
