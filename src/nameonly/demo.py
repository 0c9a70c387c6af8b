"""The demo: real handwritten digits, labelled as a user would, then compared with the truth."""

from pathlib import Path
from typing import Any, Unpack

from nameonly import jobs
from nameonly.evaluation.evaluate import evaluate_labels
from nameonly.tiny.digits import CLASS_NAMES, export


def run_demo(folder: Path, **options: Unpack[jobs.Options]) -> dict[str, Any]:
    """Export the digits as PNG files, label them from ten names, evaluate.

    The truth is opened by the evaluation alone, after the labels are written.

    Args:
        folder: Folder to write: ``digits/`` with the images, ``labels/`` with the run.
        options: See ``jobs.Options``.

    Returns:
        n_images, zero_shot_accuracy, accuracy, mean_class_accuracy, estimated_accuracy and its
        interval, report, labels, images.

    Raises:
        ValueError: If ``folder`` holds other files, or a finished demo without ``overwrite``.
    """
    run_folder = folder / "labels"
    overwrite = options.get("overwrite", False)
    if (
        folder.exists()
        and not run_folder.exists()
        and any(p.name != "digits" and not p.name.startswith(".") for p in folder.iterdir())
    ):
        raise ValueError(f"{folder} exists and is no demo's folder; choose another with --out")
    if (run_folder / "run.json").exists() and not overwrite:
        raise ValueError(f"{folder} holds a finished demo; pass --overwrite to run it again")
    images, truth = export(folder / "digits")
    options["out"] = run_folder
    run = jobs.label(images, CLASS_NAMES, backbone="tiny", **options)
    found = evaluate_labels(run_folder / "labels.parquet", truth)
    return {
        "n_images": found.n,
        "zero_shot_accuracy": found.zero_shot_accuracy,
        "accuracy": found.accuracy,
        "mean_class_accuracy": found.mean_class_accuracy,
        "estimated_accuracy": run.summary["estimated_accuracy"],
        "estimated_accuracy_interval": run.summary["estimated_accuracy_interval"],
        "recipe": run.summary["recipe"],
        "backbone_note": run.summary["backbone"]["note"],
        "images": str(images),
        "labels": str(run_folder / "labels.parquet"),
        "report": str(run_folder / "report.html"),
    }
