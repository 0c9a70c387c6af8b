"""The command ``train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nameonly.cli_options import (
    Cache,
    Device,
    Json,
    Out,
    Overwrite,
    Seed,
    print_json,
    share,
)
from nameonly.methods import settings_from

if TYPE_CHECKING:
    from nameonly.console import Console


def train(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders that `generate` and `label` wrote.")
    ],
    out: Out,
    arch: Annotated[str, typer.Option(help="Architecture, as timm names it.")] = "resnet50",
    recipe: Annotated[
        Literal["modern", "paper"],
        typer.Option(help="paper: MA-ZSC's; modern: RandAugment, mixup, averaged weights."),
    ] = "modern",
    size: Annotated[int, typer.Option(min=1, help="Side of the network's images.")] = 224,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 50,
    pretrained: Annotated[
        str, typer.Option(help="timm, or a safetensors file; from scratch if left out.")
    ] = "",
    images: Annotated[
        list[str] | None, typer.Option(help="Where the images of `label` lie now; repeatable.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also write model.int8.onnx.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="training.flip=false, training.mixup=0.4; repeatable."),
    ] = None,
    seed: Seed = 0,
    cache: Cache = None,
    device: Device = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="Of training's products.")
    ] = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a network of your own on synthetic or labelled images. Needs the extra train."""
    from nameonly import methods, training_job
    from nameonly.console import Console
    from nameonly.journal import Journal
    from nameonly.training.image_classifier import MODERN, ImageClassifier

    chosen: dict[str, object] = dict(MODERN) if recipe == "modern" else {}
    chosen |= {"architecture": arch, "size": size, "schedule.epochs": epochs, "seed": seed}
    chosen |= {"pretrained": pretrained, "device": device, "dtype": dtype}
    for key, value in settings_from(set_ or []).items():
        stage, dot, name = key.partition(".")
        if stage != "training" or not dot:
            raise ValueError(f"--set expects training.field=value here, got {key!r}")
        chosen[name] = value
    wanted = training_job.Training(
        folders,
        methods.reconfigure(ImageClassifier(), chosen),
        images,
        int8,
        overwrite,
        **({} if cache is None else {"cache": cache}),
    )
    with Console(quiet=as_json) as console:
        journal = Journal(None, console.stage, console.progress)
        found = training_job.train(wanted, out, journal)
    print_json(found) if as_json else _tell(console, found)


def _tell(console: "Console", found: dict[str, Any]) -> None:
    """Print what a training gave and where it lies."""
    seconds = sum(found["timings"].values())
    console.line(
        f"{found['settings']['architecture']} trained on {found['images']:,} images of "
        f"{len(found['classes'])} classes in {seconds:.1f} s"
    )
    if found["unreadable"]:
        console.line(f"{len(found['unreadable']):,} could not be read: see run.json")
    learnt = found["learnt"]
    console.line(
        f"{share(learnt['share'])} of {learnt['images']} images that it learnt from are "
        "labelled as they were taught"
    )
    if learnt["share"] < 2 / len(found["classes"]):
        console.line("that is little more than chance: train longer, or look at the images")
    for name, parity in found["onnx"].items():
        console.line(
            f"{name}: {share(parity['same_labels'])} of {parity['images']} images labelled as "
            f"by torch, probabilities differ by {parity['max_difference']:.1g} at most"
        )
    console.line(f"classifier  {found['out']}/classifier")
    console.line("nothing was measured: the accuracy is not known")
