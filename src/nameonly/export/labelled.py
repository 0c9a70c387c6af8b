"""What a run has labelled, read from its folder, and its images found again."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from nameonly.backbones._feature_file import is_feature_file
from nameonly.images import Quarantined, open_images
from nameonly.journal import OnProgress
from nameonly.pipeline import ImageSpec
from nameonly.types import ImageSet

LABELS = "labels.parquet"
RUN = "run.json"
ROWS_AT_ONCE = 10_000
NEEDED = ("path", "id", "label", "probability", "runner_up", "margin")


@dataclass(frozen=True)
class ExportRow:
    """One source of a run, and what it was labelled.

    Attributes:
        path: The source, as the run names it.
        id: Hash of its bytes.
        label: Its class; None where the run abstained.
        probability: Of the label; where the run abstained, of the most probable class.
        runner_up: The most probable other class.
        margin: Difference of the two probabilities.
        zero_shot_label: What the text alone says; None where that is not known.
        given_label: What was known before; None where nothing was.
        confidence: How sure the most probable class is, calibrated; None where no run says so.
        unknown_score: How unlike all classes it is; None where no run says so.
        suspected_unknown: Whether it may be of none of the classes; None where no run says so.
    """

    path: str
    id: str
    label: str | None
    probability: float
    runner_up: str | None
    margin: float
    zero_shot_label: str | None = None
    given_label: str | None = None
    confidence: float | None = None
    unknown_score: float | None = None
    suspected_unknown: bool | None = None

    def facts(self) -> dict[str, Any]:
        """Return its fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class LabelledRun:
    """A finished run of ``label`` or ``predict``.

    Attributes:
        folder: It was read from.
        facts: Content of ``run.json``.
        class_names: In the order of the probabilities.
        table: Content of ``labels.parquet``, or some of its rows.
    """

    folder: Path
    facts: dict[str, Any]
    class_names: tuple[str, ...]
    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    @property
    def provenance(self) -> dict[str, str]:
        """Who labelled: recipe, backbone, and the version of nameonly."""
        backbone = self.facts.get("backbone") or {}
        return {
            "recipe": str(self.facts.get("recipe", "")),
            "backbone": str(backbone.get("name") or backbone.get("model") or ""),
            "nameonly": str(self.facts.get("nameonly", "")),
        }

    @property
    def model_version(self) -> str:
        """Who labelled, in one line."""
        who = self.provenance
        return f"nameonly {who['nameonly']} {who['recipe']} {who['backbone']}".strip()

    @property
    def n_abstained(self) -> int:
        """How many sources have no label."""
        return int(self.table["label"].null_count)

    @property
    def has_all_probs(self) -> bool:
        """Whether the run kept the probability of every class."""
        return all(f"p_{name}" in self.table.column_names for name in self.class_names)

    def rows(self) -> Iterator[ExportRow]:
        """Yield the sources in the table's order."""
        names = [n for n in ExportRow.__annotations__ if n in self.table.column_names]
        for batch in self.table.select(names).to_batches(max_chunksize=ROWS_AT_ONCE):
            for row in batch.to_pylist():
                yield ExportRow(**row)

    def at_least(self, confidence: float) -> "LabelledRun":
        """Return the run without the rows that are less certain.

        Args:
            confidence: The least one; of runs without that column, the least probability.
        """
        if confidence == 0:
            return self
        known = "confidence" in self.table.column_names
        column = pc.field("confidence" if known else "probability")
        return replace(self, table=self.table.filter(column >= confidence))

    def labelled(self) -> "LabelledRun":
        """Return the run without the rows on which it abstained."""
        return replace(self, table=self.table.filter(pc.field("label").is_valid()))

    def probs(self) -> Float32[np.ndarray, "n c"]:
        """Return the probability of every class.

        Of many classes a run keeps the five most probable; the rest of each row is then spread
        evenly over its other classes.

        Raises:
            ValueError: If the table holds neither.
        """
        if self.has_all_probs:
            columns = [self.table[f"p_{name}"].to_numpy() for name in self.class_names]
            return np.stack(columns, axis=1).astype(np.float32)
        if "top_labels" not in self.table.column_names:
            raise ValueError(f"{self.folder / LABELS} holds no probabilities of the classes")
        place = {name: i for i, name in enumerate(self.class_names)}
        top = np.array([[place[n] for n in row] for row in self.table["top_labels"].to_pylist()])
        values = np.array(self.table["top_probabilities"].to_pylist(), dtype=np.float32)
        n, c = len(self), len(self.class_names)
        rest = np.clip(1 - values.sum(axis=1, keepdims=True), 0, None) / (c - top.shape[1])
        probs = np.broadcast_to(rest, (n, c)).astype(np.float32)
        np.put_along_axis(probs, top, values, axis=1)
        return probs


def read_run(folder: Path) -> LabelledRun:
    """Read the folder of a run.

    Raises:
        ValueError: If it is none, or a damaged one.
    """
    if not ((folder / LABELS).is_file() and (folder / RUN).is_file()):
        raise ValueError(
            f"{folder} holds no run: expected {LABELS} and {RUN}, as `nameonly label` and "
            "`nameonly predict` write them"
        )
    try:
        facts = json.loads((folder / RUN).read_text(encoding="utf-8"))
        names, _ = tuple(map(str, facts["classes"])), str(facts["input"])
        table = pq.read_table(folder / LABELS)
        table.select(list(NEEDED))
        given = "given_label" if "given_label" in table.column_names else "label"
        strange = {v for key in ("label", given) for v in table[key].unique().to_pylist()}
        strange -= {None, *names}
        if strange:
            raise ValueError(f"labels {sorted(strange)} are none of the classes {list(names)}")
    except Exception as error:  # JSON, parquet and missing keys each raise their own
        raise ValueError(f"{folder} is no whole run of `nameonly label`: {error}") from error
    return LabelledRun(folder, facts, names, table)


def find_images(
    run: LabelledRun,
    spec: ImageSpec | None = None,
    column: str | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[ImageSet, list[Quarantined]]:
    """Find a run's images again.

    Args:
        run: That labelled them.
        spec: Where they lie now; None for where they lay.
        column: Of a table of images; None for the run's, where they lie as they lay.
        on_progress: Called with done and total.

    Returns:
        All images that lie there, other ones too; and what cannot be read.

    Raises:
        ValueError: If they are not there, or none of them is one that the run labelled.
    """
    source = str(run.facts["input"]) if spec is None else spec
    if is_feature_file(source):
        raise ValueError(
            f"{run.folder} labels features of your own ({source}), which hold no images; name "
            "their images with --images, if their ids are hashes of the images' bytes"
        )
    try:
        found, unreadable = open_images(
            source,
            column=run.facts.get("column") if column is None and spec is None else column,
            on_progress=on_progress,
        )
    except ValueError as error:
        raise ValueError(
            f"the images that {run.folder} labels are not there ({error}); name them with --images"
        ) from error
    if set(found.ids).isdisjoint(run.table["id"].to_pylist()):
        raise ValueError(
            f"none of the {len(found)} images is one that {run.folder} labels; name them with "
            "--images"
        )
    return found, unreadable
