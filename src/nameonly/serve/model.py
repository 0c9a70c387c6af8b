"""A classifier as the server runs it: bytes to pixels in many threads, pixels to answers in one."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nameonly import methods
from nameonly.classifier import Classifier, scorer_name
from nameonly.sources.decoding import FORMATS, BadImageError, decode
from nameonly.types import Features


@dataclass(frozen=True)
class Scored:
    """What the classifier says of one image.

    Attributes:
        label: Column of the class, -1 where the decision abstained.
        probs: Of the classes.
    """

    label: int
    probs: Float[np.ndarray, " c"]

    def top(self, n: int) -> list[int]:
        """Return the columns of the n most probable classes, the most probable first."""
        found: list[int] = np.argsort(-self.probs, kind="stable")[:n].tolist()
        return found


def check_size(data: bytes, max_pixels: int, side: int) -> None:
    """Refuse an image that is too large by its header, before any pixel is decoded.

    Args:
        data: The encoded image.
        max_pixels: That it may hold, as it comes and resized.
        side: What models resize the shorter side to: a line of one pixel becomes a vast strip.

    Raises:
        BadImageError: If it holds more pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"too large: {error}") from error
    except Exception:
        return  # no header that Pillow can read; a full decode says what is wrong
    if width * height > max_pixels:
        raise BadImageError(
            f"too large: {width} x {height} pixels, at most {max_pixels} are taken here"
        )
    if side * side * max(width, height) > max_pixels * min(width, height):
        raise BadImageError(
            f"too long and narrow: {width} x {height} pixels are more than {max_pixels} once the "
            f"shorter side is resized to {side}"
        )


class ServedClassifier:
    """Gives the answers of ``Classifier.predict``, in two steps that different threads take.

    Attributes:
        classifier: What is served.
        max_pixels: Most pixels of an image.
    """

    def __init__(self, classifier: Classifier, max_pixels: int) -> None:
        self.classifier = classifier
        self.max_pixels = max_pixels

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the columns."""
        return self.classifier.label_space.class_names

    def read(self, data: bytes) -> Float[Tensor, "3 h w"]:
        """Decode an image and preprocess it for the model.

        Raises:
            BadImageError: If it is none, or too large.
        """
        check_size(data, self.max_pixels, self._known.shape[-1])
        return self.classifier.backbone.preprocess(decode(data))

    @torch.inference_mode()
    def score(self, inputs: Sequence[Tensor]) -> list[Scored]:
        """Classify preprocessed images in one forward pass.

        Raises:
            ValueError: If a score is not finite, or memory runs out.
            FloatingPointError: If a feature is not finite.
        """
        backbone = self.classifier.backbone
        values = backbone.encode_pixels(torch.stack(list(inputs)))
        ids = tuple(map(str, range(len(inputs))))
        found = self.classifier.predict(Features(values, ids, backbone.name))
        rows = found.probs.numpy()
        return [Scored(label, row) for label, row in zip(found.labels.tolist(), rows, strict=True)]

    @cached_property
    def _known(self) -> Float[Tensor, "3 h w"]:
        """A grey square, preprocessed."""
        return self.classifier.backbone.preprocess(Image.new("RGB", (64, 64), "grey"))

    def probe(self) -> None:
        """Classify a grey square: what fails on this fails on everything."""
        self.score([self._known])

    def warm_up(self) -> None:
        """Load the weights and try the model, so that no request waits for that.

        Raises:
            ValueError: If the classifier cannot be served here.
        """
        self.classifier.check_weights()
        try:
            self.probe()
        except Exception as error:
            raise ValueError(
                f"this classifier cannot be served: it fails on a plain grey image ({error})"
            ) from error

    def facts(self) -> dict[str, Any]:
        """Return what the model is, in values of JSON."""
        found, backbone = self.classifier, self.classifier.backbone
        local = Path(backbone.name).expanduser()
        return {
            "recipe": str(found.made.get("recipe", "")),
            "title": str(found.made.get("title", "")),
            # where a model lies on this machine is no one's business
            "backbone": local.name if local.is_absolute() else backbone.name,
            "scorer": scorer_name(found.scorer),
            "decision": methods.name_of(found.decision),
            "classes": len(self.class_names),
            "device": str(getattr(backbone, "resolved_device", "cpu")),
            "note": backbone.note,
            "nameonly": version("nameonly"),
        }
