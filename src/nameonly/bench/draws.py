"""What a run adapts on and is scored on. The one place that turns truth into given labels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from nameonly.bench.data import BenchData, Side
from nameonly.bench.plan import Plan
from nameonly.bench.runs import Run
from nameonly.evaluation import settings


@dataclass(frozen=True)
class Draw:
    """Rows of a data set's splits.

    Attributes:
        adapt_side: Split that is adapted on.
        adapt_rows: Its rows, one per distinct image, in order of id: the order tells no class.
        score_side: Split that is scored.
        score_rows: Its rows.
        given: Known label of every row of ``adapt_rows``, -1 = none; None without any.
        seen: Which classes have given labels (TRZSL); None else.
    """

    adapt_side: Side
    adapt_rows: Int[np.ndarray, " n"]
    score_side: Side
    score_rows: Int[np.ndarray, " m"]
    given: Int[np.ndarray, " n"] | None = None
    seen: Bool[np.ndarray, " c"] | None = None


def draw(data: BenchData, run: Run, plan: Plan) -> Draw:
    """Return what a run adapts on and is scored on. Truth is looked at where the setting needs it.

    Raises:
        ValueError: If there are no images to adapt on, or not enough for a batch.
    """
    if run.batch is not None:
        side = run.batch.of
        rows = data.rows(side, run.seed)
        chosen = settings.small_batch(
            data.truth(side)[rows], run.batch.size, run.batch.classes, (run.seed, run.draw)
        )
        rows = _distinct(data, side, rows[chosen])
        return Draw(side, rows, side, rows)
    rows = data.rows("pool", run.seed)
    if not len(rows):
        raise ValueError(
            f"{data.plan.name} is a test set alone; say adapt_on = the data set to adapt on, or "
            "take batches of the test"
        )
    n_classes = len(data.label_space)
    if run.imbalance > 1:
        y_true = data.truth("pool")[rows]
        rows = rows[settings.long_tailed(y_true, n_classes, run.imbalance, run.seed)]
    given: Int[np.ndarray, " n"] | None = None
    seen: Bool[np.ndarray, " c"] | None = None
    if run.setting == "SSL":
        y_true = data.truth("pool")[rows]
        given = settings.semi_supervised(y_true, n_classes, plan.labels_per_class)
    if run.split_seed is not None:
        seen = settings.seen_classes(n_classes, run.split_seed)
        given = settings.labels_of_seen(data.truth("pool")[rows], seen)
    distinct = _distinct(data, "pool", rows)
    if given is not None:
        given = _carried(data, rows, given, distinct)
    return Draw("pool", distinct, "test", data.rows("test", run.seed), given, seen)


def _distinct(data: BenchData, side: Side, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Return one row per distinct image, in order of id."""
    ids = data.split(side).images.ids
    first = {ids[row]: row for row in reversed(rows.tolist())}
    return np.array([first[image_id] for image_id in sorted(first)], dtype=np.int64)


def _carried(
    data: BenchData,
    rows: Int[np.ndarray, " n"],
    given: Int[np.ndarray, " n"],
    distinct: Int[np.ndarray, " m"],
) -> Int[np.ndarray, " m"]:
    """Return the given labels of distinct images: a label of a copy is the image's."""
    ids = data.split("pool").images.ids
    known = {ids[r]: g for r, g in zip(rows.tolist(), given.tolist(), strict=True) if g >= 0}
    return np.array([known.get(ids[row], -1) for row in distinct.tolist()], dtype=np.int64)
