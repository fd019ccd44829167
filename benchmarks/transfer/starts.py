"""What a network may start from: nothing, an ear VAE, or published weights."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.transfer.options import TransferBenchmark
from ear_teacher import EarVAE
from ear_teacher.detector.config import FROM_VAE, EarDetectorConfig
from ear_teacher.detector.model import vae_options
from ear_teacher.encoders import build_backbone, require_backbone
from earface.core.errors import InputError
from earface.data.pixels import to_model_range
from earface.nn.checkpoint import find_checkpoint

NOTHING, LITE0 = "nothing", "timm:tf_efficientnet_lite0"
UNTAUGHT = {"encoder": "conv", "base_channels": 24}  # the network of `nothing` where there is no teacher
BATCH = 32
GRIDS = (1, 4, 8)  # cells a side into which each map is averaged


@dataclass(frozen=True)
class Start:
    """A row of the table."""

    name: str
    network: dict[str, Any]  # the fields of EarDetectorConfig that say which encoder it is
    checkpoint: str | None = None  # of an ear VAE
    image_size: int | None = None  # of the ears that it takes; None: any
    weights: str = "none"
    digest: str = field(default="none")  # of the file

    @property
    def training(self) -> dict[str, Any]:
        """Options of a detector's training."""
        if self.checkpoint is not None:
            return {"vae_checkpoint": self.checkpoint}
        return {**self.network, "encoder_weights": self.weights}

    @torch.no_grad()
    def features(self, images: NDArray[np.uint8], seed: int) -> dict[str, NDArray[np.float32]]:
        """Of N ears (N, S, S, C), each (N, D): every map averaged in the cells of GRIDS, and of a VAE its latents.

        seed: of random weights.
        """
        side, channels = images.shape[1], images.shape[3]
        torch.manual_seed(seed)
        vae = None if self.checkpoint is None else EarVAE.load(self.checkpoint)
        if vae is None:
            shape = EarDetectorConfig(**{**self.network, "in_channels": channels})
            network: Any = build_backbone(shape.backbone_config(side), self.weights).eval()
        else:
            network = vae.features
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, len(images), BATCH):
            batch = to_model_range(torch.from_numpy(np.array(images[start : start + BATCH])))
            found = {}
            for number, maps in enumerate(network(batch), 1):
                for grid in (grid for grid in GRIDS if grid <= maps.shape[-1]):
                    found[f"map {number}, {grid}x{grid}"] = F.adaptive_avg_pool2d(maps, grid).flatten(1)
            if vae is not None:
                found["mu"] = mu = vae.encode(batch)
                if vae.config.identity_dim:
                    found["identity part"] = mu[:, vae.config.identity_part]
            for depth, values in found.items():
                parts.setdefault(depth, []).append(values.float())
        return {depth: torch.cat(values).numpy() for depth, values in parts.items()}


def starts_of(options: TransferBenchmark) -> list[Start]:
    """Nothing first, then teachers, then published weights, then random weights of the networks of these.

    Raises InputError for a file that is none of what it is given as, and for two of one name.
    """
    taught = [teacher(text) for text in options.teacher]
    given = [(name, encoder, path) for name, encoder, path in _given(options)]
    published = [_published(name, encoder, path) for name, encoder, path in given]
    plain = taught[0].network if taught else UNTAUGHT
    starts = [Start(NOTHING, plain), *taught, *published]
    for each in [*taught, *published]:
        if all(each.network != start.network for start in starts if start.name.startswith(NOTHING)):
            starts.append(Start(f"{NOTHING} ({each.name})", each.network))
    names = [start.name for start in starts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two starts are called {twice[0]}: give names, NAME=FILE")
    return starts


def teacher(text: str) -> Start:
    """Of CKPT or NAME=CKPT; a file's own name may have equals signs, too."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists() or not re.fullmatch(r"[\w .-]+", name):
        name, path = "teacher", text
    file = find_checkpoint(path)
    stored = vae_options(str(file))
    network = {field: stored[field] for field in FROM_VAE if field in stored}
    return Start(name, network, checkpoint=str(file), image_size=stored["image_size"], digest=_digest(file))


def _given(options: TransferBenchmark) -> list[tuple[str, str, str]]:
    """The name, the encoder and the file of each of the published weights."""
    found = [("lite0", LITE0, options.lite0)] if options.lite0 else []
    for text in options.weights:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise InputError(f"`weights` {text}: give the encoder and its file, such as resnet50=FILE")
        found.append((name.removeprefix("timm:"), name, path))
    return found


def _published(name: str, encoder: str, path: str) -> Start:
    shape = EarDetectorConfig(encoder=encoder)
    shape.check()
    require_backbone(shape.backbone_config(shape.crop_size), path)
    return Start(name, {"encoder": encoder}, weights=path, digest=path if path == "pretrained" else _digest(Path(path)))


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
