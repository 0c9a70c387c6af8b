"""What backbones without a text encoder share: they refuse whatever asks for one."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NoReturn

from jaxtyping import Float
from torch import Tensor

from nameonly.types import PromptShape


class ImageOnly:
    """Refuses texts and prompts, with the words of the backbone."""

    refusal: ClassVar[str]

    @property
    def text_key(self) -> Mapping[str, str]:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(self.refusal)

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        """Refuse."""
        self._refuse()

    @property
    def prompt_shape(self) -> PromptShape:
        """Refuse."""
        self._refuse()

    def embed_phrase(self, phrase: str) -> Float[Tensor, "m w"]:
        """Refuse."""
        self._refuse()

    def text_prompter(
        self, names: Sequence[str], n_context: int
    ) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
        """Refuse."""
        self._refuse()

    def encode_with_tokens(
        self, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "l m w2"]
    ) -> Float[Tensor, "n d"]:
        """Refuse."""
        self._refuse()
