"""A backbone with learned tokens in its image tower."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nameonly.backbones import Backbone
from nameonly.backbones._devices import encode_in_batches, unit_rows
from nameonly.types import PromptShape


@dataclass(frozen=True, eq=False)
class PromptedBackbone:
    """The frozen towers of ``base``, and tokens among every image's patches.

    Its features are not those of ``base``: it has a name of its own, made of the tokens' values.

    Attributes:
        base: The backbone that the tokens were learned for.
        tokens: Learned vectors (l, m, w); see ``Backbone.encode_with_tokens``.
    """

    base: Backbone
    tokens: Float[Tensor, "l m w"] = field(repr=False)

    def __post_init__(self) -> None:
        # tokens are learned in the place of others, not beside them
        if isinstance(self.base, PromptedBackbone):
            object.__setattr__(self, "base", self.base.base)
        object.__setattr__(self, "tokens", self.tokens.detach().cpu().clone())

    @cached_property
    def digest(self) -> str:
        """A hash of the tokens."""
        values = self.tokens.float().contiguous().numpy()
        return hashlib.blake2b(values.tobytes(), digest_size=6).hexdigest()

    @property
    def name(self) -> str:
        """The base's name and the tokens' hash."""
        return f"{self.base.name}+tokens-{self.digest}"

    @property
    def dim(self) -> int:
        """Feature dimension."""
        return self.base.dim

    @property
    def logit_scale(self) -> float:
        """The base's multiplier."""
        return self.base.logit_scale

    @property
    def batch_size(self) -> int:
        """Images encoded at a time."""
        return self.base.batch_size

    @property
    def resolved_device(self) -> torch.device:
        """The device in use."""
        return getattr(self.base, "resolved_device", torch.device("cpu"))

    @property
    def note(self) -> str:
        """What must be known of the base."""
        return self.base.note

    @property
    def image_key(self) -> Mapping[str, str]:
        """The base's, and the tokens."""
        return {**self.base.image_key, "tokens": self.digest}

    @property
    def text_key(self) -> Mapping[str, str]:
        """The base's: texts are encoded as they were."""
        return self.base.text_key

    @property
    def prompt_shape(self) -> PromptShape:
        """The base's."""
        return self.base.prompt_shape

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """Turn one RGB image into the model's pixels."""
        return self.base.preprocess(image)

    @torch.no_grad()
    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Encode preprocessed images with the learned tokens.

        Raises:
            FloatingPointError: If the model gives a value that is not finite.
        """
        rows = self.base.encode_with_tokens(pixels, self.tokens)
        return unit_rows(rows, self.name, rows.dtype)

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Preprocess and encode RGB images, ``batch_size`` at a time."""
        return encode_in_batches(images, self)

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        """Encode texts as the base does."""
        return self.base.encode_texts(texts)

    def embed_phrase(self, phrase: str) -> Float[Tensor, "m w"]:
        """Return the token vectors of a phrase."""
        return self.base.embed_phrase(phrase)

    def text_prompter(
        self, names: Sequence[str], n_context: int
    ) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
        """Return the base's encoder of prompts."""
        return self.base.text_prompter(names, n_context)

    def encode_with_tokens(
        self, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "l m w2"]
    ) -> Float[Tensor, "n d"]:
        """Encode with other tokens instead of these."""
        return self.base.encode_with_tokens(pixels, tokens)

    def reference(self) -> dict[str, object]:
        """Return the base's reference; the tokens themselves are saved beside it."""
        return {**self.base.reference(), "tokens": self.digest}
