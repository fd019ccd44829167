"""Frozen networks beside a model: they are in none of its weights, so they follow its images by themselves."""

from __future__ import annotations

import torch
from torch import nn


def move_frozen(network: nn.Module, device: torch.device | str) -> None:
    """To `device`, where it is elsewhere; on CUDA its kernels are channels last.

    Weights moved in inference mode (Lightning's validation) could take part in no later backward, so it is left.
    """
    device = torch.device(device)
    if next(network.parameters()).device == device:
        return
    with torch.inference_mode(False):
        network.to(device)
        if device.type == "cuda":
            network.to(memory_format=torch.channels_last)
