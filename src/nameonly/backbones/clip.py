"""CLIP and SigLIP models of the transformers library.

Paper: Radford et al. Learning Transferable Visual Models From Natural Language Supervision.
    ICML 2021, arXiv 2103.00020. Zhai et al. Sigmoid Loss for Language Image Pre-Training.
    ICCV 2023, arXiv 2303.15343.
Differs: SigLIP's logit bias is left out: it is the same for every class and moves no softmax.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from nameonly.backbones import _clip_prompts
from nameonly.backbones._devices import (
    choose_device,
    choose_dtype,
    encode_in_batches,
    in_passes,
    unit_rows,
)
from nameonly.backbones._hub import hub_refusal
from nameonly.backbones._preprocessing import Preprocessing, preprocessing_of
from nameonly.tiny import MODEL as TINY
from nameonly.types import PromptShape

__all__ = ["ClipBackbone"]

TEXTS_PER_CHUNK = 256
REFERENCE = "reference.json"
MODEL_TYPES = ("clip", "siglip")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
TINY_NOTE = "the bundled tiny model knows drawn digits and letters (glyphs) only, no photographs"


def folder_fingerprint(folder: Path) -> str:
    """Return a hash of every file that a model is loaded from, so that changed weights show."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        # a hub's folder may hold open_clip's files of the same model, which are not read here
        read = path.suffix in {".json", ".txt", ".model"} or path.match("model*.safetensors")
        if path.is_file() and read and path.name not in (REFERENCE, "open_clip_config.json"):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ClipBackbone:
    """Any CLIP or SigLIP of the transformers library, from a hub id or a local folder.

    Weights are read from safetensors only, and code from a hub is never run.

    Attributes:
        model: A hub id, a local folder, or ``"tiny"`` for the bundled model.
        device: ``"auto"``, or what ``torch.device`` takes.
        dtype: ``"auto"`` takes bfloat16 where the processor has it, else float32. Features leave
            as float32 whatever it is.
        revision: Branch, tag or commit on the hub.
        batch_size: Images encoded at a time.
    """

    model: str = "openai/clip-vit-base-patch32"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    revision: str = "main"
    batch_size: int = 64

    @property
    def name(self) -> str:
        """The model as it was asked for."""
        return self.model

    @property
    def note(self) -> str:
        """A word on the tiny model's limits; empty for others."""
        return TINY_NOTE if self.model == "tiny" else ""

    @cached_property
    def folder(self) -> Path | None:
        """The local folder, None for a hub id."""
        path = TINY if self.model == "tiny" else Path(self.model).expanduser()
        return path if path.is_dir() else None

    @cached_property
    def resolved_device(self) -> torch.device:
        """The device in use."""
        return choose_device(self.device)

    @cached_property
    def resolved_dtype(self) -> torch.dtype:
        """The dtype in use."""
        return choose_dtype(self.dtype, self.resolved_device)

    @cached_property
    def local_only(self) -> bool:
        """Whether the hub cannot or need not be asked; found out once and without retries."""
        if self.folder is not None:
            return True
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.model, "config.json", revision=self.revision)
        refusal = hub_refusal(self.model, self.revision)
        if refusal is not None and not isinstance(cached, str):
            raise ValueError(self._help(refusal)) from refusal
        return refusal is not None

    def _load(self, kind: type[Any], **options: Any) -> Any:
        try:
            return kind.from_pretrained(
                str(self.folder or self.model),
                revision=self.revision,
                trust_remote_code=False,
                local_files_only=self.local_only,
                **options,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ValueError(self._help(error)) from error

    def _help(self, error: Exception) -> str:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if self.folder is None:
            meant = "did you mean 'tiny'? " if get_close_matches(self.model, ["tiny"]) else ""
            return (
                f"cannot load backbone {self.model!r}: {meant}it is not a local folder, and the "
                f"model hub did not give it ({reason}). Where the hub cannot be reached, download "
                "the model elsewhere (config, safetensors weights, tokenizer and preprocessor "
                "files) and pass its folder: --backbone /path/to/folder. To try things out, "
                "--backbone tiny needs no download, but knows glyphs only"
            )
        return (
            f"cannot load backbone folder {self.model!r} ({reason}). It needs config.json, "
            "model.safetensors, the tokenizer's files and preprocessor_config.json, as "
            "save_pretrained writes them"
        )

    @cached_property
    def network(self) -> Any:
        """The transformers model, loaded at first use."""
        from transformers import AutoConfig, AutoModel

        device, dtype = self.resolved_device, self.resolved_dtype
        config = self._load(AutoConfig)
        if config.model_type not in MODEL_TYPES:
            raise ValueError(
                f"backbone {self.model!r} is a {config.model_type!r} model; "
                f"expected one of {', '.join(MODEL_TYPES)}"
            )
        network, loaded = self._load(
            AutoModel, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
        absent = sorted([*loaded["missing_keys"], *map(str, loaded["mismatched_keys"])])
        if absent:
            raise ValueError(
                f"backbone {self.model!r} lacks {len(absent)} weights or has them in other shapes, "
                f"{absent[0]} first; they would be random: get the whole model"
            )
        return network.to(device).eval().requires_grad_(False)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that belongs to the weights."""
        from transformers import AutoTokenizer

        # without its files transformers makes an empty tokenizer, to which all texts are equal
        if not any((self.files / name).is_file() for name in TOKENIZER_FILES):
            raise ValueError(
                f"backbone {self.model!r} has no tokenizer: expected one of "
                f"{', '.join(TOKENIZER_FILES)} in {self.files}"
            )
        return self._load(AutoTokenizer)

    @cached_property
    def processor(self) -> Any:
        """The image processor that belongs to the weights, in its Pillow form."""
        from transformers import AutoImageProcessor

        return self._load(AutoImageProcessor, backend="pil")

    @cached_property
    def files(self) -> Path:
        """The folder that the model's files lie in: the local one, or the hub's copy."""
        if self.folder is not None:
            return self.folder
        from huggingface_hub import snapshot_download

        try:
            patterns = ["*.json", "model*.safetensors", "*.txt", "*.model"]
            return Path(
                snapshot_download(
                    self.model,
                    revision=self.revision,
                    allow_patterns=patterns,
                    local_files_only=self.local_only,
                )
            )
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise ValueError(self._help(error)) from error

    @cached_property
    def resolved_revision(self) -> str:
        """Hash of the model's files: the same model has the same one in a folder and on the hub."""
        return folder_fingerprint(self.files)

    @property
    def dim(self) -> int:
        """Feature dimension."""
        config = self.network.config
        return int(getattr(config, "projection_dim", None) or config.vision_config.hidden_size)

    @property
    def logit_scale(self) -> float:
        """The model's own multiplier."""
        return float(self.network.logit_scale.detach().float().exp())

    @cached_property
    def text_key(self) -> Mapping[str, str]:
        """Model, revision and dtype."""
        return {
            "backbone": self.name,
            "revision": self.resolved_revision,
            "dtype": str(self.resolved_dtype).removeprefix("torch."),
        }

    @cached_property
    def image_key(self) -> Mapping[str, str]:
        """Model, revision, dtype and the whole of the preprocessing."""
        fields = {k: v for k, v in self.processor.to_dict().items() if not k.startswith("_")}
        return {**self.text_key, "preprocessing": json.dumps(fields, sort_keys=True, default=str)}

    @cached_property
    def preprocessing(self) -> Preprocessing | None:
        """The processor's steps without its overhead; None where they are not known."""
        return preprocessing_of(self.processor.to_dict())

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """Do what the model's own image processor does to one RGB image."""
        if self.preprocessing is not None:
            return self.preprocessing(image)
        pixels = self.processor(images=image, return_tensors="np")["pixel_values"][0]
        return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))

    @torch.inference_mode()
    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Encode preprocessed images in one forward pass, or several, see ``_devices``.

        Raises:
            FloatingPointError: If the model gives a value that is not finite.
            ValueError: If one image does not fit the device's memory.
        """

        def forward(part: Tensor) -> Tensor:
            moved = part.to(self.resolved_device, self.resolved_dtype)
            return self._unit_rows(self.network.get_image_features(pixel_values=moved))

        return in_passes(forward, pixels, self.resolved_device, self.network.vision_model)

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
        config = self.network.config
        options = {
            # SigLIP was trained on texts padded to full length; CLIP's causal tower ignores padding
            # and one length keeps a text's features the same whatever it is encoded with
            "padding": "max_length",
            "max_length": config.text_config.max_position_embeddings,
            "truncation": True,
            "return_tensors": "pt",
        }
        rows = []
        for start in range(0, len(texts), TEXTS_PER_CHUNK):
            tokens = self.tokenizer(list(texts[start : start + TEXTS_PER_CHUNK]), **options)
            inputs = {
                k: v.to(self.resolved_device)
                for k, v in tokens.items()
                if k == "input_ids" or (k == "attention_mask" and config.model_type != "siglip")
            }
            rows.append(self._unit_rows(self.network.get_text_features(**inputs)))
        return torch.cat(rows)

    @property
    def prompt_shape(self) -> PromptShape:
        """Widths of both towers and the layers of the image tower."""
        text, vision = self.network.config.text_config, self.network.config.vision_config
        return PromptShape(text.hidden_size, vision.hidden_size, vision.num_hidden_layers)

    def embed_phrase(self, phrase: str) -> Float[Tensor, "m w"]:
        """Return the token vectors of a phrase, in float32 on the CPU."""
        return _clip_prompts.embed_phrase(self.network, self.tokenizer, phrase)

    def text_prompter(
        self, names: Sequence[str], n_context: int
    ) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
        """Return the encoder of ``[context][name]``, with gradients to the context.

        Raises:
            ValueError: If the context leaves no place for a name.
        """
        return _clip_prompts.text_prompter(self.network, self.tokenizer, names, n_context)

    def encode_with_tokens(
        self, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "l m w2"]
    ) -> Float[Tensor, "n d"]:
        """Encode images with learned tokens behind the class token, with gradients to them.

        Raises:
            ValueError: If there are neither one nor as many rows of tokens as layers.
        """
        moved = pixels.to(self.resolved_device, self.resolved_dtype)
        return _clip_prompts.encode_with_tokens(self.network, moved, tokens)

    def _unit_rows(self, output: Any) -> Float[Tensor, "n d"]:
        values = getattr(output, "pooler_output", output)
        return unit_rows(values, self.model, self.resolved_dtype)

    def reference(self) -> dict[str, object]:
        """Return model, revision and dtype; a fingerprint guards against other weights."""
        return {
            "method": "clip",
            "model": self.model
            if self.folder is None or self.model == "tiny"
            else str(self.folder.resolve()),
            "revision": self.revision,
            "fingerprint": self.resolved_revision,
            "dtype": self.text_key["dtype"],
        }
