"""EdgeFace's files: of random weights in the authors' layouts, float and int8."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from earface.nn.weight_layouts import PACKED
from facial_rec.model import EdgeFace
from tests.support.shared_files import needs, official_edgeface

INT8_VARIANTS = ("edgeface_xxs_q", "edgeface_xs_q")
INT8_SOURCES = ["synthetic", pytest.param("official", marks=needs(*map(official_edgeface, INT8_VARIANTS)))]


class AuthorsWrapper(nn.Module):
    """What wrote the published files, as their names and sizes tell: a timm model under `model`, in which every linear
    layer whose own name does not hold "head" is two, the inner width gamma times the smaller side."""

    def __init__(self, network: str, gamma: float | None) -> None:
        super().__init__()
        self.model = timm.create_model(network)
        self.model.reset_classifier(512)
        if gamma is not None:
            self.halve(self, gamma)

    def halve(self, parent: nn.Module, gamma: float) -> None:
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and "head" not in name:
                inner = max(2, int(min(child.in_features, child.out_features) * gamma))
                pair = nn.Sequential()
                pair.add_module("linear1", nn.Linear(child.in_features, inner, bias=False))
                pair.add_module("linear2", nn.Linear(inner, child.out_features, bias=child.bias is not None))
                setattr(parent, name, pair)
            else:
                self.halve(child, gamma)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def random_edgeface(path: Path, seed: int, variant: str = "edgeface_xxs") -> Path:
    """Write weights in the authors' layout; layer scales, which start at 1e-6, are large enough to tell faces apart."""
    torch.save(_random_model(variant, seed).state_dict(), path)
    return path


def int8_edgeface(source: str, variant: str, folder: Path) -> Path:
    """A file of INT8_VARIANTS from one of INT8_SOURCES; a synthetic one is written into the folder."""
    if source == "official":
        return official_edgeface(variant)
    return random_int8_edgeface(folder / f"{variant}.pt", variant)


def random_int8_edgeface(path: Path, variant: str, seed: int = 0) -> Path:
    """Write `edgeface_xxs_q` or `edgeface_xs_q` as torch.ao.quantization did for the authors.

    Each linear layer is an int8 weight with a scale and a zero point, and a float bias; all else is float.
    """
    model = _random_model(variant, seed)
    state = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias")
            scale = float(weight.max() - weight.min()) / 255
            zero_point = round(-128 - float(weight.min()) / scale)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces the end of its int8 tensors
                packed = torch.quantize_per_tensor(weight, scale, zero_point, torch.qint8)
            state |= {
                f"{name}.scale": torch.tensor(1.0),
                f"{name}.zero_point": torch.tensor(0),
                f"{name}._packed_params.dtype": torch.qint8,
                f"{name}{PACKED}": (packed, nn.Parameter(bias)),
            }
    torch.save(state, path)
    return path


def _random_model(variant: str, seed: int) -> EdgeFace:
    torch.manual_seed(seed)
    model = EdgeFace(variant)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.5)
    return model
