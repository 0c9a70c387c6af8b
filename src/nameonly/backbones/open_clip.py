"""Models of the open_clip library.

Paper: Cherti et al. Reproducible Scaling Laws for Contrastive Language-Image Learning. CVPR 2023,
    arXiv 2212.07143.
Differs: weights are read from safetensors only; what open_clip would warn of or guess is refused
    (QuickGELU for GELU, preprocessing that is not known, resized positions). A logit bias is left
    out: it is the same for every class and moves no softmax.
Code: github.com/mlfoundations/open_clip
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from nameonly.backbones import _open_clip_prompts
from nameonly.backbones._devices import (
    choose_device,
    choose_dtype,
    encode_in_batches,
    in_passes,
    unit_rows,
)
from nameonly.backbones._open_clip_source import (
    PREFIX,
    Source,
    find,
    import_open_clip,
    tokenizer_files,
)
from nameonly.types import PromptShape

__all__ = ["OpenClipBackbone"]

TEXTS_PER_CHUNK = 256


def file_digest(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_positions(network: torch.nn.Module, weights: Path) -> None:
    """Refuse a file of weights whose positions open_clip has resized to fit.

    Raises:
        ValueError: If positions in the file have another shape than in the model.
    """
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    with safe_open(weights, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            if not key.endswith("positional_embedding"):
                continue
            own = next((k for k in (key, f"text.{key}") if k in shapes), None)
            found = file.get_slice(key).get_shape()
            if own is not None and shapes[own] != found:
                raise ValueError(
                    f"{weights.name} has {key} of shape {found} and the model {shapes[own]}: "
                    "the weights are of another image size or text length, name their own model"
                )


@dataclass(frozen=True)
class OpenClipBackbone:
    """Any model of open_clip: CLIP, CoCa, SigLIP, with towers of open_clip, timm or transformers.

    Needs the package open_clip_torch (the extra ``open-clip``). Weights are read from safetensors
    only, and code from a hub is never run.

    Attributes:
        model: ``MODEL/TAG`` for pretrained weights that open_clip knows; ``MODEL/TAG@FILE`` for
            other weights of that kind (same preprocessing); ``MODEL/FILE`` with an
            open_clip_config.json beside the file; ``hf-hub:OWNER/NAME``; or a folder with
            open_clip_config.json and open_clip_model.safetensors.
        device: ``"auto"``, or what ``torch.device`` takes.
        dtype: ``"auto"`` takes bfloat16 where the processor has it, else float32. Features leave
            as float32 whatever it is.
        revision: Branch, tag or commit on the hub.
        batch_size: Images encoded at a time.
    """

    model: str = "ViT-B-32/laion2b_s34b_b79k"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    revision: str = "main"
    batch_size: int = 64

    @property
    def name(self) -> str:
        """The model as it was asked for."""
        return PREFIX + self.model

    @property
    def note(self) -> str:
        """Empty."""
        return ""

    @cached_property
    def resolved_device(self) -> torch.device:
        """The device in use."""
        return choose_device(self.device)

    @cached_property
    def resolved_dtype(self) -> torch.dtype:
        """The dtype in use."""
        return choose_dtype(self.dtype, self.resolved_device)

    @cached_property
    def source(self) -> Source:
        """Where the model's files lie, and what belongs to its weights."""
        try:
            return find(self.model, self.revision)
        except ValueError as error:
            raise ValueError(f"cannot load backbone {self.name!r}: {error}") from error

    @property
    def files(self) -> Path:
        """The folder that the weights lie in."""
        return self.source.weights.parent

    @cached_property
    def network(self) -> Any:
        """The open_clip model, loaded at first use."""
        package, source = import_open_clip(), self.source
        local = source.model.startswith("local-dir:")
        try:
            network = package.create_model(
                source.model,
                pretrained=None if local else str(source.weights),
                pretrained_text=False,
                force_preprocess_cfg=dict(source.preprocessing),
            )
            check_positions(network, source.weights)
        except Exception as error:  # a bad file or architecture raises nearly anything
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"cannot load backbone {self.name!r}: {' '.join(reason[:2])}"
            ) from error
        scale = network.logit_scale.detach().float().clone()
        network.to(self.resolved_device, self.resolved_dtype).eval().requires_grad_(False)
        network.logit_scale.data = scale  # bfloat16 would move it by up to one in a hundred
        return network

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that belongs to the weights."""
        package, folder = import_open_clip(), self.source.tokenizer
        try:
            if folder is None:
                return package.get_tokenizer(self.source.model)
            text = self.source.config["text_cfg"]
            length = text.get("context_length", package.tokenizer.DEFAULT_CONTEXT_LENGTH)
            # what a configuration asks for must neither run code nor fetch other files
            safe = {"local_files_only": True, "trust_remote_code": False}
            options = {**text.get("tokenizer_kwargs", {}), **safe}
            mode = text.get("tokenizer_mode")
            return package.tokenizer.HFTokenizer(
                str(folder), context_length=length, tokenizer_mode=mode, **options
            )
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            raise ValueError(f"cannot load the tokenizer of {self.name!r}: {error}") from error

    @cached_property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """open_clip's own preprocessing, with the settings of the weights."""
        package = import_open_clip().transform
        try:
            settings = package.PreprocessCfg(**self.network.visual.preprocess_cfg)
            made: Callable[[Image.Image], Tensor] = package.image_transform_v2(settings, False)
        except (AssertionError, TypeError) as error:
            raise ValueError(
                f"the preprocessing of {self.name!r} is not one that open_clip has: "
                f"{dict(self.source.preprocessing)}"
            ) from error
        return made

    @cached_property
    def resolved_revision(self) -> str:
        """Hash of weights, architecture and preprocessing, wherever they were found."""
        stated = [self.source.config, dict(self.source.preprocessing)]
        text = json.dumps([*stated, file_digest(self.source.weights)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def dim(self) -> int:
        """Feature dimension."""
        _ = self.network  # weights that cannot be had must show before images are read
        return int(self.source.config["embed_dim"])

    @property
    def logit_scale(self) -> float:
        """The model's own multiplier."""
        return float(self.network.logit_scale.exp().max())

    @cached_property
    def image_key(self) -> Mapping[str, str]:
        """Model, revision, dtype and the whole of the preprocessing."""
        _ = self.transform  # settings that open_clip does not have must show here
        settings = json.dumps(self.network.visual.preprocess_cfg, sort_keys=True)
        return {**self._key, "preprocessing": settings}

    @cached_property
    def text_key(self) -> Mapping[str, str]:
        """Model, revision, dtype and the files of the tokenizer where it is not open_clip's."""
        folder = self.source.tokenizer
        files = tokenizer_files(folder) if folder else []
        listed = json.dumps({path.name: file_digest(path) for path in files}, sort_keys=True)
        return {**self._key, "tokenizer": hashlib.sha256(listed.encode()).hexdigest()[:16]}

    @property
    def _key(self) -> dict[str, str]:
        return {
            "backbone": self.name,
            "revision": self.resolved_revision,
            "dtype": str(self.resolved_dtype).removeprefix("torch."),
        }

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """Apply open_clip's preprocessing to one RGB image."""
        return self.transform(image)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Encode preprocessed images in one forward pass, or several, see ``_devices``.

        Raises:
            FloatingPointError: If the model gives a value that is not finite.
            ValueError: If one image does not fit the device's memory.
        """

        def forward(part: Tensor) -> Tensor:
            rows = self.network.encode_image(part.to(self.resolved_device, self.resolved_dtype))
            return unit_rows(rows, self.name, self.resolved_dtype)

        return in_passes(forward, pixels, self.resolved_device, self.network.visual)

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Preprocess and encode RGB images, ``batch_size`` at a time."""
        return encode_in_batches(images, self)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        """Encode texts, ``TEXTS_PER_CHUNK`` at a time; longer ones are cut.

        Raises:
            FloatingPointError: If the model gives a value that is not finite.
        """
        if not texts:
            return torch.zeros(0, self.dim)
        rows = []
        for start in range(0, len(texts), TEXTS_PER_CHUNK):
            ids = self.tokenizer(list(texts[start : start + TEXTS_PER_CHUNK]))
            encoded = self.network.encode_text(ids.to(self.resolved_device))
            rows.append(unit_rows(encoded, self.name, self.resolved_dtype))
        return torch.cat(rows)

    @property
    def prompt_shape(self) -> PromptShape:
        """Widths of both towers and the layers of the image tower.

        The image's are 0 for a tower that takes no learned tokens: ResNets, some of timm's.
        """
        return _open_clip_prompts.prompt_shape(self.network)

    def embed_phrase(self, phrase: str) -> Float[Tensor, "m w"]:
        """Return the token vectors of a phrase, in float32 on the CPU."""
        return _open_clip_prompts.embed_phrase(self.network, self.tokenizer, phrase)

    def text_prompter(
        self, names: Sequence[str], n_context: int
    ) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
        """Return the encoder of ``[context][name]``, with gradients to the context.

        Raises:
            ValueError: If the context leaves no place for a name.
        """
        return _open_clip_prompts.text_prompter(self.network, self.tokenizer, names, n_context)

    def encode_with_tokens(
        self, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "l m w2"]
    ) -> Float[Tensor, "n d"]:
        """Encode images with learned tokens behind the class token, with gradients to them.

        Raises:
            ValueError: If the image tower takes no tokens, or there are neither one nor as many
                rows of tokens as layers.
        """
        moved = pixels.to(self.resolved_device, self.resolved_dtype)
        return _open_clip_prompts.encode_with_tokens(self.network, moved, tokens)

    def reference(self) -> dict[str, object]:
        """Return model, revision and dtype; a fingerprint guards against other weights."""
        return {
            "method": "open_clip",
            "model": PREFIX + self.source.name,
            "revision": self.revision,
            "fingerprint": self.resolved_revision,
            "dtype": self._key["dtype"],
        }
