"""The folders ``train`` and ``val`` of a classification set, as Ultralytics' YOLO reads them.

An image is put into ``val`` by a hash of its bytes, so that it stays on its side when others are
added, and copies of one image never lie on both. Every class has a folder on both sides, an empty
one if need be: each side's classes are numbered on their own.
https://docs.ultralytics.com/datasets/classify/
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from nameonly.export.imagefolder import write_classes
from nameonly.export.labelled import LabelledRun
from nameonly.export.pictures import OF_TORCHVISION, Pictures, class_folders

VAL_SHARE = 0.1


def sides(run: LabelledRun, val_share: float) -> dict[str, str]:
    """Return ``train`` or ``val`` for the id of every labelled image.

    ``val`` gets those whose hash lies in the first share of all hashes, but of each class with two
    images or more at least one, and never all.
    """
    of_class: dict[str, dict[str, float]] = {name: {} for name in run.class_names}
    for row in run.labelled().rows():
        assert row.label is not None
        digest = hashlib.sha256(row.id.encode()).digest()
        of_class[row.label][row.id] = int.from_bytes(digest[:8], "big") / 2**64
    found: dict[str, str] = {}
    for hashes in of_class.values():
        n_val = sum(value < val_share for value in hashes.values())
        n_val = min(max(n_val, 1), len(hashes) - 1)
        for n, image_id in enumerate(sorted(hashes, key=lambda i: (hashes[i], i))):
            found[image_id] = "val" if n < n_val else "train"
    return found


def write(
    run: LabelledRun, pictures: Pictures, place: Path, val_share: float = VAL_SHARE
) -> dict[str, Any]:
    """Write ``train/CLASS/file``, ``val/CLASS/file`` and ``classes.json``.

    Raises:
        ValueError: If the share does not lie between 0 and 1.
        OSError: If a file cannot be written.
    """
    if not 0 < val_share < 1:
        raise ValueError(f"--val-share must lie between 0 and 1, got {val_share}")
    folders = class_folders(run.class_names)
    counts: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
    for name in counts:
        for folder in folders.values():
            (place / name / folder).mkdir(parents=True)
    side_of = sides(run, val_share)
    for row in run.labelled().rows():
        assert row.label is not None
        of = side_of[row.id]
        if pictures.put(row, place / of / folders[row.label], OF_TORCHVISION) is not None:
            counts[of][row.label] += 1
    write_classes(run, place)
    train, val = (sum(counts[of].values()) for of in ("train", "val"))
    untaught = [name for name in counts["val"] if not counts["train"][name]]
    notes = [f"class {name!r} has images in val, and none in train" for name in untaught]
    if train and not val:
        notes.append(f"no image fell into val, of {train}: two images of a class are needed")
    return {"exported": train + val, "train": train, "val": val, "notes": notes}
