"""Official weight files as their authors publish them, recognised by their keys and brought into timm's layout."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]

PACKED = "._packed_params._packed_params"  # weight and bias of torch's int8 linear layers


@dataclass(frozen=True)
class Layout:
    """One published form of one family of networks."""

    name: str
    marks: tuple[str, ...]  # keys that only this layout has, all of them
    convert: Callable[[State], State]
    normalisation: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)  # where it is not timm's


def dequantize_linears(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the int8 linear layers of torch.ao.quantization as float32 `weight` and `bias`.

    The float values are (integer - zero point) * scale, exactly what the file stands for.
    """
    plain = {}
    for key, value in content.items():
        layer = key.rpartition(".")[0]
        if key.endswith(PACKED) and isinstance(value, tuple):
            weight, bias = value
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces the end of its int8 tensors; plain float is wanted
                plain[key.removesuffix(PACKED) + ".weight"] = weight.dequantize()
            if bias is not None:
                plain[key.removesuffix(PACKED) + ".bias"] = bias.detach().dequantize()
        elif not (f"{layer}{PACKED}" in content or key.endswith("._packed_params.dtype")):
            plain[key] = value
    return plain


def recognise(state: State) -> tuple[Layout | None, State]:
    """The layout of a file's tensors, and the tensors under timm's names; unknown ones are returned as they are."""
    for layout in LAYOUTS:
        if all(mark in state for mark in layout.marks):
            return layout, layout.convert(state)
    return None, state


def _renamed(state: State, rules: tuple[tuple[str, str], ...]) -> State:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _below(prefix: str) -> Callable[[State], State]:
    def convert(state: State) -> State:
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    return convert


def _sam_from_meta(state: State) -> State:
    return _renamed(_below("image_encoder.")(state), ((r"\.mlp\.lin([12])\.", r".mlp.fc\1."),))


def _sam_from_transformers(state: State) -> State:
    return _renamed(
        _below("vision_encoder.")(state),
        (
            (r"^patch_embed\.projection\.", "patch_embed.proj."),
            (r"^layers\.(\d+)\.layer_norm", r"blocks.\1.norm"),
            (r"^layers\.", "blocks."),
            (r"\.mlp\.lin([12])\.", r".mlp.fc\1."),
            (r"^neck\.conv1\.", "neck.0."),
            (r"^neck\.layer_norm1\.", "neck.1."),
            (r"^neck\.conv2\.", "neck.2."),
            (r"^neck\.layer_norm2\.", "neck.3."),
        ),
    )


def _dinov2_from_transformers(state: State) -> State:
    """Query, key and value become one matrix. Meta's names come out; timm converts those, register tokens included."""
    state = _renamed(
        {key.removeprefix("dinov2.").removeprefix("dinov2_with_registers."): value for key, value in state.items()},
        (
            (r"^embeddings\.position_embeddings$", "pos_embed"),
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.", ""),
            (r"^(encoder\.)?layer\.(\d+)\.", r"blocks.\2."),
            (r"\.attention\.(attention\.)?(query|key|value)\.", lambda found: f".attn.{found[2][0]}."),  # type: ignore[arg-type]
            (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
            (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            (r"\.mlp\.weights_in\.", ".mlp.w12."),
            (r"\.mlp\.weights_out\.", ".mlp.w3."),
            (r"^layernorm\.", "norm."),
        ),
    )
    for key in [key for key in state if re.search(r"\.attn\.q\.(weight|bias)$", key)]:
        parts = [state.pop(key.replace(".attn.q.", f".attn.{part}.")) for part in "qkv"]
        state[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
    return state


def _efficientnet_lite(state: State) -> State:
    """Blocks counted through become timm's stages: in every EfficientNet a stage is what has one width."""
    renamed, stage, block, width = {}, -1, 0, 0
    for number in range(sum(key.endswith("_project_conv.weight") for key in state)):
        below = f"_blocks.{number}."
        found = len(state[f"{below}_project_conv.weight"])
        stage, block, width = (stage, block + 1, width) if found == width else (stage + 1, 0, found)
        expands = f"{below}_expand_conv.weight" in state
        names = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_bn0": "bn1"}
        names |= {"_project_conv": "conv_pwl", "_bn1": "bn2", "_bn2": "bn3"}
        names |= {} if expands else {"_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}
        for key in [key for key in state if key.startswith(below)]:
            layer, _, tensor = key.removeprefix(below).partition(".")
            renamed[f"blocks.{stage}.{block}.{names.get(layer, layer)}.{tensor}"] = state[key]
    rest = {key: value for key, value in state.items() if not key.startswith("_blocks.")}
    around = (("^_conv_", "conv_"), ("^_bn0", "bn1"), ("^_bn1", "bn2"), ("^_fc", "classifier"))
    return renamed | _renamed(rest, around)


HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
LAYOUTS = (
    Layout("SAM (Meta)", ("image_encoder.patch_embed.proj.weight",), _sam_from_meta),
    Layout("SAM (transformers)", ("vision_encoder.patch_embed.projection.weight",), _sam_from_transformers),
    Layout("SAM (timm)", ("patch_embed.proj.weight", "blocks.0.attn.rel_pos_h"), dict),
    Layout(
        "DINOv2 (transformers)",
        ("embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings"),
        _dinov2_from_transformers,
    ),
    Layout(
        "DINOv2 (transformers)",
        ("dinov2.embeddings.patch_embeddings.projection.weight",),
        _dinov2_from_transformers,
    ),
    Layout(
        "DINOv2 with registers (transformers)",
        ("dinov2_with_registers.embeddings.patch_embeddings.projection.weight",),
        _dinov2_from_transformers,
    ),
    Layout("DINOv2 (Meta)", ("mask_token", "patch_embed.proj.weight", "blocks.0.ls1.gamma"), dict),
    Layout("DINOv2 (timm)", ("cls_token", "patch_embed.proj.weight", "blocks.0.ls1.gamma"), dict),
    Layout(
        "EdgeFace",
        ("model.stem.0.weight", "model.stages.0.blocks.0.conv_dw.weight"),
        _below("model."),
        HALVES,
    ),
    Layout("EfficientNet-Lite", ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"), _efficientnet_lite, HALVES),
    Layout("torchvision ResNet", ("conv1.weight", "layer1.0.conv1.weight"), dict),
    Layout("torchvision VGG", ("features.0.weight", "classifier.0.weight"), dict),
)
