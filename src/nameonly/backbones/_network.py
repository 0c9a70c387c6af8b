"""A trained image classifier of timm, in the two halves that a ``Classifier`` is made of.

The network's logits stand as its features, whatever its last layers are, and its scorer reads them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from safetensors import safe_open
from torch import Tensor, nn

from nameonly.backbones._devices import (
    choose_device,
    choose_dtype,
    encode_in_batches,
    in_passes,
)
from nameonly.backbones._hub import hub_folder
from nameonly.backbones._image_only import ImageOnly
from nameonly.extras import import_extra
from nameonly.types import Features

PREFIX = "network."
# mean and standard deviation of the channels
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def build_network(
    architecture: str,
    n_classes: int,
    size: int,
    options: Mapping[str, Any],
    weights: Path | None = None,
) -> nn.Module:
    """Return a network of timm, of random weights or of a file's.

    Args:
        architecture: As ``timm.list_models()`` has it.
        n_classes: Outputs.
        size: Side of the square images.
        options: Further arguments of ``timm.create_model``.
        weights: A safetensors file of another training: all but the last layer is taken from it,
            whatever its number of classes.

    Raises:
        ValueError: If timm is missing, has no such architecture, or this one does not take images
            of the size or gives other outputs than one a class; or nothing of the file is its.
    """
    timm = import_extra("timm", "timm", "train")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        raise ValueError(
            f"timm has no architecture {architecture!r}; "
            + (f"did you mean {' or '.join(map(repr, near))}? " if near else "")
            + "timm.list_models() lists them, resnet50 is one"
        )
    chosen: dict[str, Any] = {**options, "num_classes": n_classes}
    if weights is not None:
        # timm takes the last layer too where the number of classes is that of the file
        overlay = {"file": str(weights), "num_classes": -1}
        chosen |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        network = _create(timm, architecture, size, chosen)
        with torch.no_grad():
            shape = tuple(network.eval()(torch.zeros(2, 3, size, size)).shape)
    except Exception as error:  # every architecture has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{architecture} cannot be made for {n_classes} classes and images of {size} x {size}"
            + (f" from {weights}" if weights else "")
            + f": {reason}"
        ) from error
    if shape != (2, n_classes):
        raise ValueError(
            f"{architecture} gives outputs of shape {shape} for two images, expected "
            f"{(2, n_classes)}; choose another architecture"
        )
    if weights is not None and not _takes_from(network, weights):
        raise ValueError(
            f"{weights} holds nothing that {architecture} could take; choose weights of the same "
            "architecture"
        )
    found: nn.Module = network
    return found


def _sums(tensors: Iterable[Tensor]) -> set[tuple[int, float]]:
    """Return the length and the sum of all tensors that are not of one value throughout.

    By these a tensor is known under any name; timm renames much of what it loads.
    """
    flat = (tensor.flatten().double() for tensor in tensors)
    return {(len(one), float(one.sum())) for one in flat if len(one) and one.min() < one.max()}


def _takes_from(network: nn.Module, weights: Path) -> bool:
    """Return whether a tensor of the file is in the network; timm is silent where none fits."""
    with safe_open(weights, framework="pt") as file:
        held = _sums(file.get_tensor(name) for name in list(file.keys()))
    return not held.isdisjoint(_sums(network.state_dict().values()))


def pretrained_weights(architecture: str, pretrained: str) -> Path | None:
    """Return the file of weights to start from, None for random ones.

    Args:
        architecture: Of timm.
        pretrained: Empty, ``"timm"`` for those of timm's hub, or a safetensors file.

    Raises:
        ValueError: If there is no such file, or the hub does not give the weights as safetensors.
    """
    if not pretrained:
        return None
    if pretrained == "timm":
        timm = import_extra("timm", "timm", "train")
        config = timm.get_pretrained_cfg(architecture)
        if config is None or not config.hf_hub_id:
            raise ValueError(f"timm's hub has no weights for {architecture!r}")
        folder = hub_folder(config.hf_hub_id, "main", ["model.safetensors"])
        path = folder / "model.safetensors"
    else:
        path = Path(pretrained).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(
            f"no pretrained weights at {path}: expected a .safetensors file, or 'timm' for those "
            "of timm's hub"
        )
    return path


def _create(timm: Any, architecture: str, size: int, options: dict[str, Any]) -> Any:
    try:  # transformers must know the size, convolutions do not take it
        return timm.create_model(architecture, img_size=size, **options)
    except TypeError:
        return timm.create_model(architecture, **options)


@dataclass(frozen=True, eq=False)
class NetworkBackbone(ImageOnly):
    """A network and its weights; its features are its logits.

    Attributes:
        architecture: Of timm.
        n_classes: Outputs.
        size: Side of the square that images are cropped and resized to.
        state: The weights, on the CPU.
        mean: Of the channels, in [0, 1]; taken from images.
        std: What they are divided by thereafter.
        options: Further arguments of ``timm.create_model``.
        device: ``"auto"``, or what ``torch.device`` takes.
        dtype: What the network computes in.
        batch_size: Images encoded at a time.
    """

    architecture: str
    n_classes: int
    size: int
    state: Mapping[str, Tensor] = field(repr=False)
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    batch_size: int = 64

    note: ClassVar[str] = ""
    logit_scale: ClassVar[float] = 1.0
    refusal: ClassVar[str] = (
        "this classifier is a network of its own, which knows no texts; choose a CLIP or SigLIP "
        "for what reads class names"
    )

    @cached_property
    def digest(self) -> str:
        """A hash of the weights."""
        found = hashlib.blake2b(digest_size=8)
        for key in sorted(self.state):
            found.update(key.encode())
            found.update(self.state[key].contiguous().view(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()

    @property
    def name(self) -> str:
        """The architecture and the weights' hash."""
        return f"{self.architecture}-{self.digest}"

    @property
    def dim(self) -> int:
        """Number of classes."""
        return self.n_classes

    @cached_property
    def resolved_device(self) -> torch.device:
        """The device in use."""
        return choose_device(self.device)

    @property
    def image_key(self) -> Mapping[str, str]:
        """The network, the size of images and the dtype."""
        dtype = choose_dtype(self.dtype, self.resolved_device)
        return {"backbone": self.name, "revision": f"{self.size}", "dtype": str(dtype)}

    @cached_property
    def network(self) -> nn.Module:
        """The network, made at first use.

        Raises:
            ValueError: If timm is missing, or the weights are of another architecture.
        """
        network = build_network(self.architecture, self.n_classes, self.size, self.options)
        try:
            network.load_state_dict(dict(self.state))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ValueError(
                f"the weights do not fit {self.architecture}: {reason}; this timm may be another "
                "than the one that it was trained with"
            ) from error
        dtype = choose_dtype(self.dtype, self.resolved_device)
        return network.to(self.resolved_device, dtype).eval().requires_grad_(False)

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """Crop the middle square of an RGB image, resize and normalise it."""
        square = torch.from_numpy(middle_square(image, self.size)).permute(2, 0, 1)
        return normalised(square[None], self.mean, self.std)[0]

    @torch.no_grad()
    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return the logits of preprocessed images, in float32 on the CPU.

        Raises:
            FloatingPointError: If one is not finite.
        """
        device, dtype = self.resolved_device, choose_dtype(self.dtype, self.resolved_device)

        def forward(part: Tensor) -> Tensor:
            found: Tensor = self.network(part.to(device, dtype)).float().cpu()
            return found

        logits = in_passes(forward, pixels, device, self.network)
        if not torch.isfinite(logits).all():
            raise FloatingPointError(f"{self.name} gave values that are not finite in {dtype}")
        return logits

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Preprocess RGB images and return their logits, ``batch_size`` at a time."""
        return encode_in_batches(images, self)

    def reference(self) -> dict[str, object]:
        """Return what it is; the weights are saved beside it."""
        return {
            "method": "network",
            "name": self.name,
            "architecture": self.architecture,
            "n_classes": self.n_classes,
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "options": dict(self.options),
            "dtype": self.dtype,
            "fingerprint": self.digest,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights under the names that a classifier's file has for them."""
        return {PREFIX + key: value.contiguous() for key, value in self.state.items()}


def load_network(
    reference: Mapping[str, Any], options: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> NetworkBackbone:
    """Return a saved network.

    Args:
        reference: What ``NetworkBackbone.reference`` gave.
        options: device, dtype or batch_size that are to be others here.
        tensors: Of the file, weights among them.

    Raises:
        ValueError: If another model is asked for, or the weights are not those that were saved.
    """
    if "model" in options:
        raise ValueError("this classifier is a network of its own: leave --backbone out")
    state = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
    chosen = {"dtype": reference["dtype"], **options}
    found = NetworkBackbone(
        reference["architecture"],
        reference["n_classes"],
        reference["size"],
        state,
        tuple(reference["mean"]),
        tuple(reference["std"]),
        reference["options"],
        **chosen,
    )
    if found.digest != reference["fingerprint"]:
        raise ValueError("the network's weights are not those that were saved")
    return found


@dataclass(frozen=True)
class NetworkScorer:
    """Reads the logits that a network's features are.

    Attributes:
        class_names: One for each output.
    """

    class_names: tuple[str, ...]

    def predict_logits(self, features: Features) -> Float[Tensor, "n c"]:
        """Return the features, which are logits already.

        Raises:
            ValueError: If there is not one a class.
        """
        if features.values.shape[1] != len(self.class_names):
            raise ValueError(
                f"features of {features.backbone!r} have {features.values.shape[1]} dimensions, "
                f"expected one for each of {len(self.class_names)} classes"
            )
        return features.values


def middle_square(image: Image.Image, size: int) -> np.ndarray:
    """Return the middle square of an RGB image at a size, as bytes (size, size, 3)."""
    return np.array(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def normalised(
    pixels: Tensor, mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "n 3 h w"]:
    """Return bytes, or floats of 0 to 255, as the network takes them."""
    centre = torch.tensor(mean, device=pixels.device).view(3, 1, 1)
    width = torch.tensor(std, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - centre) / width
