"""Learned vectors enter a frozen tower through hooks on its own modules; no model code is copied.

Text prompts of a causal tower are packed: several class names share one sequence, each sees the
shared beginning and itself, and its positions run on from the beginning. A tower computes the
context once for a pack instead of once for every class, and no padding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@contextmanager
def output_changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a module's output be what ``change`` makes of it."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def input_changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a module's first input be what ``change`` makes of it."""
    handle = module.register_forward_pre_hook(
        lambda _module, inputs: (change(inputs[0]), *inputs[1:])
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def image_tokens(
    first: nn.Module, layers: nn.ModuleList, tokens: Float[Tensor, "l m w"], at: int
) -> Iterator[None]:
    """Put learned tokens among an image's tokens while open.

    Args:
        first: Its output (b, patches, w) is the sequence that the tokens are put into.
        layers: The tower's layers; with one row of ``tokens`` a layer each replaces them anew.
        tokens: Learned vectors.
        at: How many tokens (the class token) stand before them.

    Raises:
        ValueError: If there are neither one nor as many rows of tokens as layers.
    """
    if len(tokens) not in (1, len(layers)):
        raise ValueError(f"{len(tokens)} rows of tokens, expected 1 or {len(layers)}, one a layer")
    m = tokens.shape[1]

    def put(hidden: Tensor, row: int, skip: int) -> Tensor:
        learned = tokens[row].to(hidden).expand(len(hidden), -1, -1)
        return torch.cat([hidden[:, :at], learned, hidden[:, at + skip :]], dim=1)

    def entering(row: int) -> Callable[[Tensor], Tensor]:
        return lambda hidden: put(hidden, row, m)

    with ExitStack() as stack:
        stack.enter_context(output_changed(first, lambda hidden: put(hidden, 0, 0)))
        for row in range(1, len(tokens)):
            stack.enter_context(input_changed(layers[row], entering(row)))
        yield


@dataclass(frozen=True)
class Packed:
    """Class names laid out for a text tower. p packs of length l.

    Attributes:
        ids: Token ids, 0 where a context vector goes.
        positions: Position of every token in its own prompt.
        context: Which context vector goes here, counted over classes and vectors; -1 = none.
        segment: Which class a token belongs to; -1 = the shared beginning, -2 = padding.
        ends: Pack and place of every class's last token.
    """

    ids: Int[Tensor, "p l"]
    positions: Int[Tensor, "p l"]
    context: Int[Tensor, "p l"]
    segment: Int[Tensor, "p l"]
    ends: Int[Tensor, "c 2"]

    def mask(self, dtype: torch.dtype) -> Float[Tensor, "p 1 l l"]:
        """Return what is added to attention: a token sees the beginning and its own past."""
        place = torch.arange(self.ids.shape[1], device=self.ids.device)
        past = place[:, None] >= place[None, :]
        own = self.segment[:, :, None] == self.segment[:, None, :]
        seen: Bool[Tensor, "p l l"] = past & (own | (self.segment[:, None, :] == -1))
        hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return hidden.masked_fill(~seen, torch.finfo(dtype).min)[:, None]

    def split(self, size: int) -> list["Packed"]:
        """Return the packs in parts; classes keep their order, for they lie in order of packs."""
        parts = []
        for start in range(0, len(self.ids), size):
            rows = slice(start, start + size)
            here = (self.ends[:, 0] >= start) & (self.ends[:, 0] < start + size)
            ends = self.ends[here] - torch.tensor([start, 0], device=self.ends.device)
            parts.append(
                Packed(
                    self.ids[rows],
                    self.positions[rows],
                    self.context[rows],
                    self.segment[rows],
                    ends,
                )
            )
        return parts

    def to(self, device: torch.device) -> "Packed":
        """Return the same on a device."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items()})


def pack(
    names: Sequence[Sequence[int]],
    n_context: int,
    *,
    shared: bool,
    begin: Sequence[int],
    end: int,
    length: int,
) -> Packed:
    """Lay out ``[begin][context][name][end]`` for every name, several to a sequence.

    Args:
        names: Token ids of the class names; what does not fit the length is cut.
        n_context: Context vectors before a name.
        shared: Whether all names have one context, which then stands once in every pack.
        begin: Ids of the start token, if there is one.
        end: Id of the end token.
        length: Most tokens in a sequence.

    Raises:
        ValueError: If not one token of a name fits behind the context.
    """
    head = len(begin) + n_context
    _check_room(n_context, head + 2, length)

    def context(row: int) -> list[tuple[int, int, int, int]]:
        first = max(row, 0) * n_context
        return [(0, len(begin) + i, first + i, row) for i in range(n_context)]

    packs: list[list[tuple[int, int, int, int]]] = []  # id, position, context, segment
    ends = []
    for row, name in enumerate(names):
        tokens = [*name[: length - head - 1], end]
        own = [] if shared else context(row)
        own += [(token, head + i, -1, row) for i, token in enumerate(tokens)]
        if not packs or len(packs[-1]) + len(own) > length:
            packs.append([(token, i, -1, -1) for i, token in enumerate(begin)])
            packs[-1] += context(-1) if shared else []
        packs[-1] += own
        ends.append((len(packs) - 1, len(packs[-1]) - 1))
    longest = max(map(len, packs))
    return _packed([[*p, *[(end, 0, -1, -2)] * (longest - len(p))] for p in packs], ends)


def pad(
    names: Sequence[Sequence[int]],
    n_context: int,
    *,
    shared: bool,
    begin: Sequence[int],
    end: Sequence[int],
    length: int,
) -> Packed:
    """Lay out ``[begin][context][name][end ...]``, one name a sequence, all of full length.

    For towers in which every token sees every other and the last place is read.

    Args:
        names: Token ids of the class names; what does not fit the length is cut.
        n_context: Context vectors before a name.
        shared: Whether all names have one context.
        begin: Ids of the start token, if there is one.
        end: Id of the end token, then of what fills the rest.
        length: Tokens in a sequence.

    Raises:
        ValueError: If not one token of a name fits behind the context.
    """
    head = len(begin) + n_context
    _check_room(n_context, head + 2, length)
    rows = []
    for row, name in enumerate(names):
        first = 0 if shared else row * n_context
        tokens = [*name[: length - head - 1], end[0]]
        tokens += [end[1]] * (length - head - len(tokens))
        rows.append(
            [(token, i, -1, row) for i, token in enumerate(begin)]
            + [(0, len(begin) + i, first + i, row) for i in range(n_context)]
            + [(token, head + i, -1, row) for i, token in enumerate(tokens)]
        )
    return _packed(rows, [(row, length - 1) for row in range(len(names))])


def _packed(rows: list[list[tuple[int, int, int, int]]], ends: list[tuple[int, int]]) -> Packed:
    ids, positions, context, segment = torch.tensor(rows).unbind(dim=2)
    return Packed(ids, positions, context, segment, torch.tensor(ends))


def _check_room(n_context: int, needed: int, length: int) -> None:
    if needed > length:
        raise ValueError(
            f"{n_context} context vectors leave no place for a name: the text tower reads "
            f"{length} tokens; lower n_context"
        )


def with_context(
    packed: Packed, context: Float[Tensor, "*c m w"]
) -> Callable[[Float[Tensor, "p l w"]], Float[Tensor, "p l w"]]:
    """Return what puts the context's vectors into the embedded tokens of packs."""
    flat = context.reshape(-1, context.shape[-1])
    here = packed.context >= 0
    rows = packed.context[here]

    def put(embedded: Float[Tensor, "p l w"]) -> Float[Tensor, "p l w"]:
        return embedded.masked_scatter(here[:, :, None], flat.to(embedded)[rows])

    return put
