"""A plan as a list of runs, and the key of each: a hash of everything that decides its outcome."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from nameonly.bench.plan import BatchPlan, DataPlan, MethodPlan, Plan
from nameonly.methods import build_recipe, describe_recipe


@dataclass(frozen=True)
class Run:
    """One fit and its figures.

    Attributes:
        method: What is fitted.
        data: On what.
        setting: UL, SSL or TRZSL.
        imbalance: Of the pool.
        seed: Of the method, the long tail and the digits' split.
        split_seed: Of the split into seen and unseen classes; None but in TRZSL.
        batch: The batch in place of a pool, None for a pool.
        draw: Which batch of the seed.
    """

    method: MethodPlan
    data: DataPlan
    setting: str
    imbalance: float
    seed: int
    split_seed: int | None = None
    batch: BatchPlan | None = None
    draw: int = 0

    @property
    def pool(self) -> str:
        """How tables call what is adapted on."""
        if self.batch is not None:
            return self.batch.title
        return "whole" if self.imbalance == 1 else f"imbalance {self.imbalance:g}"

    @property
    def title(self) -> str:
        """One line that tells the run from the others."""
        parts = [self.method.label, self.data.title, self.setting, self.pool, f"seed {self.seed}"]
        if self.split_seed is not None:
            parts.append(f"split {self.split_seed}")
        if self.batch is not None:
            parts.append(f"draw {self.draw}")
        return " · ".join(parts)


def all_runs(plan: Plan) -> list[Run]:
    """Return the runs of a plan: by data set, setting, pool and seed, the methods together.

    Raises:
        ValueError: If nothing is left for a method.
    """
    runs = [run for data in plan.data for run in _on(plan, data)]
    idle = [m.label for m in plan.methods if all(run.method is not m for run in runs)]
    if idle:
        raise ValueError(f"nothing is left to run for {', '.join(idle)}; widen its only")
    return runs


def _on(plan: Plan, data: DataPlan) -> Iterator[Run]:
    for case in (*_on_pools(plan), *_on_batches(plan)):
        runs = (Run(method, data, *case) for method in plan.methods)
        yield from (run for run in runs if _wanted(run))


def _on_pools(plan: Plan) -> Iterator[tuple[Any, ...]]:
    """Yield the fields of ``Run`` from ``setting`` on."""
    for setting in plan.settings:
        for imbalance in plan.imbalances:
            for seed, split_seed in _seeds(plan, setting):
                yield setting, imbalance, seed, split_seed


def _on_batches(plan: Plan) -> Iterator[tuple[Any, ...]]:
    for batch in plan.batches:
        for seed in plan.seeds:
            for draw in range(batch.draws):
                yield "UL", 1.0, seed, None, batch, draw


def _seeds(plan: Plan, setting: str) -> Sequence[tuple[int, int | None]]:
    if setting != "TRZSL":
        return [(seed, None) for seed in plan.seeds]
    n = len(plan.seeds)
    return [(plan.seeds[i % n], split) for i, split in enumerate(plan.trzsl_seeds)]


def _wanted(run: Run) -> bool:
    only = run.method.only
    if only.data is not None and run.data.name not in only.data:
        return False
    if only.seeds is not None and run.seed not in only.seeds:
        return False
    if run.batch is not None:
        return only.batches != "none"
    return (
        only.batches != "alone"
        and (only.settings is None or run.setting in only.settings)
        and (only.imbalances is None or run.imbalance in only.imbalances)
    )


def run_facts(
    run: Run, plan: Plan, listing: str, backbone: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Return everything that decides a run's outcome, as plain data.

    The number of threads and the device change figures by rounding alone and are no part of it, nor
    is the place where data and weights lie.

    Args:
        run: The run.
        plan: Its plan.
        listing: Hash of the data set's images and classes.
        backbone: What image and text features depend on.
    """
    recipe = build_recipe(run.method.recipe, run.method.set, run.seed)
    # the revision is a hash of the weights, which may lie in another folder tomorrow
    weights = {
        kind: {k: v for k, v in key.items() if k != "backbone"} for kind, key in backbone.items()
    }
    facts = {
        "nameonly": version("nameonly"),
        "recipe": run.method.recipe,
        "parts": describe_recipe(recipe),
        "data": asdict(run.data) | {"root": None, "adapt_root": None},
        "listing": listing,
        "templates": plan.templates,
        "backbone": weights,
        "setting": run.setting,
        "labels_per_class": plan.labels_per_class if run.setting == "SSL" else None,
        "imbalance": run.imbalance,
        "seed": run.seed,
        "split_seed": run.split_seed,
        "batch": None if run.batch is None else asdict(run.batch) | {"draws": None},
        "draw": run.draw,
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return plain


def run_key(facts: Mapping[str, Any]) -> str:
    """Return the name of a run's file."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
