"""What the run answered: probabilities of the answers, close calls, changes against zero-shot."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num

# A runner-up with at least this share of the answer's probability makes a close call.
CLOSE_CALL = 0.5
_BLOCK_VALUES = 2**22


@dataclass(frozen=True)
class Answers:
    """The answer of every image and the best class beside it.

    Attributes:
        classes: The label (n); the most probable class where the run abstained.
        probs: Probability of that class (n).
        runners_up: The most probable other class (n), -1 when there is only one class.
        runner_up_probs: Its probability (n), 0 when there is none.
    """

    classes: Int[np.ndarray, " n"]
    probs: Float[np.ndarray, " n"]
    runners_up: Int[np.ndarray, " n"]
    runner_up_probs: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class ClassPair:
    """Two classes and the images that they have in common."""

    first: int
    second: int
    n_images: int


def rank_answers(probs: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Answers:
    """Find every image's answer and runner-up, in blocks of rows so that ``probs`` is never copied.

    Args:
        probs: Class probabilities, in memory or memory-mapped.
        labels: The run's labels, -1 where it abstained.
    """
    n_images, n_classes = probs.shape
    classes = np.array(labels, dtype=np.int64)
    runners_up = np.full(n_images, -1, dtype=np.int64)
    answer_probs = np.zeros(n_images, dtype=np.float32)
    runner_up_probs = np.zeros(n_images, dtype=np.float32)
    block_rows = max(1, _BLOCK_VALUES // n_classes)
    for start in range(0, n_images, block_rows):
        part = slice(start, start + block_rows)
        block = np.array(probs[part], dtype=np.float32)
        rows = np.arange(len(block))
        classes[part] = np.where(labels[part] < 0, block.argmax(axis=1), labels[part])
        answer_probs[part] = block[rows, classes[part]]
        if n_classes > 1:
            block[rows, classes[part]] = -1.0
            runners_up[part] = block.argmax(axis=1)
            runner_up_probs[part] = block[rows, runners_up[part]]
    return Answers(classes, answer_probs, runners_up, runner_up_probs)


def count_pairs(
    first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"], n_classes: int
) -> list[ClassPair]:
    """Count how often each ordered pair of classes occurs; the most frequent pair comes first."""
    codes, counts = np.unique(
        first.astype(np.int64) * n_classes + second.astype(np.int64), return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [
        ClassPair(int(codes[i]) // n_classes, int(codes[i]) % n_classes, int(counts[i]))
        for i in order
    ]


def close_calls(answers: Answers) -> Bool[np.ndarray, " n"]:
    """Return True where the runner-up is at least half as probable as the answer."""
    near = answers.runner_up_probs >= CLOSE_CALL * answers.probs
    return np.asarray(near & (answers.runners_up >= 0))


def confusable_pairs(answers: Answers, n_classes: int) -> list[ClassPair]:
    """Count the close calls of every unordered pair of classes, most frequent first."""
    near = close_calls(answers)
    answer, other = answers.classes[near], answers.runners_up[near]
    return count_pairs(np.minimum(answer, other), np.maximum(answer, other), n_classes)


def changed_rows(
    zero_shot: Int[np.ndarray, " n"], classes: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " m"]:
    """Return the rows where zero-shot answered, and differently.

    Args:
        zero_shot: Zero-shot's class, -1 where it has none.
        classes: The run's class, or the most probable one where it abstained.
    """
    return np.flatnonzero((zero_shot >= 0) & (classes != zero_shot))


def class_counts(labels: Num[np.ndarray, " n"], n_classes: int) -> Int[np.ndarray, " c"]:
    """Return how many images each class got; abstentions (-1) count for none."""
    return np.bincount(labels[labels >= 0], minlength=n_classes)
