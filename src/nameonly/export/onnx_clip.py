"""A CLIP or SigLIP classifier as one ONNX file: a decoded image in, class probabilities out.

Input ``image``: uint8 (height, width, 3), RGB, upright, of any size. Output ``probabilities``:
float32 (classes). In the graph: the image processor (resize, crop, scale), the image tower, the
scorer with its text weights and adapter, the softmax. Class names stand in the file's metadata. The
decision (abstaining, say) and a temperature are not in it.

onnxruntime's resize with antialiasing is Pillow's own algorithm: bicubic pixels are equal but for
a rounding here and there, more where width and height are scaled differently.
https://onnx.ai/onnx/operators/onnx__Resize.html
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from nameonly.backbones._network import normalised
from nameonly.backbones.clip import ClipBackbone
from nameonly.classifier import Classifier, load, scorer_name
from nameonly.export.onnx import OPSET, Parity, some_images, trace
from nameonly.extras import import_extra
from nameonly.images import open_images
from nameonly.journal import Journal
from nameonly.pipeline import ImageSpec
from nameonly.types import Features, Scorer

FILE = "model.onnx"
MODES = {2: "linear", 3: "cubic"}  # Pillow's numbers of bilinear and bicubic


class _Scored(nn.Module):
    """The image tower and the scorer, for one image that has its size already."""

    def __init__(self, backbone: ClipBackbone, scorer: Scorer) -> None:
        super().__init__()
        # a network of its own: the backbone's stays on its device
        self.network = replace(backbone, device="cpu", dtype="float32").network
        self.scorer = scorer
        self.backbone_name = backbone.name
        facts = backbone.processor.to_dict()
        whole = facts.get("do_normalize", True)
        self.mean = tuple(facts["image_mean"]) if whole else (0.0, 0.0, 0.0)
        self.std = tuple(facts["image_std"]) if whole else (1.0, 1.0, 1.0)

    def forward(self, square: UInt8[Tensor, "1 3 h w"]) -> Float[Tensor, " c"]:
        pixels = normalised(square, self.mean, self.std)
        output = self.network.get_image_features(pixel_values=pixels)
        values = normalize(getattr(output, "pooler_output", output).float(), dim=1)
        logits = self.scorer.predict_logits(Features(values, ("0",), self.backbone_name))
        probs: Tensor = logits.softmax(dim=1)[0]
        return probs


def export_clip(classifier: Classifier, path: Path) -> None:
    """Write a classifier to an ONNX file.

    Raises:
        ValueError: If it is none of a CLIP or SigLIP of transformers, its processor does something
            that the graph cannot, its scorer cannot be written, or onnx is missing.
        OSError: If the file cannot be written.
    """
    backbone = classifier.backbone
    if not isinstance(backbone, ClipBackbone):
        raise ValueError(
            f"an ONNX file is made of CLIP and SigLIP models of transformers, got the backbone "
            f"{backbone.name!r} ({type(backbone).__name__}); `nameonly train` writes one of a "
            "network of its own"
        )
    classifier.check_weights()
    import_extra("onnxscript", "onnxscript", "train")
    onnx = import_extra("onnx", "onnx", "train")
    compose = import_extra("onnx.compose", "onnx", "train")
    first, size = _processing(onnx, backbone)
    partial = path.with_suffix(".partial")
    square = torch.zeros(1, 3, *size, dtype=torch.uint8)
    subject = f"the scorer {scorer_name(classifier.scorer)!r} on {backbone.name}"
    trace(_Scored(backbone, classifier.scorer), {"square": square}, partial, subject)
    second = onnx.load(partial)
    first.ir_version = second.ir_version
    model = compose.merge_models(first, second, io_map=[("square", "square")])
    about = {
        "nameonly.image_classes": json.dumps(list(classifier.label_space.class_names)),
        "nameonly.backbone": backbone.name,
        "nameonly.recipe": str(classifier.made.get("recipe", "")),
        "nameonly.version": str(classifier.made.get("nameonly", "")),
    }
    onnx.helper.set_model_props(model, about)
    onnx.save(model, partial)
    partial.replace(path)


def _processing(onnx: Any, backbone: ClipBackbone) -> tuple[Any, tuple[int, int]]:
    """Return the graph of the image processor up to the crop, and height and width thereafter."""
    facts = backbone.processor.to_dict()
    mode = MODES.get(int(facts.get("resample", -1)))
    scale = facts.get("rescale_factor", 1 / 255)
    if mode is None or not facts.get("do_resize") or abs(scale * 255 - 1) > 1e-6:
        raise ValueError(
            f"the image processor of {backbone.name} does what the graph cannot: expected bilinear "
            f"or bicubic resizing and a scale of 1/255, got resample {facts.get('resample')}, "
            f"do_resize {facts.get('do_resize')}, rescale_factor {scale}"
        )
    make, numbers = onnx.helper.make_node, dict[str, list[int]]()
    size, crop = facts["size"], facts.get("crop_size") if facts.get("do_center_crop") else None
    nodes = [
        make("Transpose", ["image"], ["channels"], perm=[2, 0, 1]),
        make("Unsqueeze", ["channels", "zero"], ["batch"]),
    ]
    numbers |= {"zero": [0], "first": [1, 3]}
    if "shortest_edge" in size:
        edge = int(size["shortest_edge"])
        numbers |= {"edge": [edge], "two": [2], "four": [4]}
        nodes += [
            make("Shape", ["batch"], ["shape"]),
            make("Slice", ["shape", "two", "four"], ["sides"]),
            make("ReduceMin", ["sides"], ["shorter"], keepdims=1),
            make("Mul", ["sides", "edge"], ["scaled"]),
            make("Div", ["scaled", "shorter"], ["target"]),
        ]
        height = width = edge
    else:
        height, width = int(size["height"]), int(size["width"])
        numbers["target"] = [height, width]
    nodes += [
        make("Concat", ["first", "target"], ["sizes"], axis=0),
        make(
            "Resize",
            ["batch", "", "", "sizes"],
            ["resized"],
            mode=mode,
            antialias=1,
            cubic_coeff_a=-0.5,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
    ]
    if crop is not None:
        height, width = _crop_sides(backbone, crop, (height, width))
    numbers |= {"crop": [height, width], "halves": [2], "axes": [2, 3]}
    nodes += [
        make("Sub", ["target", "crop"], ["rest"]),
        make("Div", ["rest", "halves"], ["begin"]),
        make("Add", ["begin", "crop"], ["end"]),
        make("Slice", ["resized", "begin", "end", "axes"], ["square"]),
    ]
    kind = onnx.TensorProto
    values = [onnx.numpy_helper.from_array(np.array(v), k) for k, v in numbers.items()]
    graph = onnx.helper.make_graph(
        nodes,
        "processing",
        [onnx.helper.make_tensor_value_info("image", kind.UINT8, ["height", "width", 3])],
        [onnx.helper.make_tensor_value_info("square", kind.UINT8, [1, 3, height, width])],
        values,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opsets), (height, width)


def _crop_sides(
    backbone: ClipBackbone, crop: dict[str, int], resized: tuple[int, int]
) -> tuple[int, int]:
    sides = int(crop["height"]), int(crop["width"])
    if sides[0] > resized[0] or sides[1] > resized[1]:
        raise ValueError(
            f"the image processor of {backbone.name} crops {sides} from images of {resized}, which "
            "would need a border"
        )
    return sides


def compare_clip(path: Path, classifier: Classifier, images: Sequence[Image.Image]) -> Parity:
    """Return how far a file's probabilities are from the classifier's.

    Raises:
        ValueError: If there is no image, or onnxruntime is missing.
    """
    if not images:
        raise ValueError("a comparison needs images, got none")
    runtime = import_extra("onnxruntime", "onnxruntime", "train")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = torch.stack(
        [torch.from_numpy(session.run(None, {"image": np.asarray(one)})[0]) for one in images]
    )
    ours = classifier.predict_proba(images)
    same = (ours.argmax(dim=1) == theirs.argmax(dim=1)).float().mean()
    return Parity(len(images), float((ours - theirs).abs().max()), float(same))


def write(classifier: Classifier, place: Path, images: Sequence[Image.Image]) -> dict[str, Any]:
    """Write ``model.onnx`` and say how it compares with the classifier.

    Raises:
        ValueError: See ``export_clip``.
        OSError: If the file cannot be written.
    """
    export_clip(classifier, place / FILE)
    notes = [] if images else ["not compared with torch: name some images with --images"]
    parity = asdict(compare_clip(place / FILE, classifier, images)) if images else None
    return {"parity": parity, "notes": notes}


def export_classifier(
    folder: Path,
    place: Path,
    images: ImageSpec | None = None,
    column: str | None = None,
    journal: Journal | None = None,
) -> dict[str, Any]:
    """Write a saved classifier into an empty folder, as ``model.onnx``.

    Args:
        folder: Of the classifier, or of its run.
        place: Folder to write into.
        images: To compare the file with the classifier on, both in float32; up to 256 are taken.
        column: Of a table of images.
        journal: Times the stages.

    Raises:
        ValueError: If there is no such classifier, or it cannot be written; see ``export_clip``.
        OSError: If the file cannot be written.
    """
    journal = journal or Journal()
    classifier = load(folder, device="cpu", dtype="float32")
    shown: Sequence[Image.Image] = ()
    if images is not None:
        with journal.stage("ingest"):
            found, _ = open_images(images, column=column, on_progress=journal.on_progress)
            _, shown = some_images(found, range(len(found)))
    with journal.stage("export"):
        facts = write(classifier, place, shown)
    made = classifier.made
    return {
        "format": "onnx",
        "run": str(folder),
        "recipe": made.get("recipe", ""),
        "backbone": classifier.backbone.name,
        "nameonly": made.get("nameonly", ""),
        "classes": list(classifier.label_space.class_names),
        **facts,
    }
