"""Stage: images and texts become unit vectors of one space.

A method is one file with one class that is cheap to make; weights are loaded at first use.
``encode_images`` and ``encode_texts`` return float32 unit rows on the CPU.
"""

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor

# its check looks at attributes without computing them, which typing's does from Python 3.12 on
from typing_extensions import Protocol, runtime_checkable

from nameonly.types import PromptShape


@runtime_checkable
class Backbone(Protocol):
    """A pair of encoders."""

    @property
    def name(self) -> str:
        """The name that features carry, so that those of two backbones never mix."""
        ...

    @property
    def dim(self) -> int:
        """Feature dimension."""
        ...

    @property
    def logit_scale(self) -> float:
        """Multiplier of cosine similarity, already exponentiated."""
        ...

    @property
    def batch_size(self) -> int:
        """Images encoded at a time."""
        ...

    @property
    def note(self) -> str:
        """What a user must know about this model every time, or an empty string."""
        ...

    @property
    def image_key(self) -> Mapping[str, str]:
        """Everything that image features depend on: model, revision, preprocessing, dtype."""
        ...

    @property
    def text_key(self) -> Mapping[str, str]:
        """Everything that text features depend on."""
        ...

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """Turn one RGB image into the model's pixels; safe to call from threads."""
        ...

    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Encode preprocessed images, a batch."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Preprocess and encode RGB images."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        """Encode texts in chunks of bounded size."""
        ...

    @property
    def prompt_shape(self) -> PromptShape:
        """Widths and depth that learned vectors must have."""
        ...

    def embed_phrase(self, phrase: str) -> Float[Tensor, "m w"]:
        """Return the token vectors of a phrase, without start and end tokens or positions."""
        ...

    def text_prompter(
        self, names: Sequence[str], n_context: int
    ) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
        """Return the encoder of ``[context][name]``, with gradients to the context.

        The context is one for all names (m, w) or one for each (c, m, w), m = ``n_context``; rows
        are unit and on the backbone's device. Tokens are cut and laid out once, here.
        """
        ...

    def encode_with_tokens(
        self, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "l m w2"]
    ) -> Float[Tensor, "n d"]:
        """Encode images with learned tokens beside the patches, with gradients to the tokens.

        l = 1 puts them in before the first layer, where they stay; l = ``image_layers`` puts new
        ones in their place before every layer. Rows are unit and on the backbone's device.
        """
        ...

    def reference(self) -> dict[str, object]:
        """Return what a saved classifier must know to load this backbone again."""
        ...
