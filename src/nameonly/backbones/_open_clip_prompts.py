"""Learned vectors in open_clip's models, through open_clip's own modules."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from nameonly.backbones._tokens import Packed, image_tokens, output_changed, pack, with_context
from nameonly.types import PromptShape

STAND_IN = "x"


def _text_tower(network: Any) -> Any:
    """Return the text tower; open_clip's CLIP keeps its parts in the model itself."""
    return getattr(network, "text", network)


def _token_table(network: Any) -> Any:
    tower = _text_tower(network)
    if hasattr(tower, "token_embedding"):
        return tower.token_embedding
    return tower.transformer.get_input_embeddings()


def _image_sequence(network: Any) -> tuple[nn.Module, nn.ModuleList, int, int]:
    """Return what gives the tokens of an image, the layers, the tokens that lead and their width.

    No layers, and width 0, for a tower that is no plain transformer: ResNets, other timm models.
    """
    visual = network.visual
    if hasattr(visual, "patch_dropout"):
        return visual.patch_dropout, visual.transformer.resblocks, 1, visual.transformer.width
    trunk: Any = getattr(visual, "trunk", None)
    if type(trunk).__name__ == "VisionTransformer":
        layers = nn.ModuleList(trunk.blocks)
        return trunk.patch_drop, layers, trunk.num_prefix_tokens, trunk.embed_dim
    return visual, nn.ModuleList(), 0, 0


def prompt_shape(network: Any) -> PromptShape:
    """Return widths and layers; zeros for an image tower that takes no learned vectors."""
    _, layers, _, width = _image_sequence(network)
    return PromptShape(_token_table(network).weight.shape[1], width, len(layers))


def _bare(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return token ids without start and end."""
    if not hasattr(tokenizer, "tokenizer"):
        return [tokenizer.encode(text) for text in texts]
    cleaned = [tokenizer.clean_fn(text) for text in texts]
    rows: list[list[int]] = tokenizer.tokenizer(cleaned, add_special_tokens=False)["input_ids"]
    return rows


@torch.no_grad()
def embed_phrase(network: Any, tokenizer: Any, phrase: str) -> Float[Tensor, "m w"]:
    """Return the token vectors of a phrase, in float32 on the CPU."""
    table = _token_table(network)
    ids = torch.tensor(_bare(tokenizer, [phrase])[0], dtype=torch.long, device=table.weight.device)
    rows: Tensor = table(ids)
    return rows.float().cpu()


def text_prompter(
    network: Any, tokenizer: Any, names: Sequence[str], n_context: int
) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
    """Return the encoder of ``[context][name]``, with gradients to the context (see ``Backbone``).

    Raises:
        ValueError: If the context leaves no place for a name.
    """
    if _reads_first_end(_text_tower(network), tokenizer):
        return _packed_prompter(network, tokenizer, names, n_context)
    return _padded_prompter(network, tokenizer, names, n_context)


def _reads_first_end(tower: Any, tokenizer: Any) -> bool:
    """Whether a causal tower reads a text at its end token, the highest id: CLIP's own design.

    Names may then share a sequence. SigLIP sees the padding, CoCa has a class token, and the
    towers of other libraries have masks of their own.
    """
    return (
        not hasattr(tokenizer, "tokenizer")
        and isinstance(getattr(tower, "attn_mask", None), Tensor)
        and getattr(tower, "cls_emb", None) is None
        and getattr(tower, "text_pool_type", getattr(tower, "pool_type", "")) == "argmax"
    )


def _packed_prompter(
    network: Any, tokenizer: Any, names: Sequence[str], n_context: int
) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
    """Encode prompts of which several share a sequence and its context."""
    tower = _text_tower(network)
    tokens = _bare(tokenizer, names)
    layouts: dict[bool, Packed] = {}

    def encode(context: Float[Tensor, "*c m w"]) -> Float[Tensor, "c d"]:
        shared = context.dim() == 2
        if shared not in layouts:
            begin, end = [tokenizer.sot_token_id], tokenizer.eot_token_id
            length = tokenizer.context_length
            found = pack(tokens, n_context, shared=shared, begin=begin, end=end, length=length)
            layouts[shared] = found.to(tower.positional_embedding.device)
        return _encode_packs(tower, layouts[shared], context)

    return encode


def _encode_packs(
    tower: Any, layout: Packed, context: Float[Tensor, "*c m w"]
) -> Float[Tensor, "c d"]:
    embedded = with_context(layout, context)(tower.token_embedding(layout.ids))
    placed = embedded + tower.positional_embedding[layout.positions]
    heads = tower.transformer.resblocks[0].attn.num_heads
    mask = layout.mask(placed.dtype).expand(-1, heads, -1, -1).flatten(0, 1)
    hidden = tower.transformer(placed, attn_mask=mask)
    ends = tower.ln_final(hidden)[layout.ends[:, 0], layout.ends[:, 1]]
    projection = tower.text_projection
    if isinstance(projection, nn.Module):
        ends = projection(ends)
    elif projection is not None:
        ends = ends @ projection
    return normalize(ends.float(), dim=1)


def _padded_prompter(
    network: Any, tokenizer: Any, names: Sequence[str], n_context: int
) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
    """Encode prompts of one name a sequence, as the tokenizer lays texts out for this tower.

    It is given a word of one token in every place of the context.
    """
    table = _token_table(network)
    ids, start = _with_places(tokenizer, names, n_context)
    ids = ids.to(table.weight.device)

    def encode(context: Float[Tensor, "*c m w"]) -> Float[Tensor, "c d"]:
        learned = context.expand(len(ids), -1, -1)

        def put(embedded: Tensor) -> Tensor:
            after = embedded[:, start + n_context :]
            return torch.cat([embedded[:, :start], learned.to(embedded.dtype), after], dim=1)

        with output_changed(table, put):
            output = network.encode_text(ids)
        return normalize(output.float(), dim=1)

    return encode


def _with_places(
    tokenizer: Any, names: Sequence[str], n_context: int
) -> tuple[Int[Tensor, "c l"], int]:
    """Return token ids of all prompts, and where the context begins."""
    (place,) = _bare(tokenizer, [STAND_IN])
    whole = tokenizer([STAND_IN])[0].tolist()
    if len(place) != 1:
        raise ValueError(f"this tokenizer has no token for {STAND_IN!r}, so prompts have no place")
    start = whole.index(place[0])
    length = len(whole)
    if start + n_context + 2 > length:
        raise ValueError(
            f"{n_context} context vectors leave no place for a name: the text tower reads "
            f"{length} tokens; lower n_context"
        )
    texts = [" ".join([*[STAND_IN] * n_context, name]) for name in names]
    return tokenizer(texts), start


def encode_with_tokens(
    network: Any, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "l m w2"]
) -> Float[Tensor, "n d"]:
    """Encode images with learned tokens behind the class token, with gradients to the tokens.

    They have no position and enter before the tower's first norm. Where a tower has no class token,
    or pools all of its tokens, the pooling sees them.

    Raises:
        ValueError: If the tower takes no tokens, or there are neither one nor as many rows of
            tokens as layers.
    """
    first, layers, at, _ = _image_sequence(network)
    if not layers:
        raise ValueError(
            "this model's image tower takes no learned tokens: expected a plain vision "
            f"transformer, got {type(getattr(network.visual, 'trunk', network.visual)).__name__}"
        )
    with image_tokens(first, layers, tokens, at):
        output = network.encode_image(pixels)
    return normalize(output.float(), dim=1)
