"""A network in an ONNX file that ``export/onnx.py`` wrote, run by onnxruntime alone."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nameonly.backbones._devices import encode_in_batches
from nameonly.backbones._image_only import ImageOnly
from nameonly.backbones._network import middle_square
from nameonly.extras import import_extra

# what the file says of itself
CLASS_NAMES, SIZE = "nameonly.class_names", "nameonly.size"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class OnnxBackbone(ImageOnly):
    """Bytes of images in, the logarithms of class probabilities out.

    Attributes:
        path: The file.
        device: ``"cpu"``, ``"cuda"`` where onnxruntime has it, or ``"auto"``: the CPU.
        batch_size: Images per run.
    """

    path: Path
    device: str = "auto"
    batch_size: int = 64

    note: ClassVar[str] = ""
    logit_scale: ClassVar[float] = 1.0
    refusal: ClassVar[str] = (
        "this classifier is a network in an ONNX file, which knows no texts; choose a CLIP or "
        "SigLIP for what reads class names"
    )

    @cached_property
    def session(self) -> Any:
        """The loaded file.

        Raises:
            ValueError: If onnxruntime or the file is missing, it is damaged, or not one of ours.
        """
        runtime = import_extra("onnxruntime", "onnxruntime", "train")
        wanted = PROVIDERS.get("cpu" if self.device == "auto" else self.device)
        if wanted not in runtime.get_available_providers():
            raise ValueError(
                f"onnxruntime cannot use device {self.device!r} here; leave --device out for the "
                "CPU"
            )
        if not self.path.is_file():
            raise ValueError(f"no ONNX file at {self.path}")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            session = runtime.InferenceSession(str(self.path), options, providers=[wanted])
        except Exception as error:  # onnxruntime raises its own kinds, which derive from this one
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{self.path} cannot be read as an ONNX file: {reason}") from error
        if CLASS_NAMES not in session.get_modelmeta().custom_metadata_map:
            raise ValueError(
                f"{self.path} does not name its classes: it is none of the files that "
                "`nameonly train` writes"
            )
        return session

    @cached_property
    def _about(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        return found

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the columns."""
        return tuple(json.loads(self._about[CLASS_NAMES]))

    @cached_property
    def size(self) -> int:
        """Side of the square that images are cropped and resized to."""
        return int(self._about[SIZE])

    @cached_property
    def digest(self) -> str:
        """A hash of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:16]

    @property
    def name(self) -> str:
        """The file's name and hash."""
        return f"{self.path.name}-{self.digest}"

    @property
    def dim(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_key(self) -> Mapping[str, str]:
        """The file."""
        return {"backbone": self.name, "revision": f"{self.size}", "dtype": "float32"}

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """Crop the middle square of an RGB image and resize it; of 0 to 255."""
        return torch.from_numpy(middle_square(image, self.size)).permute(2, 0, 1).float()

    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return the logarithms of the probabilities.

        Raises:
            FloatingPointError: If a probability is not finite.
        """
        given = pixels.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        (probs,) = self.session.run(["probabilities"], {"pixels": np.ascontiguousarray(given)})
        logits = torch.from_numpy(probs).clamp(min=torch.finfo(torch.float32).tiny).log()
        if not torch.isfinite(logits).all():
            raise FloatingPointError(f"{self.name} gave probabilities that are not finite")
        return logits

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Preprocess RGB images and run them, ``batch_size`` at a time."""
        return encode_in_batches(images, self)

    def reference(self) -> dict[str, object]:
        """Return what it is."""
        return {"method": "onnx", "name": self.name, "model": str(self.path), "size": self.size} | {
            "fingerprint": self.digest
        }


def open_onnx(path: Path, options: Mapping[str, Any]) -> OnnxBackbone:
    """Return the network of a file, which is not read yet.

    Args:
        path: Of the file.
        options: device or batch_size.

    Raises:
        ValueError: If something is to be changed that the file fixes.
    """
    fixed = sorted(set(options) - {"device", "batch_size"})
    if fixed:
        raise ValueError(
            f"an ONNX file is a whole network, whose {' and '.join(fixed)} cannot be chosen; leave "
            "that out, or take the classifier's folder"
        )
    return OnnxBackbone(path, **options)
