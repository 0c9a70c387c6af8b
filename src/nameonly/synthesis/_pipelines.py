"""Pipelines of ``diffusers``: loading, identity, and texts encoded once."""

import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nameonly.extras import import_extra
from nameonly.synthesis._adaptation import load_lora
from nameonly.synthetic import ImageRequest
from nameonly.tiny import DIFFUSION

TINY = "tiny"
TEXTS_KEPT = 256
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "lcm": "LCMScheduler",
}
Scheduler = Literal["model", "ddim", "dpm++", "euler", "euler-ancestral", "pndm", "lcm"]
EMBEDDINGS = (
    *("prompt_embeds", "negative_prompt_embeds"),
    *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
)


def import_diffusers() -> Any:
    """Return the package diffusers.

    Raises:
        ValueError: If it is not installed, or does not work here.
    """
    return import_extra("diffusers", "diffusers", "synth")


@contextmanager
def quietly() -> Iterator[None]:
    """Keep diffusers from showing bars and warnings for what is as it should be."""
    logging = import_diffusers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def find_model(model: str, revision: str, download: bool = True) -> Path:
    """Return the folder of a model: a local one, the bundled one, or the hub's copy.

    Args:
        model: A folder, a hub id, or ``"tiny"``.
        revision: On the hub.
        download: Whether a model that is not on this machine may be had from the hub.

    Raises:
        ValueError: If there is no such folder and the hub does not give it.
    """
    diffusers = import_diffusers()
    folder = DIFFUSION if model == TINY else Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ValueError(
                f"{folder} is no pipeline of diffusers: it has no model_index.json. A single file "
                "of weights is converted by from_single_file and save_pretrained"
            )
        return folder
    try:
        return Path(
            diffusers.DiffusionPipeline.download(
                model, revision=revision, use_safetensors=True, local_files_only=not download
            )
        )
    except Exception as error:  # every kind of failure to get it means the same here
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the model hub did not give {model!r} ({reason}), and there is no folder of that "
            "name. Where the hub cannot be reached, download the model elsewhere and pass its "
            "folder"
        ) from error


def fingerprint(folder: Path) -> str:
    """Return the hub's commit of a folder, or a hash of its files where it is no hub's copy."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".safetensors", ".json"}:
            stat = path.stat()
            content = _file_hash(path, stat.st_size, stat.st_mtime_ns)
            digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:32]


@cache
def _file_hash(path: Path, _size: int, _changed: int) -> str:
    """Return the hash of a file; one of gigabytes is read once as long as it stays as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_pipeline(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    scheduler: Scheduler = "model",
    lora: Path | None = None,
) -> Any:
    """Load a text-to-image pipeline of any architecture that diffusers has, from safetensors alone.

    Raises:
        ValueError: If the folder is damaged, has no safetensors, or is no such pipeline, or the
            LoRA is another model's.
    """
    diffusers = import_diffusers()
    with quietly():
        try:
            pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        except Exception as error:  # a bad folder raises nearly anything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"cannot load {folder} as a text-to-image model: {reason}") from error
        if lora is not None:
            load_lora(pipeline, lora, fingerprint(folder))
    if scheduler != "model":
        made = getattr(diffusers, SCHEDULERS[scheduler])
        pipeline.scheduler = made.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def scheduler_name(folder: Path, scheduler: Scheduler) -> str:
    """Return the class of a model's scheduler, or of the one that takes its place.

    Raises:
        ValueError: If the folder does not tell it.
    """
    if scheduler != "model":
        return SCHEDULERS[scheduler]
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return str(index["scheduler"][1])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"cannot load {folder} as a text-to-image model: its model_index.json is damaged "
            f"({error})"
        ) from error


def tells_steps(pipeline: Any) -> bool:
    """Return whether a pipeline tells of every step that it takes; not all of diffusers' do."""
    return "callback_on_step_end" in inspect.signature(type(pipeline).__call__).parameters


def image_to_image(pipeline: Any) -> Any:
    """Return the pipeline that starts from an image, with the very same weights.

    Raises:
        ValueError: If diffusers has none for this architecture.
    """
    try:
        made = import_diffusers().AutoPipelineForImage2Image.from_pipe(pipeline)
    except ValueError as error:
        raise ValueError(
            f"{type(pipeline).__name__} cannot start from an image: {error}"
        ) from error
    made.set_progress_bar_config(disable=True)
    return made


def picture_side(pipeline: Any) -> int:
    """Return the side in pixels that a model was made for."""
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    return int(denoiser.config.sample_size * pipeline.vae_scale_factor)


def guided(scale: float) -> bool:
    """Return whether a guidance scale guides: each step then asks without the text as well."""
    return scale > 1


def draw_batch(
    pipeline: Any, encode: "PromptEncoder", requests: Sequence[ImageRequest], **more: Any
) -> tuple[Float[np.ndarray, "b h w 3"], list[bool]]:
    """Make images of one guidance scale.

    Args:
        pipeline: Of diffusers.
        encode: Its prompts.
        requests: What to make; each has a generator of its own.
        more: What else the pipeline is told.

    Returns:
        Values in [0, 1], and which images a safety checker refused.
    """
    scale = requests[0].guidance_scale
    made = pipeline(
        **encode([request.prompt for request in requests], guided=guided(scale)),
        generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        guidance_scale=scale,
        output_type="np",
        **more,
    )
    refused = getattr(made, "nsfw_content_detected", None) or [False] * len(requests)
    return made.images, [bool(r) for r in refused]


class PromptEncoder:
    """Encodes every prompt once; a pipeline alone would encode it for every image.

    Each prompt is encoded by itself, so that its numbers do not depend on its neighbours.
    """

    def __init__(self, pipeline: Any) -> None:
        """Make an encoder; other pipelines than Stable Diffusion's get their prompts as they are.

        Those give their embeddings under other names and in another order.
        """
        self._pipeline = pipeline
        self._known: OrderedDict[str, tuple[Tensor | None, ...]] = OrderedDict()
        self._negative: dict[str, Tensor | None] = {}

    def __call__(self, prompts: Sequence[str], guided: bool) -> dict[str, Any]:
        """Return the keyword arguments that give these prompts to the pipeline."""
        if not type(self._pipeline).__name__.startswith("StableDiffusion"):
            return {"prompt": list(prompts)}
        rows = [self._encode(prompt) for prompt in prompts]
        names = EMBEDDINGS[: len(rows[0])]
        given: dict[str, Any] = {}
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            if guided or not name.startswith("negative"):
                given[name] = torch.cat(values)
        return given

    def _encode(self, prompt: str) -> tuple[Tensor | None, ...]:
        if prompt in self._known:
            self._known.move_to_end(prompt)
            return self._known[prompt]
        encode = self._pipeline.encode_prompt
        wanted = {
            "prompt": [prompt],
            "device": self._pipeline.device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": True,
        }
        parameters = inspect.signature(encode).parameters
        wanted |= {"prompt_2": None, "prompt_3": None} | self._negative
        with torch.no_grad():
            found = tuple(encode(**{k: v for k, v in wanted.items() if k in parameters}))
        # the empty text is the same beside every prompt
        named = zip(EMBEDDINGS, found, strict=False)
        self._negative = {name: value for name, value in named if name.startswith("negative")}
        self._known[prompt] = found
        if len(self._known) > TEXTS_KEPT:
            self._known.popitem(last=False)
        return self._known[prompt]
