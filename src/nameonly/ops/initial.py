"""Random initial values that follow a name, not a row."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def named_normal(
    names: Sequence[str], shape: Sequence[int], std: float, seed: int
) -> Float[Tensor, "c ..."]:
    """Return normal values of a shape for every name; the same name and seed give the same ones.

    Args:
        names: Of classes, or of layers.
        shape: Of one name's values.
        std: Their standard deviation; their mean is zero.
        seed: Another seed gives other values.
    """
    rows = []
    for name in names:
        digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        rows.append(std * torch.randn(*shape, generator=generator))
    return torch.stack(rows)
