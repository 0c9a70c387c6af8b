"""Linear head: learnt from texts first, then from its own labels of the images.

Paper: Mirza et al. LaFTer: Label-Free Tuning of Zero-shot Classifier using Language and Unlabeled
    Image Collections. NeurIPS 2023, arXiv 2305.18287, section 3.
Code: https://github.com/jmiemirza/LaFTer
Differs: in feature space; visual prompts and norm layers, which the paper tunes with the head, are
    frozen here. The texts are the class weights, one mean text a class, where the paper takes many
    sentences of a language model. The noise on them is given as a length (2.26 is the paper's 0.1 a
    dimension at its 512), so that it fits any backbone; the head starts at zero, not at random.
    500 text steps for all data (400 to 600, chosen by data set, in the code). Self-training takes
    the images that pseudo-labels select, which are all of them in the paper; their labels are the
    text-trained head's own, as there, but for labels of confidence 1, which are kept. Strong views
    are ``features.views``, all of an image in every step; without views the head learns from the
    clean features, and self-training only moves it from texts to images. The learning rate falls
    along a cosine. The published code reports the best epoch on the test images; here the last one
    counts.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nameonly.loop import Schedule, minimise
from nameonly.ops.selection import filled, row_blocks
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["LinearHead"]


def noisy_texts(
    weights: Float[Tensor, "c d"], rows: Int[Tensor, " b"], noise: float, seed: int
) -> Float[Tensor, "b d"]:
    """Return text features with Gaussian noise of a mean length; row i is of class i modulo c.

    The noise is a function of the rows alone.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + int(rows[0]))
    drawn = torch.randn(len(rows), weights.shape[1], generator=generator).to(weights)
    return weights[rows % len(weights)] + drawn * noise / math.sqrt(weights.shape[1])


@dataclass
class LinearHead:
    """One linear layer: ``logits = f W^T``.

    Memory: O(c d) beyond the features and their views.

    Attributes:
        text_steps: Steps on noisy texts, each of as many texts as there are classes; 0 starts at
            the zero-shot weights instead.
        noise: Length of the noise on a text, whose own length is one.
        epochs: Passes over the images in self-training; 0 stops after the texts.
        learning_rate: Of AdamW (weight decay 0.01), in both stages.
        smoothing: Share of every label that goes to all classes, in both stages.
        batch_size: Images per step.
        views: How many strong views of every image to encode and train on; 0 trains on the
            features of the images as they are.
        seed: Of the noise and the order of images.
    """

    text_steps: int = 500
    noise: float = 2.26
    epochs: int = 50
    learning_rate: float = 5e-4
    smoothing: float = 0.1
    batch_size: int = 50
    views: int = 0
    seed: int = 0
    transductive: ClassVar[bool] = False
    view_kind: ClassVar[Literal["weak", "strong"]] = "strong"

    text_: TextClassifier = field(init=False, repr=False, compare=False)
    weights_: Float[Tensor, "c d"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        least = {"text_steps": 0, "noise": 0, "epochs": 0, "learning_rate": 0, "smoothing": 0}
        for name, low in (least | {"batch_size": 1, "views": 0}).items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.smoothing >= 1:
            raise ValueError(f"smoothing must be below 1, got {self.smoothing}")

    def fit(
        self, features: Features, text: TextClassifier, pseudo_labels: PseudoLabels
    ) -> "LinearHead":
        """Train on the texts, label the images, and train on their views.

        Args:
            features: All unlabelled images; their ``views`` are the strong views.
            text: The zero-shot classifier, left as it is.
            pseudo_labels: One row per image of ``features``, in the same order. The selected images
                are trained on; labels of confidence 1 (given ones) are kept, the others are the
                head's own.

        Raises:
            ValueError: If no image is selected, or the pseudo-labels belong to other images.
        """
        pseudo_labels.check_fits(features)
        weights = self._learn_texts(text)
        order = features.content_order()
        rows = order[pseudo_labels.selected.cpu()[order]]
        blocks = row_blocks(len(rows), len(weights))
        best = ((b, (features.values[rows[b]] @ weights.T).argmax(dim=1)) for b in blocks)
        said = filled(torch.empty_like(rows), best)
        known = pseudo_labels.confidence[rows] >= 1.0
        labels = torch.where(known, pseudo_labels.labels[rows], said)
        views = features.values[None] if features.views is None else features.views
        self.text_, self.weights_ = text, self._learn_images(weights, views, rows, labels)
        return self

    def _learn_texts(self, text: TextClassifier) -> Float[Tensor, "c d"]:
        if self.text_steps == 0:
            return text.logit_scale * text.weights
        # in order of name, so that no order of classes changes a batch
        by_name = sorted(range(len(text.weights)), key=text.class_names.__getitem__)
        texts = text.weights[by_name]
        head = nn.Parameter(torch.zeros_like(texts))
        c = len(texts)

        def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            noisy = noisy_texts(texts, rows, self.noise, self.seed)
            labels = (rows % c).to(noisy.device)
            return cross_entropy(noisy @ head.T, labels, label_smoothing=self.smoothing)

        schedule = Schedule(1, c, self.learning_rate, weight_decay=0.01)
        minimise(loss, [head], c * self.text_steps, schedule, seed=self.seed)
        weights = torch.empty_like(texts)
        weights[by_name] = head.detach()
        return weights

    def _learn_images(
        self,
        weights: Float[Tensor, "c d"],
        views: Float[Tensor, "v n d"],
        images: Int[Tensor, " m"],
        labels: Int[Tensor, " m"],
    ) -> Float[Tensor, "c d"]:
        head = nn.Parameter(weights.clone())

        def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            logits = (views[:, images[rows]] @ head.T).flatten(0, 1)
            targets = labels[rows].repeat(len(views))
            return cross_entropy(logits, targets, label_smoothing=self.smoothing)

        schedule = Schedule(self.epochs, self.batch_size, self.learning_rate, weight_decay=0.01)
        minimise(loss, [head], len(images), schedule, seed=self.seed)
        return head.detach()

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the head's logits.

        Raises:
            ValueError: Before ``fit``, or if the features have another dimension.
        """
        if not hasattr(self, "weights_"):
            raise ValueError("this adapter has learnt nothing yet; call fit first")
        return TextClassifier(self.weights_, 1.0, self.text_.class_names).predict_logits(features)
