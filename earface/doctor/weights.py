"""Which pretrained weights are on this machine, and whether the others can be had."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub as hub
import torch

from earface.data.face_detection import FILE, REPOSITORY
from earface.doctor.finding import Finding, Status
from earface.nn.edgeface_weights import VARIANTS
from earface.nn.weights import timm_config

GROUP = "pretrained weights"
TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Published:
    """One network that a command asks for."""

    name: str
    used_by: str
    instead: str  # the options that take a file, or do without
    default: bool = True  # whether the command needs it as it is typed first


NEEDED = (
    Published("resnet50.tv_in1k", "ears train, ears detector train", "`encoder_weights` FILE or none"),
    Published("vgg16.tv_in1k", "ears train, dsr train", "`perceptual_weights` FILE, or `perceptual_weight` 0"),
    Published("edgeface_xxs", "dsr train, faces finetune, enroll, identify, evaluate", "`recognizer` FILE"),
    Published("edgeface_xs_gamma_06", "dsr train, ears recognize train", "`second_recognizer` FILE"),
    Published("YuNet", "faces prepare and enroll, of photographs", "`detector` FILE"),
    Published("vit_small_patch14_dinov2.lvd142m", "ears train, encoder dinov2", "`encoder_weights` FILE", False),
    Published("samvit_base_patch16.sa1b", "ears train, encoder sam", "`encoder_weights` FILE", False),
)


def weights() -> list[Finding]:
    reachable = None  # asked at most once, and only if something is missing
    found = []
    for each in NEEDED:
        place = cached_file(each.name)
        if place:
            found.append(Finding(GROUP, each.name, place))
            continue
        reachable = _is_hub_reachable() if reachable is None else reachable
        value = f"missing, for {each.used_by}"
        if reachable:
            found.append(Finding(GROUP, each.name, f"{value}: downloaded when needed", "note"))
        else:
            advice = f"{each.instead}, from {address(each.name)}"
            status: Status = "problem" if each.default else "note"
            found.append(Finding(GROUP, each.name, f"{value}; no network", status, advice))
    return found


def cached_file(name: str) -> str:
    """Where the weights of a network lie on this machine; empty if they do not."""
    repository, files = _source(name)
    for file in files:
        cached = hub.try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return cached
    other = Path(torch.hub.get_dir()) / "checkpoints" / f"{name}.pt"
    return str(other) if other.is_file() else ""


def address(name: str) -> str:
    repository, files = _source(name)
    return hub.hf_hub_url(repository, files[0])


def _source(name: str) -> tuple[str, list[str]]:
    if name in VARIANTS:
        return str(VARIANTS[name].repository), [f"{name}.pt"]
    if name == "YuNet":
        return REPOSITORY, [FILE]
    config = timm_config(name)
    return str(config.hf_hub_id).partition("@")[0], [config.hf_hub_filename or "model.safetensors", "pytorch_model.bin"]


def _is_hub_reachable() -> bool:
    if hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(hub.constants.ENDPOINT, timeout=TIMEOUT_S):
            return True
    except OSError:
        return False
