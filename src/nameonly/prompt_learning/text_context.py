"""Text context: learned vectors before the class name (CoOp), trained on pseudo-labels.

Paper: Zhou, Yang, Loy, Liu. Learning to Prompt for Vision-Language Models. IJCV 2022,
    arXiv 2109.01134. Without labels: Huang, Chu, Wei (UPL), arXiv 2204.03649.
Code: https://github.com/KaiyangZhou/CoOp, https://github.com/tonyhuang2022/UPL
Differs: trains on cached features, or on cached augmented views of which every step draws one per
    image, instead of encoding augmented images anew; the prompt ends with the name, without a full
    stop; the warm-up rises linearly, step by step. Several prompts (UPL's 16 seeds) are joined by
    the mean of their unit weights, which is the mean of their logits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nameonly.backbones import Backbone
from nameonly.loop import Schedule, minimise
from nameonly.ops.chance import batch_generator
from nameonly.ops.initial import named_normal
from nameonly.ops.losses import partial_label_loss
from nameonly.types import Features, ImageSet, PseudoLabels, TextClassifier

__all__ = ["TextContext"]


def drawn_views(features: Features, rows: Int[Tensor, " b"], seed: int) -> Float[Tensor, "b d"]:
    """Return one view per row, drawn by the rows of the batch; the features where there are none.

    A draw that depends on nothing but the batch is the same in a run that resumes.
    """
    if features.views is None:
        return features.values[rows]
    generator = batch_generator(rows, seed)
    return features.views[torch.randint(len(features.views), rows.shape, generator=generator), rows]


@dataclass
class TextContext:
    """Learns ``n_context`` vectors that stand before every class name.

    Attributes:
        n_context: How many vectors; the phrase's own number where ``init`` is given.
        class_specific: Whether every class has its own vectors.
        init: Phrase whose token vectors the context starts from; empty starts at random.
        targets: ``"soft"`` weighs each candidate by its probability (one candidate: a hard label),
            ``"candidates"`` takes the candidate set as it is.
        n_prompts: How many prompts are trained from different seeds and joined.
        views: How many augmented views of every image to encode and train on; 0 trains on the
            features of the images as they are.
        schedule: UPL's by default.
        seed: Of initial values and of the order of images.
    """

    n_context: int = 16
    class_specific: bool = False
    init: str = ""
    targets: Literal["soft", "candidates"] = "soft"
    n_prompts: int = 1
    views: int = 0
    schedule: Schedule = field(
        default_factory=lambda: Schedule(50, 32, 2e-3, 1.0, weight_decay=5e-4, optimiser="sgd")
    )
    seed: int = 0
    reads: ClassVar[Literal["features", "images"]] = "features"
    view_kind: ClassVar[Literal["weak", "strong"]] = "weak"

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    backbone_: Backbone = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("n_context", "n_prompts"):
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
    ) -> "TextContext":
        """Train the context on the selected images; see ``PromptLearner.fit``.

        Memory: the selected features (m x d), their targets (m x c), and one pass of the text tower
        over c prompts with its gradients.

        Raises:
            ValueError: If the inputs are images or another backbone's features, no image is
                selected, or the pseudo-labels belong to other images.
            FloatingPointError: If the loss is not finite.
        """
        if not isinstance(inputs, Features):
            raise ValueError("text prompts train on features; pass the images' features")
        if inputs.backbone != backbone.name:
            raise ValueError(
                f"features of {inputs.backbone!r}, but the prompts train through "
                f"{backbone.name!r}; use one backbone for both"
            )
        pseudo_labels.check_fits(inputs)
        order = inputs.content_order()
        chosen = order[pseudo_labels.selected.cpu()[order]]
        labels, selected = pseudo_labels.subset(chosen), inputs.subset(chosen)
        targets = labels.targets if self.targets == "soft" else labels.candidates.float()
        start = [self._start(text, backbone, i) for i in range(self.n_prompts)]
        encode = backbone.text_prompter(text.class_names, start[0].shape[-2])
        weighing, joined = labels.weights, []
        for i, context in enumerate(start):
            parameter = nn.Parameter(context)

            def loss(rows: Int[Tensor, " b"], p: nn.Parameter = parameter) -> Float[Tensor, ""]:
                learned = encode(p)
                values = drawn_views(selected, rows, self.seed).to(learned.device)
                logits = text.logit_scale * values @ learned.T
                weights = None if weighing is None else weighing[rows].to(learned.device)
                return partial_label_loss(logits, targets[rows].to(learned.device), weights)

            minimise(
                loss,
                [parameter],
                len(chosen),
                self.schedule,
                seed=self.seed + i,
                checkpoint=checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{i}"),
                on_epoch=on_epoch,
            )
            with torch.no_grad():
                joined.append(encode(parameter).cpu())
        # the mean of one prompt is that prompt to the bit
        mean = torch.stack(joined).mean(dim=0)
        self.text_ = TextClassifier(mean, text.logit_scale, text.class_names)
        self.backbone_ = backbone
        return self

    def _start(
        self, text: TextClassifier, backbone: Backbone, prompt: int
    ) -> Float[Tensor, "*c m w"]:
        names = text.class_names if self.class_specific else ("",)
        if self.init:
            phrase = backbone.embed_phrase(self.init)
            noise = 0.0 if prompt == 0 else 0.02
            start = phrase + named_normal(names, phrase.shape, noise, self.seed + prompt)
        else:
            shape = (self.n_context, backbone.prompt_shape.text_width)
            start = named_normal(names, shape, 0.02, self.seed + prompt)
        return start if self.class_specific else start[0]
