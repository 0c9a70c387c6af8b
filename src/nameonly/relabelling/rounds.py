"""Iterated relabelling: every round labels with what the last one learnt, and learns afresh.

Paper: Menghini, Delworth, Bach. Enhancing CLIP with CLIP: Exploring Pseudolabeling for
    Limited-Label Prompt Tuning. NeurIPS 2023, arXiv 2306.01669, section 3.3 (IFPL, GRIP).
    Capacities "balanced": Zhang et al. (CPL). ICML 2024, arXiv 2406.10502.
Code: https://github.com/BatsResearch/menghini-neurips23-code
Differs: labels come from any labeller with a field ``images_per_class`` and go to any learner; a
    round has at least one place a class, where the papers' formula rounds down to none.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from nameonly.learning import Learner, learn, scores, with_views
from nameonly.pseudo_labels import PseudoLabeller
from nameonly.task import Adapted, Task

__all__ = ["Rounds"]


def places(
    turn: int, rounds: int, n_images: int, n_targets: int, held: Int[Tensor, " c"] | None = None
) -> int | Int[Tensor, " c"]:
    """Return how many images a class may hold in a round: ``K_t``, growing to an equal share.

    ``K_t = floor(t floor(N / rounds) / C')``, at most ``floor(N / C')`` and at least 1.

    Args:
        turn: t, from one.
        rounds: Of the whole run.
        n_images: N, open images.
        n_targets: C', classes that they may have.
        held: Images that every class held a round before. With it a class grows by no more than
            the best filled class does: ``min(held + K_t - max(held), K_t)``.
    """
    k = max(1, min(turn * (n_images // rounds) // n_targets, n_images // n_targets))
    if held is None:
        return k
    return (held + k - held.max()).clamp(min=1, max=k)


@dataclass(frozen=True)
class Rounds:
    """Labels and learns several times.

    Attributes:
        rounds: How often (the papers: 10).
        capacity: ``"fixed"``: the labeller's own ``images_per_class`` in every round (IFPL);
            ``"growing"``: K_t, so that in the end all images are used (GRIP); ``"balanced"``: K_t
            for every class by what it held before (CPL).
        first_targets: Value of the learner's field ``targets`` in the first round (CPL: soft).
    """

    rounds: int = 10
    capacity: Literal["fixed", "growing", "balanced"] = "growing"
    first_targets: str | None = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")

    def run(self, task: Task, labeller: PseudoLabeller, learner: Learner) -> Adapted:
        """Return what the last round learnt.

        Raises:
            ValueError: If the labeller has no ``images_per_class`` to set, or the learner no
                ``targets``.
        """
        self._check(labeller, learner)
        task = with_views(task, learner)
        logits, held = task.start_logits(), None
        is_open = torch.ones(len(logits), dtype=torch.bool)
        if task.given is not None:
            is_open = task.given.cpu() < 0
        n, c = int(is_open.sum()), int(task.label_space.targets.sum())
        adapted: Adapted | None = None
        for turn in range(1, self.rounds + 1):
            now: Any = labeller
            if self.capacity != "fixed":
                k = places(turn, self.rounds, n, c, held if self.capacity == "balanced" else None)
                now = replace(now, images_per_class=k if isinstance(k, int) else tuple(k.tolist()))
            labels = now.label(task.features, logits, task.label_space, task.given)
            taken = labels.places if labels.places is not None else labels.labels
            taken = taken.cpu()[is_open]
            held = torch.bincount(taken[taken >= 0], minlength=len(task.label_space))
            part = f"round-{turn:02d}"
            adapted = learn(self._heard(task, turn), self._learner(learner, turn), labels, part)
            logits = task.mixed(scores(task, adapted))
        assert adapted is not None
        return adapted

    def _learner(self, learner: Any, turn: int) -> Any:
        if turn > 1 or self.first_targets is None:
            return learner
        return replace(learner, targets=self.first_targets)

    def _heard(self, task: Task, turn: int) -> Task:
        hear: Callable[[int, int], None] | None = task.on_progress
        if hear is None:
            return task
        return replace(
            task,
            on_progress=lambda done, total: hear((turn - 1) * total + done, self.rounds * total),
        )

    def _check(self, labeller: Any, learner: Any) -> None:
        wanted = []
        if self.capacity != "fixed":
            wanted.append((labeller, "images_per_class", "capacity=fixed"))
        if self.first_targets is not None:
            wanted.append((learner, "targets", "first_targets=null"))
        for part, name, otherwise in wanted:
            if name not in {f.name for f in fields(part)}:
                raise ValueError(
                    f"{type(part).__name__} has no {name} to set in every round; choose another "
                    f"part, or relabelling.{otherwise}"
                )
