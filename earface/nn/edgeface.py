"""The network of EdgeFace: timm's EdgeNeXt with 512 outputs, some of it with low-rank linear layers. Plain PyTorch."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from earface.nn.edgeface_weights import Variant
from earface.nn.positional_encoding import share_positional_encodings

EDGEFACE_SIZE = 112  # pixels a side of its input
EMBEDDING_DIM = 512


class LoRaLin(nn.Module):
    """A linear layer of low rank: (..., in_features) -> (..., out_features), linear2(linear1(x)).

    The rank is max(2, int(min(in_features, out_features) * rank_ratio)); only the second map has a bias.
    George et al. 2024, section III-B; the names are those of the authors' files.
    """

    def __init__(self, in_features: int, out_features: int, rank_ratio: float) -> None:
        super().__init__()
        rank = max(2, int(min(in_features, out_features) * rank_ratio))
        self.linear1 = nn.Linear(in_features, rank, bias=False)
        self.linear2 = nn.Linear(rank, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))


def build_network(variant: Variant, image_size: int = EDGEFACE_SIZE) -> Any:
    """timm's EdgeNeXt with EMBEDDING_DIM outputs; where the variant has a rank ratio, every linear layer is low-rank.

    So is the output layer: the authors' code skips layers whose own name contains "head", but timm's is `head.fc`. Only
    then are there 1.77 and 3.65 M parameters. image_size: of the input for which positional encodings are kept; weights
    fit any.
    """
    network: Any = timm.create_model(variant.network, num_classes=EMBEDDING_DIM)
    for name, module in list(network.named_modules()):
        parent, _, child = name.rpartition(".")
        if isinstance(module, nn.Linear) and variant.rank_ratio is not None:
            low_rank = LoRaLin(module.in_features, module.out_features, variant.rank_ratio)
            setattr(network.get_submodule(parent), child, low_rank)
    share_positional_encodings(network, network.feature_info, image_size)
    return network


def layer_groups(network: Any) -> list[list[nn.Module]]:
    """From the input on: the four stages, the first with the stem, and the output layer with its norm."""
    groups = [[stage] for stage in network.stages]
    groups[0].insert(0, network.stem)
    return [*groups, [network.norm_pre, network.head]]
