"""A network as one ONNX file: bytes of images in, class probabilities out.

The input ``pixels`` is uint8 (n, size, size, 3), RGB, the middle square of each image; centring and
scaling are part of the graph, and so is the softmax. Class names and size stand in its metadata.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from nameonly.backbones._network import NetworkBackbone, middle_square, normalised
from nameonly.backbones._onnx_network import CLASS_NAMES, SIZE, OnnxBackbone
from nameonly.extras import import_extra
from nameonly.images import BadImageError, load
from nameonly.types import ImageSet

OPSET = 18
COMPARED_ON = 256


class _Deployed(nn.Module):
    def __init__(self, backbone: NetworkBackbone) -> None:
        super().__init__()
        # a network of its own: the backbone's stays on its device
        self.network = replace(backbone, device="cpu", dtype="float32").network
        self.mean, self.std = backbone.mean, backbone.std

    def forward(self, pixels: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n c"]:
        logits = self.network(normalised(pixels.permute(0, 3, 1, 2), self.mean, self.std))
        probs: Tensor = logits.softmax(dim=1)
        return probs


@dataclass(frozen=True)
class Parity:
    """How a file compares with the network that it was made of, on real images.

    Attributes:
        images: How many.
        max_difference: Largest difference of a probability.
        same_labels: Share of images with the same most probable class.
    """

    images: int
    max_difference: float
    same_labels: float


def write_onnx(
    backbone: NetworkBackbone,
    class_names: Sequence[str],
    folder: Path,
    images: Sequence[Image.Image],
    int8: bool = False,
) -> dict[str, dict[str, Any]]:
    """Write ``model.onnx`` and say how it compares with the network.

    Args:
        backbone: The network.
        class_names: Of its outputs.
        folder: To write into.
        images: To compare on, and to calibrate on.
        int8: Write ``model.int8.onnx`` too.

    Returns:
        Name of file -> fields of ``Parity``.

    Raises:
        ValueError: See ``export_onnx``, ``quantise_onnx`` and ``compare_with_torch``.
        OSError: If a file cannot be written.
    """
    written = [folder / "model.onnx"]
    export_onnx(backbone, class_names, written[0])
    if int8:
        written.append(folder / "model.int8.onnx")
        quantise_onnx(written[0], written[1], images)
    return {path.name: asdict(compare_with_torch(path, backbone, images)) for path in written}


def some_images(
    images: ImageSet, rows: Sequence[int]
) -> tuple[tuple[int, ...], tuple[Image.Image, ...]]:
    """Return up to 256 of the rows, evenly chosen, and their images.

    Args:
        images: The images; those that cannot be read are left out.
        rows: Of those that may be chosen.
    """
    found = []
    chosen = np.linspace(0, len(rows) - 1, min(COMPARED_ON, len(rows))).round().astype(int)
    for row in (rows[i] for i in chosen):
        try:
            found.append((row, load(images, row)))
        except BadImageError:  # told where it was read first
            continue
    return tuple(row for row, _ in found), tuple(image for _, image in found)


def trace(
    module: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    partial: Path,
    subject: str,
    dynamic_shapes: dict[str, dict[int, torch.export.Dim]] | None = None,
) -> None:
    """Write what a module computes to an ONNX file.

    Args:
        module: Gives probabilities.
        inputs: An example of each input, by its name.
        partial: File to write; removed where the module cannot be written.
        subject: What is written, for the error.
        dynamic_shapes: Axes of any length.

    Raises:
        ValueError: If the module cannot be written.
        OSError: If the file cannot be written.
    """
    try:
        with quiet():
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                str(partial),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=["probabilities"],
                dynamic_shapes=dynamic_shapes,
                external_data=False,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:  # the exporter has many kinds of its own
        partial.unlink(missing_ok=True)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{subject} cannot be written as ONNX: {reason}") from error


def export_onnx(backbone: NetworkBackbone, class_names: Sequence[str], path: Path) -> None:
    """Write a network to an ONNX file that takes any number of images at once.

    Raises:
        ValueError: If onnx is missing, or the architecture cannot be written.
        OSError: If the file cannot be written.
    """
    import_extra("onnxscript", "onnxscript", "train")
    onnx = import_extra("onnx", "onnx", "train")
    example = torch.zeros(2, backbone.size, backbone.size, 3, dtype=torch.uint8)
    partial = path.with_suffix(".partial")
    shapes = {"pixels": {0: torch.export.Dim("n")}}
    trace(_Deployed(backbone), {"pixels": example}, partial, backbone.architecture, shapes)
    model = onnx.load(partial)
    about = {CLASS_NAMES: json.dumps(list(class_names)), SIZE: str(backbone.size)}
    onnx.helper.set_model_props(model, about)
    onnx.save(model, partial)
    partial.replace(path)


def quantise_onnx(path: Path, out: Path, images: Sequence[Image.Image]) -> None:
    """Write an int8 copy of an ONNX file, calibrated on images.

    Weights have a scale for each channel, activations one for each tensor (QDQ form).

    Args:
        path: Of ``export_onnx``.
        out: File to write.
        images: Real ones that show what the network will see; a few hundred are enough.

    Raises:
        ValueError: If onnxruntime is missing or there is no image.
        OSError: If the file cannot be written.
    """
    if not images:
        raise ValueError("int8 needs images to calibrate on, got none")
    import_extra("onnxruntime", "onnxruntime", "train")
    quantization = import_extra("onnxruntime.quantization", "onnxruntime", "train")
    shape_inference = import_extra(
        "onnxruntime.quantization.shape_inference", "onnxruntime", "train"
    )
    size = OnnxBackbone(path).size

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {"pixels": middle_square(image, size)[None]}

    with TemporaryDirectory() as folder, quiet():
        prepared = Path(folder) / "prepared.onnx"
        shape_inference.quant_pre_process(path, prepared, skip_symbolic_shape=True)
        partial = out.with_suffix(".partial")
        quantization.quantize_static(prepared, partial, Reader(), per_channel=True)
    partial.replace(out)


def compare_with_torch(
    path: Path, backbone: NetworkBackbone, images: Sequence[Image.Image]
) -> Parity:
    """Return how far a file's probabilities are from the network's.

    Raises:
        ValueError: If there is no image to compare on.
    """
    if not images:
        raise ValueError("a comparison needs images, got none")
    ours = backbone.encode_images(images).softmax(dim=1)
    theirs = OnnxBackbone(path).encode_images(images).softmax(dim=1)
    same = (ours.argmax(dim=1) == theirs.argmax(dim=1)).float().mean()
    return Parity(len(images), float((ours - theirs).abs().max()), float(same))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' progress notes from the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
