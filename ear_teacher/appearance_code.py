"""Light apart from shape: each picture's gain and offset, measured in closed form and given back to its decoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CANONICAL_STD = 0.25  # of a channel of a canonical picture, so that four standard deviations are in [-1, 1]
LEAST_STD = 0.02  # of a channel, in [-1, 1]: a flat one is not noise to be enlarged
MIDDLE_WIDTH = 0.5  # standard deviation of the middle, of half the side


class AppearanceCode(nn.Module):
    """What a picture (B, C, S, S) in [-1, 1] has of light, as the last `size` latents.

    size: 2 C for the mean and the logarithm of the standard deviation of each channel; 4 C with its least-squares
    plane; 5 C also with how much the middle, where the ear is, differs from its surroundings (a Gaussian). A canonical
    picture is what is left: each channel without these, at one standard deviation. The code is standardised by its mean
    and spread over the training views.
    """

    mean: Tensor
    std: Tensor
    fields: Tensor

    def __init__(self, size: int, channels: int, image_size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("fields", light_fields(size // channels - 1, image_size), persistent=False)

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """codes: (N, size), of training views, as `measure` gives them."""
        self.mean.copy_(codes.mean(dim=0))
        self.std.copy_(codes.std(dim=0).clamp_min(1e-3))

    def measure(self, images: Tensor) -> Tensor:
        """(B, size), not standardised: of each light field the share of every channel, then log standard deviations."""
        images = images.float()
        light = torch.einsum("bchw,khw->bkc", images, self.fields) / self.fields[0].numel()
        rest = images - self._field(light)
        spread = rest.square().mean(dim=(2, 3)).sqrt().clamp_min(LEAST_STD)
        return torch.cat([light.flatten(1), spread.log()], dim=1)

    def split(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The canonical pictures and their codes, standardised. In float32."""
        with torch.autocast(images.device.type, enabled=False):
            code = self.measure(images)
            light, spread = self._light(code)
            return (images.float() - light) / spread * CANONICAL_STD, (code - self.mean) / self.std

    def restore(self, canonical: Tensor, code: Tensor) -> Tensor:
        """The inverse of `split`, clipped to [-1, 1]. In float32."""
        with torch.autocast(canonical.device.type, enabled=False):
            light, spread = self._light(code.float() * self.std + self.mean)
            return (canonical.float() / CANONICAL_STD * spread + light).clamp(-1.0, 1.0)

    def _light(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """The light (B, C, S, S), and standard deviations (B, C, 1, 1)."""
        parts = code.unflatten(1, (len(self.fields) + 1, -1))
        return self._field(parts[:, :-1]), parts[:, -1, :, None, None].exp()

    def _field(self, light: Tensor) -> Tensor:
        return torch.einsum("bkc,khw->bchw", light, self.fields)


def light_fields(count: int, side: int) -> Tensor:
    """(count, S, S): constant, to the right, down, and the middle; orthogonal, each of mean square 1."""
    places = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2.0 - 1.0
    across, down = places.expand(side, side), places[:, None].expand(side, side)
    middle = torch.exp(-(across.square() + down.square()) / (2 * MIDDLE_WIDTH**2))
    fields = torch.stack([torch.ones_like(across), across, down, middle][:count]).flatten(1)
    orthonormal, factor = torch.linalg.qr(fields.T)
    signed = orthonormal * factor.diagonal().sign()  # as those that they are made of
    return (signed.T * side).float().unflatten(1, (side, side)).contiguous()
