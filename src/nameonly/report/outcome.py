"""What the page takes from a run: its estimates row by row, its synthetic images."""

import torch
from PIL import Image

from nameonly.pipeline import Outcome
from nameonly.report.synthetic import MadeImages
from nameonly.report.trust import TrustInput
from nameonly.trust.audit import audit_sample
from nameonly.trust.structure import feature_map, two_groups

# images of the audit that the page shows
AUDIT_SHOWN = 12


def trust_input(outcome: Outcome) -> TrustInput | None:
    """Return the estimates row by row: distinct images become sources."""
    found = outcome.assessment
    if found is None:
        return None
    rows, features = outcome.inputs.feature_rows(), outcome.inputs.features
    first = torch.full((len(features),), -1)
    first[rows.flip(0)] = torch.arange(len(rows)).flip(0)
    labels = outcome.predictions.labels[first]
    open_ = labels >= 0
    if outcome.given is not None:
        open_ &= outcome.given[first] < 0
    audited: list[int] = []
    if open_.any():
        sure = found.confidence.masked_fill(~open_, float("nan"))
        audited = first[audit_sample(sure, AUDIT_SHOWN).rows].tolist()
    shown, places = feature_map(features)
    largest = torch.bincount(labels[labels >= 0], minlength=1).argsort(descending=True)[:40]
    return TrustInput(
        found.confidence[rows].numpy(),
        found.unknown_scores[rows].numpy(),
        found.suspected[rows].numpy(),
        first[shown].numpy(),
        places.numpy(),
        tuple(audited),
        two_groups(features, labels, largest.tolist()),
    )


def made_images(outcome: Outcome) -> MadeImages | None:
    """Return the synthetic images that were learnt from, None where there were none."""
    support = outcome.support
    if support is None:
        return None

    def opened(path: str) -> Image.Image:
        return Image.open(support.folder / path)

    return MadeImages(support.rows, outcome.worth, opened)
