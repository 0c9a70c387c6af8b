"""What a recipe is given and what it hands back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from nameonly.backbones import Backbone
from nameonly.engines import Engine
from nameonly.ops.mixing import mix_probs
from nameonly.synthesis.support_set import SupportSet
from nameonly.types import Features, ImageSet, LabelSpace, PseudoLabels, Scorer, TextClassifier

OnProgress = Callable[[int, int], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Support:
    """Synthetic images that are learnt from.

    Attributes:
        features: One row per image.
        images: In the same order.
        labels: The class that each was made for.
        settings: What they count.
        rows: How each was made, see ``synthetic.py``.
        folder: That they lie in.
    """

    features: Features
    images: ImageSet
    labels: Int[Tensor, " m"]
    settings: SupportSet
    rows: tuple[dict[str, Any], ...]
    folder: Path


@dataclass(frozen=True)
class Task:
    """Everything that a recipe may learn from. No field could carry ground truth.

    Attributes:
        features: One row per distinct image.
        text: The zero-shot classifier.
        label_space: The classes, in the order of the columns.
        given: Known labels, -1 = none. They are rows of a run, not another kind of run.
        backbone: Made the features; None where they are the user's own.
        images: The images themselves, in the order of ``features``; None where there are none.
        start: Logits that the first pseudo-labels are made from where they are not the text's own:
            those of an ensemble of backbones.
        auxiliary: Probabilities of another classifier that a scorer's are mixed with before images
            are labelled by them (AiR).
        auxiliary_weight: Weight of these against the scorer's.
        support: Synthetic images that prompts also learn from.
        cache: Folder of the feature stores; None keeps nothing.
        checkpoints: Folder in which training leaves its state and finds it again; None for none.
        engine: Encodes and draws on other machines; None leaves all to this process.
        on_progress: Called with done and total inside long stages.
        on_note: Called with a line for a person: what is waited for, how long something takes.
    """

    features: Features
    text: TextClassifier
    label_space: LabelSpace
    given: Int[Tensor, " n"] | None = None
    backbone: Backbone | None = None
    images: ImageSet | None = None
    start: Float[Tensor, "n c"] | None = None
    auxiliary: Float[Tensor, "n c"] | None = None
    auxiliary_weight: float = 1.0
    support: Support | None = None
    cache: Path | None = None
    checkpoints: Path | None = None
    engine: Engine | None = None
    on_progress: OnProgress | None = None
    on_note: OnNote | None = None

    def __post_init__(self) -> None:
        n = len(self.features)
        if self.given is not None and len(self.given) != n:
            raise ValueError(f"{len(self.given)} given labels for {n} images")
        if self.images is not None and self.images.ids != self.features.ids:
            raise ValueError("images and features are of different images or orders")

    def note(self, text: str) -> None:
        """Tell a person, where one listens."""
        if self.on_note is not None:
            self.on_note(text)

    def start_logits(self) -> Float[Tensor, "n c"]:
        """Return the scores that the first pseudo-labels are made from."""
        own = self.text.predict_logits(self.features) if self.start is None else self.start
        return self.mixed(own)

    def mixed(self, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return what images are labelled by: a scorer's logits, or the mixture's logarithm."""
        if self.auxiliary is None:
            return logits
        return mix_probs(logits.softmax(dim=1), self.auxiliary, self.auxiliary_weight).log()


@dataclass(frozen=True)
class Adapted:
    """What a recipe hands back.

    Attributes:
        scorer: Scores any image; the zero-shot classifier itself where nothing was adapted.
        pseudo_labels: What it was fitted on, None where nothing was.
        logits: Scores of the very images it was fitted on, where the method is transductive and
            says more of them than the scorer would.
        backbone: The backbone that the scorer's features come from, where the method changed it.
        support: The synthetic images that it learnt from, where there were some.
        candidates: Where recipes were tried, what is known of each, and which was chosen.
        task: Where it was chosen among others, what it saw: its backbone, its texts.
    """

    scorer: Scorer
    pseudo_labels: PseudoLabels | None = None
    logits: Float[Tensor, "n c"] | None = None
    backbone: Backbone | None = None
    support: Support | None = None
    candidates: tuple[dict[str, Any], ...] = ()
    task: Task | None = None
