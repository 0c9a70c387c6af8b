"""The objective of latent diffusion."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss


def noise_loss(
    denoiser: Callable[..., Any],
    scheduler: Any,
    latents: Float[Tensor, "b k h w"],
    states: Float[Tensor, "b t d"],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the squared error of what the model predicts of noised latents (Ho et al., eq. 14).

    Args:
        denoiser: The U-Net.
        scheduler: Knows how much noise a step has, and whether noise or velocity is predicted.
        latents: Scaled as the model takes them.
        states: Of the captions' tokens.
        generator: Of noise and steps; on the CPU.

    Raises:
        ValueError: If the model predicts neither noise nor velocity.
    """
    device = latents.device
    noise = torch.randn(latents.shape, generator=generator).to(device)
    total = scheduler.config.num_train_timesteps
    steps = torch.randint(total, (len(latents),), generator=generator).to(device)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        target = noise
    elif kind == "v_prediction":
        target = scheduler.get_velocity(latents, noise, steps)
    else:
        raise ValueError(f"this model predicts {kind!r}; LoRA training knows epsilon and velocity")
    guess = denoiser(scheduler.add_noise(latents, noise, steps), steps, states).sample
    return mse_loss(guess.float(), target)
