"""Image classifier: any architecture of timm, trained on synthetic or pseudo-labelled images.

Paper: Shipard, Wiliem, Thanh, Xiang, Fookes. Diversity is Definitely Needed: Improving
    Model-Agnostic Zero-shot Classification via Stable Diffusion. CVPR Workshops 2023, arXiv
    2302.03298, section 4.
Differs: the last epoch counts, where the published run kept the one that was best on real test
    images. Crops and flips are cut from images that are decoded once and kept an eighth larger than
    the crops. Images of a class count alike whatever their number, which changes nothing on the
    paper's sets. ``MODERN`` is not the paper's: it is what networks are trained with since
    (RandAugment, mixup, label smoothing, averaged weights; Wightman et al., arXiv 2110.00476), with
    the soft labels of He et al. (arXiv 2210.07574) where the images have them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nameonly.backbones import Backbone
from nameonly.backbones._devices import choose_device, choose_dtype
from nameonly.backbones._network import (
    IMAGENET,
    NetworkBackbone,
    NetworkScorer,
    build_network,
    normalised,
    pretrained_weights,
)
from nameonly.images import Quarantined
from nameonly.loop import Schedule, Trained, minimise, with_short_warmup
from nameonly.ops.averaging import RunningAverage
from nameonly.ops.chance import batch_generator
from nameonly.training._pixels import (
    StoredPixels,
    cut,
    random_crops,
    store_pixels,
    with_operations,
)
from nameonly.training._targets import image_weights, mix, readable, training_targets
from nameonly.types import ImageSet, PseudoLabels, Scorer

__all__ = ["ImageClassifier"]

PAPER = Schedule(epochs=50, batch_size=64, learning_rate=1e-4, weight_decay=0.9)
# fields that differ from the paper's
MODERN: dict[str, Any] = {
    "schedule.learning_rate": 1e-3,
    "schedule.weight_decay": 0.05,
    "schedule.warmup_epochs": 5.0,
    "schedule.clip": 1.0,
    "schedule.spare_vectors": True,
    "operations": 2,
    "mixup": 0.2,
    "smoothing": 0.1,
    "average": 0.999,
    "softness": 0.5,
}


@dataclass
class ImageClassifier:
    """A network, trained from its first layer to its last.

    Memory: the network three times (four with ``average``) and a batch; decoded images are mapped
    from a file without a name in the checkpoint's folder, or the system's for temporary files.

    Attributes:
        architecture: As timm names it.
        options: Further arguments of ``timm.create_model``, such as ``{"drop_path_rate": 0.1}``.
        pretrained: Empty to start from random weights; ``"timm"`` for the weights that timm's hub
            has for the architecture; or a safetensors file of such weights.
        size: Side of the images that the network sees.
        schedule: Length, rate and optimiser; a warm-up longer than a quarter of it is cut to that.
        operations: RandAugment's operations on every image; 0 for none.
        magnitude: Theirs, in [0, 1].
        least_area: Smallest share of an image that a crop shows.
        flip: Mirror every other image; not for what has a left and a right, such as digits.
        mixup: Alpha of mixup's Beta distribution; 0 for none.
        smoothing: Share of every target that goes to all classes.
        softness: Share of every target that the labels' probabilities have, against their classes.
        average: Decay of the running average of the weights that is kept; 0 keeps the last.
        balanced: Let all classes weigh the same.
        device: ``"auto"``, or what ``torch.device`` takes.
        dtype: Of the products in training, by autocast; weights stay in float32.
        seed: Of the first weights, the order of images, and all chance.
    """

    architecture: str = "resnet50"
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: str = ""
    size: int = 224
    schedule: Schedule = PAPER
    operations: int = 0
    magnitude: float = 0.3
    least_area: float = 0.08
    flip: bool = True
    mixup: float = 0.0
    smoothing: float = 0.0
    softness: float = 0.0
    average: float = 0.0
    balanced: bool = True
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    backbone_: Backbone = field(init=False, repr=False, compare=False)
    scorer_: Scorer = field(init=False, repr=False, compare=False)
    losses_: list[float] = field(init=False, repr=False, compare=False)
    unreadable_: tuple[Quarantined, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping):
            raise ValueError(f"options must be a JSON object, got {self.options!r}")
        for name in ("magnitude", "smoothing", "softness", "average", "least_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name, low in {"size": 1, "operations": 0, "mixup": 0}.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if 1 in (self.average, self.smoothing) or self.least_area == 0:
            raise ValueError("average and smoothing must be below 1, and least_area above 0")

    def check(self, n_classes: int) -> None:
        """Refuse what cannot be trained, before the long work of making images to train on.

        Raises:
            ValueError: If timm is missing, or has no such architecture for this size.
        """
        self._begin(n_classes)

    def fit(
        self,
        images: ImageSet,
        pseudo_labels: PseudoLabels,
        class_names: Sequence[str],
        *,
        checkpoint: Path | None = None,
        on_epoch: Callable[[int, float], None] | None = None,
        on_decode: Callable[[int, int], None] | None = None,
    ) -> "ImageClassifier":
        """Train on the selected images; those that cannot be read are left out and told.

        Args:
            images: What to learn from.
            pseudo_labels: In the same order; their ``weights`` count.
            class_names: Of the columns.
            checkpoint: File of the training's state, resumed from where it exists.
            on_epoch: Called after every epoch with its number and mean loss.
            on_decode: Called before, with the images decoded so far and in all.

        Raises:
            ValueError: If no image is selected, none of a class can be read, timm is missing, or it
                has no such architecture for this size.
            FloatingPointError: If the loss is not finite.
            OSError: If there is no room for the decoded images or the checkpoint.
        """
        pseudo_labels.check_fits(images)
        selected: list[int] = pseudo_labels.selected.nonzero()[:, 0].tolist()
        chosen = torch.tensor(sorted(selected, key=images.ids.__getitem__))
        network, mean, std = self._begin(len(class_names))
        folder = checkpoint and checkpoint.parent
        stored = store_pixels(images.subset(chosen.tolist()), self.size, folder, on_decode)
        labels = readable(pseudo_labels.subset(chosen), stored.rows, class_names)
        targets = training_targets(labels, self.softness, self.smoothing)
        targets = targets * image_weights(labels, self.balanced)[:, None]
        parameters = list(network.parameters())
        changed = [*parameters, *network.buffers()]
        average = RunningAverage(changed, self.average) if self.average else None
        self.losses_ = minimise(
            self._loss(network, stored, targets, (mean, std)),
            Trained(
                parameters,
                [*network.buffers(), *(average.state if average else ())],
                average.update if average else None,
            ),
            len(targets),
            with_short_warmup(self.schedule),
            seed=self.seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
        if average is not None:
            average.put()
        state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
        self.unreadable_ = stored.unreadable
        self.scorer_ = NetworkScorer(tuple(class_names))
        self.backbone_ = NetworkBackbone(
            self.architecture,
            len(class_names),
            self.size,
            state,
            mean,
            std,
            self.options,
            device=self.device,
        )
        return self

    def _begin(self, n_classes: int) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
        """Return the network before training, and what its images are normalised by."""
        weights = pretrained_weights(self.architecture, self.pretrained)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = build_network(self.architecture, n_classes, self.size, self.options, weights)
        config: dict[str, Any] = getattr(network, "pretrained_cfg", {})
        mean, std = config.get("mean", IMAGENET[0]), config.get("std", IMAGENET[1])
        device = choose_device(self.device)
        return network.to(device).train(), tuple(mean), tuple(std)

    def _loss(
        self,
        network: nn.Module,
        stored: StoredPixels,
        targets: Float[Tensor, "n c"],
        statistics: tuple[tuple[float, ...], tuple[float, ...]],
    ) -> Callable[[Int[Tensor, " b"]], Float[Tensor, ""]]:
        """Return the cross-entropy of a batch, whose chance follows from its rows alone."""
        device = choose_device(self.device)
        dtype = choose_dtype(self.dtype, device)
        cuda = [device] if device.type == "cuda" else []

        def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
            generator = batch_generator(rows, self.seed)
            # batch norms need two images
            rows = rows.repeat(2) if len(rows) == 1 else rows
            found = stored.batch(rows)
            if self.operations:
                found = with_operations(found, self.operations, self.magnitude, generator)
            maps = random_crops(stored.aspects[rows], self.least_area, self.flip, generator)
            pixels = cut(torch.from_numpy(found).to(device), maps, self.size)
            wanted = targets[rows].to(device)
            if self.mixup:
                pixels, wanted = mix(pixels, wanted, self.mixup, generator)
            with (
                torch.random.fork_rng(devices=cuda),
                torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
            ):
                torch.manual_seed(generator.initial_seed())
                logits = network(normalised(pixels, *statistics))
            return cross_entropy(logits.float(), wanted)

        return loss
