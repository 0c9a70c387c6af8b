"""LoRA: adding it to a pipeline, files of it, whose they are."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from nameonly.extras import import_extra

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
FILE = "pytorch_lora_weights.safetensors"
MODEL, TRAINING = "nameonly.model", "nameonly.training"
UNKNOWN = "unknown"
# beside a LoRA until it is trained: the state of its training, and the latents
STATES, LATENTS, PARTIAL = "training-*.safetensors", "latents.safetensors", ".partial"


def lora_file(path: Path) -> Path:
    """Return the file of LoRA weights that a path names, itself or in a folder.

    Raises:
        ValueError: If there is none, or it is no safetensors.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"there is no LoRA at {path}: expected a folder with {FILE}, or a file")
    if file.suffix != ".safetensors":
        raise ValueError(f"{file.name} is not safetensors, and other LoRA files are pickles")
    return file


def lora_id(path: Path) -> str:
    """Return a hash of a LoRA's matrices; what else its file says comes in chance order.

    Raises:
        ValueError: If there is no LoRA, or it is damaged.
    """
    digest = hashlib.sha256()
    with opened(lora_file(path)) as file:
        for name in sorted(file.keys()):
            values = file.get_tensor(name).contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a file of LoRA weights.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        with safe_open(file, framework="pt") as found:
            yield found
    except (SafetensorError, OSError) as error:
        raise ValueError(f"the LoRA {file} is damaged ({error}); train it again") from error


def trained_for(folder: Path) -> str:
    """Return what a LoRA says it was trained on; empty where there is none, or a damaged one.

    One of somebody's own says nothing, and is another than any that is trained here.
    """
    try:
        with safe_open(folder / FILE, framework="pt") as found:
            return (found.metadata() or {}).get(TRAINING) or UNKNOWN
    except (OSError, SafetensorError):
        return ""


def epochs_behind(folder: Path) -> int:
    """Return how many epochs a training that was stopped has behind it, 0 where there is none."""
    behind = [0]
    for path in folder.glob(STATES):
        with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as found:
            behind.append(int((found.metadata() or {}).get("epoch", "0")))
    return max(behind)


def forget_training(folder: Path) -> None:
    """Remove what a finished training no longer needs."""
    for path in (*folder.glob(STATES), folder / LATENTS):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or a file of somebody lies in it
        (folder / PARTIAL).rmdir()


def load_lora(pipeline: Any, path: Path, fingerprint: str) -> None:
    """Put a LoRA into a pipeline.

    Args:
        pipeline: Of diffusers.
        path: A file, or the folder that ``save_lora_weights`` wrote.
        fingerprint: Of the pipeline's model; one that the file names must be the same.

    Raises:
        ValueError: If the file is damaged or belongs to another model.
    """
    file = lora_file(path)
    with opened(file) as found:
        made_for = (found.metadata() or {}).get(MODEL)
    if made_for is not None and made_for != fingerprint:
        raise ValueError(
            f"the LoRA {file} was trained for the model {made_for} and this one is {fingerprint}; "
            "use the model that it was trained for, or train it again"
        )
    try:
        pipeline.load_lora_weights(file.parent, weight_name=file.name, local_files_only=True)
    except Exception as error:  # a file of another architecture raises nearly anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the LoRA {file} does not fit this model: {reason}") from error


def add_lora(pipeline: Any, rank: int, seed: int) -> list[nn.Parameter]:
    """Add matrices of a rank to the attention projections of a U-Net; all else is frozen.

    Returns:
        What is to be trained, in float32.

    Raises:
        ValueError: If peft is missing, or the model has no U-Net that takes text alone.
    """
    peft = import_extra("peft", "peft", "synth")
    unet = getattr(pipeline, "unet", None)
    if unet is None or unet.config.get("addition_embed_type") is not None:
        raise ValueError(
            f"a LoRA is trained for Stable Diffusion 1.x and 2.x, this is a "
            f"{type(pipeline).__name__}; take one of those, or leave the adaptation out"
        )
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).train(name == "unet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(PROJECTIONS))
        unet.add_adapter(config)
    parameters = [p for p in unet.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def save_lora(pipeline: Any, folder: Path, fingerprint: str, key: str) -> None:
    """Write the trained matrices as diffusers does, with the model that they belong to.

    Raises:
        OSError: If they cannot be written.
    """
    trained = import_extra("peft", "peft", "synth").get_peft_model_state_dict(pipeline.unet)
    diffusers = import_extra("diffusers", "diffusers", "synth")
    layers = diffusers.utils.convert_state_dict_to_diffusers(trained)
    partial = folder / PARTIAL
    pipeline.save_lora_weights(partial, unet_lora_layers=layers)
    with opened(partial / FILE) as found:
        about = {**(found.metadata() or {}), MODEL: fingerprint, TRAINING: key}
    save_file(load_file(partial / FILE), partial / FILE, about)
    (partial / FILE).replace(folder / FILE)
