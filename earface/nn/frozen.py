"""Frozen networks beside a model: they are in none of its weights, so they follow its images by themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class RecognitionNetwork(Protocol):
    """What EdgeFace offers: maps of its stages, finest first, and the embedding made of these."""

    def features(self, faces: Tensor) -> list[Tensor]: ...

    def from_features(self, maps: list[Tensor]) -> Tensor: ...


class FrozenRecognizer:
    """A frozen face recogniser, out of its owner's parameters, state_dict, train() and deep copies.

    So it is in no optimiser, checkpoint or moving average. It follows its input's device.
    contract: crops (B, 3, 128, 128) in [-1, 1] -> what the network takes, differentiable (`facial_rec.FaceContract`).
    """

    def __init__(self, network: RecognitionNetwork, contract: Callable[[Tensor], Tensor], name: str) -> None:
        self.network, self.contract, self.name = network, contract, name
        self._module.requires_grad_(False).eval()

    @property
    def _module(self) -> Any:
        assert isinstance(self.network, nn.Module)
        return self.network

    def __call__(self, crops: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, 3, 128, 128) in [-1, 1] -> the stages' maps, and embeddings (B, D) of length 1 in float32."""
        self.to(crops.device)
        maps = self.network.features(self.contract(crops))
        return maps, F.normalize(self.network.from_features(maps).float(), dim=1)

    def to(self, device: torch.device) -> None:
        """Move the network, where it is elsewhere; calling it does it too."""
        move_frozen(self._module, device)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenRecognizer:
        return self  # frozen: a copy of the owner can share it


class FrozenCopy:
    """A network as it was: frozen, and out of its owner's parameters, state_dict, train() and copies.

    So it is in no optimiser, checkpoint or moving average. It follows its input's device.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Any:
        """What the network gives for the images, without gradient."""
        self.to(images.device)
        return self.model(images)

    def to(self, device: torch.device) -> None:
        """Move the network, where it is elsewhere; calling it does it too."""
        move_frozen(self.model, device)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenCopy:
        return self
