"""Heads on features as scikit-learn estimators: for pipelines and your own labels."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn.functional import normalize, one_hot

from nameonly.adapters.prototype_adapter import PrototypeAdapter
from nameonly.ops.prototypes import class_prototypes
from nameonly.types import Features, PseudoLabels, TextClassifier

__all__ = ["PrototypeHead"]


class PrototypeHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """``adapters.prototype_adapter`` behind ``fit(X, y)``.

    Every row of ``y`` is a label, given or pseudo. Without text weights the class means stand in
    their place, and the head is a nearest-prototype classifier that was fine-tuned. It computes in
    float64: a row scores the same alone and among others.

    Attributes:
        text_weights: Float[c, d], rows in the order of the sorted labels; None for class means.
        logit_scale: Multiplier of cosine similarity.
        residual_weight: See ``PrototypeAdapter``; so are ``sharpness``, ``steps``,
            ``learning_rate``, ``temperature``, ``batch_size`` and ``seed``.
    """

    def __init__(
        self,
        text_weights: Any = None,
        *,
        logit_scale: Any = 100.0,
        residual_weight: Any = 16.0,
        sharpness: Any = 1.0,
        steps: Any = 100,
        learning_rate: Any = 1e-3,
        temperature: Any = 0.5,
        batch_size: Any = 4096,
        seed: Any = 0,
    ) -> None:
        """Keep the settings; ``fit`` checks them, for scikit-learn may set any value here."""
        self.text_weights = text_weights
        self.logit_scale = logit_scale
        self.residual_weight = residual_weight
        self.sharpness = sharpness
        self.steps = steps
        self.learning_rate = learning_rate
        self.temperature = temperature
        self.batch_size = batch_size
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "PrototypeHead":
        """Learn from features (m, d) and labels (m).

        Raises:
            ValueError: If the shapes do not fit, there are fewer than two classes, or the text
                weights are not one row per class.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        c = len(self.classes_)
        if c < 2:
            raise ValueError(f"the labels have {c} class; a classifier needs at least two")
        targets = one_hot(torch.from_numpy(codes.reshape(-1)), c)
        features = _features(X)
        weights = class_prototypes(
            features.values, targets.double(), torch.zeros(c, X.shape[1], dtype=torch.float64)
        )
        if self.text_weights is not None:
            weights = torch.as_tensor(np.asarray(self.text_weights), dtype=torch.float64)
            if tuple(weights.shape) != (c, X.shape[1]):
                raise ValueError(
                    f"text_weights are {tuple(weights.shape)}, expected {(c, X.shape[1])}: "
                    "one row per class"
                )
        text = TextClassifier(
            normalize(weights, dim=1), float(self.logit_scale), tuple(map(str, self.classes_))
        )
        certain = torch.ones(len(features), dtype=torch.float64)
        labels = PseudoLabels(features.ids, targets.double(), targets.bool(), certain)
        self.adapter_ = PrototypeAdapter(
            residual_weight=float(self.residual_weight),
            sharpness=float(self.sharpness),
            steps=self.steps,
            learning_rate=float(self.learning_rate),
            temperature=float(self.temperature),
            batch_size=self.batch_size,
            seed=self.seed,
        ).fit(features, text, labels)
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "..."]:
        """Return logits (n, c), or for two classes their difference (n), as scikit-learn has it."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n c"]:
        """Return class probabilities (n, c)."""
        probs: np.ndarray = torch.from_numpy(self._logits(X)).softmax(dim=1).numpy()
        return probs

    def predict(self, X: Any) -> Shaped[np.ndarray, " n"]:
        """Return a label per row."""
        columns = self._logits(X).argmax(axis=1)
        labels: np.ndarray = self.classes_[columns]
        return labels

    def _logits(self, X: Any) -> Float[np.ndarray, "n c"]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        logits: np.ndarray = self.adapter_.predict_logits(_features(X)).numpy()
        return logits


def _features(X: Float[np.ndarray, "n d"]) -> Features:
    """Return unit rows under their row numbers."""
    width = len(str(len(X)))
    ids = tuple(f"{i:0{width}d}" for i in range(len(X)))
    return Features(normalize(torch.from_numpy(X), dim=1), ids, "array")
