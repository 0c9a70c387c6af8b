"""The user's own features, made by any model of any data.

Paper: none; a file format. See ``docs/own_features.md``.
Differs: nothing is encoded here; ``encode_*`` refuse.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nameonly.backbones._feature_file import EXPECTED, read_arrays, unit_matrix
from nameonly.backbones._image_only import ImageOnly
from nameonly.types import Features, LabelSpace, TextClassifier, class_key

__all__ = ["PrecomputedBackbone"]


@dataclass(frozen=True)
class PrecomputedBackbone(ImageOnly):
    """Features and text weights read from a file.

    Attributes:
        path: An npz or safetensors file. Text weights may be absent where only new features are to
            be scored by a saved classifier.
        width: Feature dimension, needed only where there is no file (a saved classifier).
    """

    path: str = "features.npz"
    width: int | None = None

    refusal: ClassVar[str] = (
        "own features are not made from images or texts here; encode them with the model that made "
        f"the others and pass a file: {EXPECTED}"
    )

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """The file's arrays, read once; of the features, where they are."""
        arrays = read_arrays(Path(self.path))
        if "features" not in arrays:
            raise ValueError(f"{self.path} has {sorted(arrays)}, no 'features'; {EXPECTED}")
        return arrays

    @cached_property
    def features(self) -> Features:
        """Unit rows with the file's ids, or row numbers where it has none.

        Raises:
            ValueError: If the file is bad, or ids repeat or do not fit.
        """
        values = unit_matrix(Path(self.path), "features", self.arrays["features"])
        n = len(values)
        width = len(str(n - 1))
        names = self._texts("ids", n, "features") or tuple(f"{i:0{width}d}" for i in range(n))
        if len(set(names)) != n:
            raise ValueError(f"{self.path}: ids repeat; every row needs its own")
        return Features(values, names, f"precomputed-{values.shape[1]}")

    def _texts(self, key: str, n: int | None, of: str) -> tuple[str, ...] | None:
        if key not in self.arrays:
            return None
        array = np.asarray(self.arrays[key])
        if array.ndim != 1 or (n is not None and len(array) != n):
            wanted = "a list" if n is None else f"{n}, one for each row of {of}"
            raise ValueError(f"{self.path}: {key!r} has shape {array.shape}, expected {wanted}")
        return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in array.tolist())

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names that the file gives its text weights, if it does."""
        return self._texts("class_names", None, "text_weights")

    def text_classifier(self, label_space: LabelSpace) -> TextClassifier:
        """Return the file's text weights as the zero-shot classifier of these classes.

        Where the file names its rows they are put in the order of ``label_space``.

        Raises:
            ValueError: If text weights are missing or fit neither the names nor the features.
        """
        if "text_weights" not in self.arrays:
            raise ValueError(f"{self.path} has no 'text_weights'; {EXPECTED}")
        weights = unit_matrix(Path(self.path), "text_weights", self.arrays["text_weights"])
        if len(weights) != len(label_space):
            raise ValueError(
                f"{self.path}: {len(weights)} rows of text_weights for {len(label_space)} classes"
            )
        if weights.shape[1] != self.dim:
            raise ValueError(
                f"{self.path}: text_weights have {weights.shape[1]} dimensions, features {self.dim}"
            )
        if self._texts("class_names", len(weights), "text_weights") is not None:
            weights = weights[self._row_order(label_space)]
        return TextClassifier(weights, self.logit_scale, label_space.class_names)

    def _row_order(self, label_space: LabelSpace) -> list[int]:
        rows = {class_key(name): i for i, name in enumerate(self.class_names or ())}
        wanted = [class_key(name) for name in label_space.class_names]
        missing = sorted(set(wanted) - set(rows))
        if missing:
            raise ValueError(
                f"{self.path} has no text weights for {missing}; "
                f"it names {list(self.class_names or ())}"
            )
        return [rows[key] for key in wanted]

    @cached_property
    def name(self) -> str:
        """``precomputed`` and the dimension, which alone tells models apart here."""
        return f"precomputed-{self.dim}"

    @property
    def dim(self) -> int:
        """Feature dimension."""
        return self.width or self.features.values.shape[1]

    @cached_property
    def logit_scale(self) -> float:
        """The file's multiplier, 100 where it has none.

        Raises:
            ValueError: If it is not a positive number.
        """
        given = np.asarray(self.arrays.get("logit_scale", 100.0)).reshape(-1)
        if len(given) != 1 or given.dtype.kind not in "fiu":
            raise ValueError(f"{self.path}: logit_scale must be one number, got {given!r}")
        scale = float(given[0])
        if not 0 < scale < float("inf"):
            raise ValueError(f"{self.path}: logit_scale must be positive, got {scale}")
        return scale

    @property
    def batch_size(self) -> int:
        """One: there is no forward pass."""
        return 1

    @property
    def note(self) -> str:
        """Nothing: what these features know is the user's to say."""
        return ""

    @cached_property
    def image_key(self) -> Mapping[str, str]:
        """Name and a hash of the file."""
        with Path(self.path).open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:16]
        return {"backbone": self.name, "revision": digest, "dtype": "float32"}

    @property
    def text_key(self) -> Mapping[str, str]:
        """The same as the images': both come from one file."""
        return self.image_key

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """Refuse."""
        self._refuse()

    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Refuse."""
        self._refuse()

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Refuse."""
        self._refuse()

    def reference(self) -> dict[str, object]:
        """Return the dimension: the model that made the features is not known here."""
        return {"method": "precomputed", "name": self.name, "width": self.dim}
