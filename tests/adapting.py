"""Adapts and draws in forked children: killed in the midst of LoRA training, or two at once.

Started as a program by ``test_adapting.py``, see ``killing.py``. Writes ``found.json``.
"""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import diffusers  # noqa: F401 - so that the children find them imported
import peft  # noqa: F401
from diffusers import (  # noqa: F401
    AutoencoderKL,
    AutoPipelineForText2Image,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusion_models import CLASSES, generator
from killing import Moment, Watch
from PIL import Image

from nameonly import jobs
from nameonly.backbones.clip import ClipBackbone
from nameonly.generation import Generation, Wanted, generate
from nameonly.journal import Journal
from nameonly.loop import Schedule
from nameonly.recipes.air import Air
from nameonly.synthesis._adaptation import lora_id
from nameonly.synthesis.domain_lora import DomainLora
from nameonly.synthesis.prompt_tricks import PromptTricks
from nameonly.synthesis.support_set import SupportSet

EPOCHS = 7
LEARNER = DomainLora(2, schedule=Schedule(EPOCHS, 4, 1e-2), dtype="float32", flip=False)


class Heard:
    """Writes down the epochs and the images that a run was told of, and its notes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *line) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def progress(self, done: int, total: int) -> None:
        self.write("epoch" if total == EPOCHS else "other", done)

    def note(self, text: str) -> None:
        self.write("note", text)

    def lines(self, kind: str) -> list:
        if not self.path.exists():
            return []
        found = map(json.loads, self.path.read_text().splitlines())
        return [value for name, value in found if name == kind]


def backbone():
    return ClipBackbone("tiny", device="cpu", dtype="float32")


def make(model: Path, photos: Path, out: Path, cache: Path, watch: Watch | None = None) -> Heard:
    """Generate into a folder in this process, which a watch may kill."""
    heard = Heard(out.with_suffix(f".{os.getpid()}"))
    wanted = Wanted(CLASSES, 2, photos, backbone=backbone(), cache=cache)
    parts = Generation(PromptTricks(("base",)), generator(model, steps=2), LEARNER)
    stage = None
    if watch is not None:
        stage = watch.begin
        sys.addaudithook(watch.audit)
    generate(wanted, parts, out, Journal(None, stage, heard.progress, heard.note))
    return heard


def label(model: Path, photos: Path, out: Path, cache: Path) -> None:
    """Label by AiR in this process."""
    heard = Heard(out.with_suffix(".heard"))
    recipe = Air()
    once = replace(recipe.prompt_learning, schedule=Schedule(1, 16, 1e-3))
    recipe = replace(
        recipe,
        domain_lora=LEARNER,
        text_to_image=generator(model, steps=2),
        support_set=SupportSet(images_per_class=2),
        prompt_learning=once,
        relabelling=replace(recipe.relabelling, rounds=1),
    )
    jobs.label(
        photos,
        CLASSES,
        recipe=recipe,
        backbone=backbone(),
        out=out,
        cache=cache,
        on_progress=heard.progress,
        on_note=heard.note,
    )


def started(work) -> int:
    """Start a child that does a piece of work; what stopped it lies beside its output."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                work()
                code = 0
            except ValueError as error:
                Path(f"{os.getpid()}.error").write_text(str(error))
            except BaseException:
                traceback.print_exc()
        os._exit(code)
    return child


def ended(child: int) -> dict:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    error = Path(f"{child}.error")
    return {"code": code, "error": error.read_text() if error.exists() else ""}


def until(there) -> None:
    """Wait for a file."""
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*.webp"))}


def kill(model: Path, photos: Path, root: Path) -> dict:
    """Kill LoRA training at three moments, resume, and compare with a run that was left alone."""

    def count() -> None:
        watch = Watch(None, nobody)
        make(model, photos, root / "whole", root / "c", watch)
        (root / "steps.json").write_text(json.dumps(watch.operations["adapt"]))

    nobody = os.open(os.devnull, os.O_WRONLY)
    assert ended(started(count))["code"] == 0
    steps = json.loads((root / "steps.json").read_text())
    want = lora_id(root / "whole" / "lora"), contents(root / "whole")
    watches = {
        "writing": Watch(Moment("adapt", nth=steps // 2), nobody),
        "learning": None,
        # the LoRA is there, and its state too
        "clearing": Watch(Moment("adapt", nth=steps - 2), nobody),
    }
    found = {}
    for name, watch in watches.items():
        out, codes, heard, left = root / name, [], [], []
        for turn in (watch, None):
            child = started(lambda k=turn: make(model, photos, out, root / "c", k))  # noqa: B023
            told = Heard(out.with_suffix(f".{child}"))
            if name == "learning" and not codes:
                until(lambda: len(told.lines("epoch")) == 2)  # noqa: B023
                time.sleep(0.02)  # into the next epoch
                os.kill(child, signal.SIGKILL)
            codes.append(ended(child)["code"])
            heard.append(told.lines("epoch"))
            left.append(sorted(p.name for p in (out / "lora").iterdir()))
        same = (lora_id(out / "lora"), contents(out)) == want
        found[name] = {"codes": codes, "epochs": heard, "same": same, "left": left}
    return found | {"images": len(want[1])}


def generations(model: Path, photos: Path, root: Path) -> dict:
    """Generate into one folder twice at once."""
    out, cache = root / "one", root / "c"
    first = started(lambda: make(model, photos, out, cache))
    until(lambda: Heard(out.with_suffix(f".{first}")).lines("epoch"))
    begun = time.monotonic()
    second = ended(started(lambda: make(model, photos, out, cache)))
    training = len(Heard(out.with_suffix(f".{first}")).lines("epoch")) < EPOCHS
    return {
        "second": second,
        "seconds": time.monotonic() - begun,
        "while_training": training,
        "first": ended(first),
        "same": lora_id(out / "lora") == lora_id(root / "whole" / "lora"),
    }


def labellings(model: Path, photos: Path, root: Path) -> dict:
    """Label by AiR twice at once, with one cache."""
    cache, outs = root / "shared", [root / "label-1", root / "label-2"]
    first = started(lambda: label(model, photos, outs[0], cache))
    until(lambda: Heard(outs[0].with_suffix(".heard")).lines("epoch"))
    second = started(lambda: label(model, photos, outs[1], cache))
    ends = [ended(first), ended(second)]
    heard = [Heard(out.with_suffix(".heard")) for out in outs]
    return {
        "ends": ends,
        "epochs": [h.lines("epoch") for h in heard],
        "notes": [h.lines("note") for h in heard],
        "loras": len(list((cache / "lora").glob("*/*.safetensors"))),
        "labels_alike": len({(out / "labels.parquet").read_bytes() for out in outs}) == 1,
    }


def main(model: Path, photos: Path, root: Path) -> None:
    """Do all of it."""
    os.chdir(root)
    Image.init()
    found = {work.__name__: work(model, photos, root) for work in (kill, generations, labellings)}
    (root / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
