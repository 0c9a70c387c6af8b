"""Learned vectors in the CLIP and SigLIP models of the transformers library."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from nameonly.backbones._tokens import Packed, image_tokens, output_changed, pack, pad, with_context

# their activations take some 3 GB in a text tower of ViT-B's shape
PACKS_AT_ONCE = 64


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    rows: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return rows


def _frame(tokenizer: Any) -> tuple[list[int], int]:
    """Return what the tokenizer puts before a text, and the token that ends it."""
    whole: list[int] = tokenizer("a")["input_ids"]
    bare = _tokens(tokenizer, ["a"])[0]
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:start], whole[start + len(bare)]


@torch.no_grad()
def embed_phrase(network: Any, tokenizer: Any, phrase: str) -> Float[Tensor, "m w"]:
    """Return the token vectors of a phrase, in float32 on the CPU."""
    table = network.text_model.embeddings.token_embedding
    ids = torch.tensor(
        _tokens(tokenizer, [phrase])[0], dtype=torch.long, device=table.weight.device
    )
    rows: Tensor = table(ids)
    return rows.float().cpu()


def text_prompter(
    network: Any, tokenizer: Any, names: Sequence[str], n_context: int
) -> Callable[[Float[Tensor, "*c m w"]], Float[Tensor, "c d"]]:
    """Return the encoder of ``[context][name]``, with gradients to the context (see ``Backbone``).

    CLIP's causal tower takes several names in one sequence, which share the context; SigLIP's reads
    one a sequence, filled to full length as it was trained.
    """
    tokens = _tokens(tokenizer, names)
    length = network.config.text_config.max_position_embeddings
    layouts: dict[bool, Packed] = {}

    def lay_out(shared: bool) -> Packed:
        begin, end = _frame(tokenizer)
        if network.config.model_type == "siglip":
            ends = [end, tokenizer.pad_token_id]
            found = pad(tokens, n_context, shared=shared, begin=begin, end=ends, length=length)
        else:
            found = pack(tokens, n_context, shared=shared, begin=begin, end=end, length=length)
        return found.to(network.device)

    def encode(context: Float[Tensor, "*c m w"]) -> Float[Tensor, "c d"]:
        shared = context.dim() == 2
        if shared not in layouts:
            layouts[shared] = lay_out(shared)
        return _encode_layout(network, layouts[shared], context)

    return encode


def _encode_layout(
    network: Any, layout: Packed, context: Float[Tensor, "*c m w"]
) -> Float[Tensor, "c d"]:
    """Encode all packs; more than one pass holds are computed again for their gradients."""
    if len(layout.ids) <= PACKS_AT_ONCE:
        return _encode_packs(network, layout, context)
    parts = [
        checkpoint(_encode_packs, network, part, context, use_reentrant=False)
        for part in layout.split(PACKS_AT_ONCE)
    ]
    return torch.cat(parts)


def _encode_packs(
    network: Any, layout: Packed, context: Float[Tensor, "*c m w"]
) -> Float[Tensor, "c d"]:
    tower = network.text_model
    inputs: dict[str, Any] = {"input_ids": layout.ids, "position_ids": layout.positions}
    siglip = network.config.model_type == "siglip"
    if not siglip:
        inputs["attention_mask"] = layout.mask(network.dtype)
    with output_changed(tower.embeddings.token_embedding, with_context(layout, context)):
        output = tower(**inputs)
    if siglip:
        return normalize(output.pooler_output.float(), dim=1)
    ends = output.last_hidden_state[layout.ends[:, 0], layout.ends[:, 1]]
    return normalize(network.text_projection(ends).float(), dim=1)


def encode_with_tokens(
    network: Any, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "l m w2"]
) -> Float[Tensor, "n d"]:
    """Encode images with learned tokens behind the class token, with gradients to the tokens.

    They have no position and enter before the tower's first norm. SigLIP has no class token: they
    stand first, and its pooling sees them.

    Raises:
        ValueError: If there are neither one nor as many rows of tokens as layers.
    """
    tower = network.vision_model
    at = 0 if network.config.model_type == "siglip" else 1
    with image_tokens(tower.embeddings, tower.encoder.layers, tokens, at):
        output = network.get_image_features(pixel_values=pixels)
    return normalize(getattr(output, "pooler_output", output).float(), dim=1)
