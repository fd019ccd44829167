"""From pictures as files hold them to tensors as models take them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NO_FLOAT64 = ("mps",)  # kinds of device: Apple's GPUs


def to_model_range(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> float32 (B, C, H, W) in [-1, 1]."""
    # A grey batch's channels-last strides make oneDNN's convolutions write past their ends; a GPU prefers these strides
    layout = torch.contiguous_format if images.device.type == "cpu" else torch.preserve_format
    pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout)
    return pixels.div_(127.5).sub_(1.0)


def interpolate(faces: Tensor, side: int) -> Tensor:
    """(B, C, h, w) -> (B, C, side, side) float32: bicubic (a = -.75), as OpenCV's INTER_CUBIC enlarges."""
    if tuple(faces.shape[2:]) == (side, side):
        return faces
    return F.interpolate(faces.float(), (side, side), mode="bicubic", align_corners=False)


def float64_device(device: str | torch.device) -> torch.device:
    """This device, or the CPU where it has no float64."""
    return torch.device("cpu" if torch.device(device).type in NO_FLOAT64 else device)


def to_float64(values: Tensor) -> Tensor:
    """On `float64_device`."""
    return values.to(float64_device(values.device)).double()


def to_unit(images: Tensor) -> Tensor:
    """Pixels from [-1, 1] to [0, 1], any shape, in float32 because half precision would round the sum.

    Not clamped: a loss needs the gradient of what lies outside. float64 stays float64.
    """
    wide = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    return (wide + 1.0) * 0.5


def to_uint8(images: Tensor) -> Tensor:
    """(..., C, H, W) in [-1, 1] -> (..., H, W, C) uint8 on the same device: rounded, and clamped to the range."""
    return (to_unit(images.detach().float()).clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).contiguous()
