"""Light apart from shape: each picture's gain and offset, measured in closed form and given back to its decoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CANONICAL_STD = 0.25  # of a channel of a canonical picture, so that four standard deviations are in [-1, 1]
LEAST_STD = 0.02  # of a channel, in [-1, 1]: a flat one is not noise to be enlarged


class AppearanceCode(nn.Module):
    """What a picture (B, C, S, S) in [-1, 1] has of each channel's mean and spread, as the last `size` latents.

    size: 2 C for the mean and the logarithm of the standard deviation of each channel, 4 C with the slopes of each
    channel's least-squares plane, to the right and down. A canonical picture is what is left: each channel without its
    mean and plane, at one standard deviation. The code is standardised by its mean and spread over the training views.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size, self.planes = size, size == 4 * channels
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """codes: (N, size), of training views, as `measure` gives them."""
        self.mean.copy_(codes.mean(dim=0))
        self.std.copy_(codes.std(dim=0).clamp_min(1e-3))

    def measure(self, images: Tensor) -> Tensor:
        """(B, size) means, log standard deviations and slopes, not standardised."""
        images = images.float()
        offset = images.mean(dim=(2, 3))
        parts = [offset]
        rest = images - offset[:, :, None, None]
        if self.planes:
            across, down = _ramps(images)
            slopes = [(rest * ramp).mean(dim=(2, 3)) / ramp.square().mean() for ramp in (across, down)]
            for slope, ramp in zip(slopes, (across, down), strict=True):
                rest = rest - slope[:, :, None, None] * ramp
            parts += slopes
        spread = rest.square().mean(dim=(2, 3)).sqrt().clamp_min(LEAST_STD)
        return torch.cat([offset, spread.log(), *parts[1:]], dim=1)

    def split(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The canonical pictures and their codes, standardised. In float32."""
        with torch.autocast(images.device.type, enabled=False):
            code = self.measure(images)
            light, spread = self._light(code, images)
            return (images.float() - light) / spread * CANONICAL_STD, (code - self.mean) / self.std

    def restore(self, canonical: Tensor, code: Tensor) -> Tensor:
        """The inverse of `split`, clipped to [-1, 1]. In float32."""
        with torch.autocast(canonical.device.type, enabled=False):
            light, spread = self._light(code.float() * self.std + self.mean, canonical)
            return (canonical.float() / CANONICAL_STD * spread + light).clamp(-1.0, 1.0)

    def _light(self, code: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and plane (B, C, S or 1, S or 1), and standard deviation (B, C, 1, 1)."""
        parts = code[:, :, None, None].chunk(4 if self.planes else 2, dim=1)
        light = parts[0]
        if self.planes:
            across, down = _ramps(images)
            light = light + parts[2] * across + parts[3] * down
        return light, parts[1].exp()


def _ramps(images: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel places from -1 to 1, as (1, S) and (S, 1): their mean is 0."""
    side = images.shape[-1]
    places = (torch.arange(side, device=images.device, dtype=torch.float32) + 0.5) / side * 2.0 - 1.0
    return places[None, :], places[:, None]
