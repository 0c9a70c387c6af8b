"""Labels and probabilities for cleanlab's ``find_label_issues(labels, pred_probs)``.

``labels.npy`` (int64) holds the given label where one is known, else the run's; sources without
either are left out. ``pred_probs.npy`` (float32) has their rows in the same order, which
``rows.csv`` names. A run that saw a label does not judge it from outside, as cleanlab asks.
https://docs.cleanlab.ai/stable/cleanlab/filter.html
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from nameonly.export.csv_table import write_csv
from nameonly.export.labelled import LabelledRun


def write(run: LabelledRun, place: Path) -> dict[str, Any]:
    """Write ``labels.npy``, ``pred_probs.npy``, ``rows.csv`` and ``classes.json``.

    Raises:
        ValueError: If the run's table holds no probabilities.
        OSError: If a file cannot be written.
    """
    index = {name: i for i, name in enumerate(run.class_names)}
    rows = list(run.rows())
    named = [row.label if row.given_label is None else row.given_label for row in rows]
    kept = [i for i, name in enumerate(named) if name is not None]
    labels = np.array([index[str(named[i])] for i in kept], dtype=np.int64)
    np.save(place / "labels.npy", labels, allow_pickle=False)
    np.save(place / "pred_probs.npy", run.probs()[kept], allow_pickle=False)
    columns = ["path", "id", "label", "given_label"]
    write_csv(
        place / "rows.csv",
        columns,
        ([getattr(rows[i], column) for column in columns] for i in kept),
    )
    text = json.dumps(list(run.class_names), ensure_ascii=False, indent=2)
    (place / "classes.json").write_text(text + "\n", encoding="utf-8")
    notes = [] if run.has_all_probs else [f"{NOT_ALL}: the rest of each row is spread evenly"]
    return {"exported": len(kept), "notes": notes}


NOT_ALL = "the run keeps the five most probable classes of each image"
