"""Learning settings as data: which images carry a given label, and which a pool holds.

UL has no label. SSL and TRZSL are drawn as the papers' public code draws them
(https://github.com/BatsResearch/menghini-neurips23-code, https://github.com/vanillaer/CPL-ICML2024),
except that no given label is set apart for validation. Axes: n images, m chosen ones, c classes.
"""

import numpy as np
from jaxtyping import Bool, Int

from nameonly.evaluation.metrics import accuracy_score

SEEN_SHARE = 0.62
SSL_SEED = 0


def semi_supervised(
    y_true: Int[np.ndarray, " n"], n_classes: int, labels_per_class: int = 2
) -> Int[np.ndarray, " n"]:
    """Return given labels (-1 = none): a few of every class (SSL).

    The generator starts anew before each class, as it does in the published protocol. A class with
    fewer images gives all that it has.

    Raises:
        ValueError: If ``labels_per_class`` is below 1.
    """
    if labels_per_class < 1:
        raise ValueError(f"labels_per_class must be at least 1, got {labels_per_class}")
    given = np.full(len(y_true), -1, dtype=np.int64)
    for column in range(n_classes):
        rows = np.flatnonzero(y_true == column)
        size = min(labels_per_class, len(rows))
        if size:
            chosen = np.random.RandomState(SSL_SEED).choice(rows, size, replace=False)
            given[chosen] = column
    return given


def seen_classes(n_classes: int, seed: int) -> Bool[np.ndarray, " c"]:
    """Return which classes are seen (TRZSL): 62 % of them, rounded down.

    Raises:
        ValueError: If that leaves no seen class.
    """
    size = int(SEEN_SHARE * n_classes)
    if size < 1:
        raise ValueError(f"TRZSL needs at least two classes, got {n_classes}")
    seen = np.zeros(n_classes, dtype=bool)
    seen[np.random.RandomState(seed).choice(range(n_classes), size, replace=False)] = True
    return seen


def labels_of_seen(
    y_true: Int[np.ndarray, " n"], seen: Bool[np.ndarray, " c"]
) -> Int[np.ndarray, " n"]:
    """Return given labels (-1 = none): all those of the seen classes (TRZSL)."""
    return np.where(seen[y_true], y_true, -1)


def long_tailed(
    y_true: Int[np.ndarray, " n"], n_classes: int, imbalance: float, seed: int
) -> Int[np.ndarray, " m"]:
    """Return the rows, ascending, that are left when a pool is thinned to an exponential profile.

    The class at place j of a seeded order keeps ``floor(N imbalance^(-j / (c - 1)))`` images and at
    least one; N is the largest number for which every class has enough. An imbalance of 1 keeps the
    pool as it is. Source: Cui et al. Class-Balanced Loss Based on Effective Number of Samples.
    CVPR 2019. arXiv 1901.05555, section 5.1; N differs, so that the profile is exact.

    Raises:
        ValueError: If ``imbalance`` is below 1.
    """
    if imbalance < 1:
        raise ValueError(f"imbalance must be at least 1, got {imbalance}")
    if imbalance == 1:
        return np.arange(len(y_true))
    generator = np.random.RandomState(seed)
    profile = np.empty(n_classes)
    places = np.arange(n_classes) / max(1, n_classes - 1)
    profile[generator.permutation(n_classes)] = imbalance**-places
    counts = np.bincount(y_true, minlength=n_classes)
    head = (counts / profile)[counts > 0].min()
    # rounding must not take an image from the class that sets N
    sizes = np.minimum(counts, np.maximum(1, np.floor(head * profile + 1e-9))).astype(np.int64)
    kept = [
        generator.choice(np.flatnonzero(y_true == column), size, replace=False)
        for column, size in enumerate(sizes)
        if size
    ]
    return np.sort(np.concatenate(kept))


def small_batch(
    y_true: Int[np.ndarray, " n"], size: int | None, classes: int | None, seed: tuple[int, int]
) -> Int[np.ndarray, " m"]:
    """Return the rows, ascending, of a batch drawn at random from the images of few classes.

    Args:
        y_true: True classes.
        size: Images in the batch; None takes all of the drawn classes.
        classes: How many classes the images are drawn from; None for all.
        seed: Two numbers that decide the draw.

    Raises:
        ValueError: If there are not so many classes, or not so many images of the drawn ones.
    """
    generator = np.random.RandomState(seed)
    rows = np.arange(len(y_true))
    if classes is not None:
        present = np.unique(y_true)
        if not 1 <= classes <= len(present):
            raise ValueError(f"a batch of {classes} classes from images of {len(present)}")
        rows = np.flatnonzero(np.isin(y_true, generator.choice(present, classes, replace=False)))
    if size is None:
        return rows
    if not 1 <= size <= len(rows):
        raise ValueError(f"a batch of {size} images from {len(rows)}")
    return np.sort(generator.choice(rows, size, replace=False))


def seen_and_unseen_accuracy(
    y_true: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], seen: Bool[np.ndarray, " c"]
) -> tuple[float, float]:
    """Return the accuracy over the images of seen classes and over those of unseen ones.

    Raises:
        ValueError: If there is no image of either kind.
    """
    of_seen = seen[y_true]
    return (
        accuracy_score(y_true[of_seen], labels[of_seen]),
        accuracy_score(y_true[~of_seen], labels[~of_seen]),
    )


def harmonic_mean(a: float, b: float) -> float:
    """Return the harmonic mean of two accuracies, 0 where both are."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
