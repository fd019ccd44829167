"""What a training step computes, in pieces: each trainer's own module, a batch, its forward pass and its losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.assets import Assets
from benchmarks.gpu.context import Context
from earface.data.pixels import to_model_range

KL_WEIGHT = 0.01
FEW_ROWS = 64  # that the linear path is fitted on: its cost a step does not depend on them


@dataclass
class Workload:
    """`losses(batch, forward(batch))` is the loss that a training step minimises. `batch` is as the loader gives it.

    A module that compiles its whole objective has the losses in `forward` then.
    """

    module: Any
    batch: dict[str, Tensor]
    prepare: Callable[[dict[str, Any]], dict[str, Any]]  # on the device, after the transfer
    forward: Callable[[dict[str, Any]], Any]
    losses: Callable[[dict[str, Any], Any], Tensor]

    @property
    def size(self) -> int:
        return len(self.batch["index"])

    @property
    def config(self) -> Any:
        return self.module.config


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    """(count, side, side, 3) uint8: smooth, with noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    fine = torch.randn(count, 3, side, side, generator=generator) * 0.02
    images = (F.interpolate(coarse, (side, side), mode="bicubic") + fine).clamp(0, 1)
    return (images * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def ear(context: Context, flags: Sequence[str], noise: bool = False) -> Workload:
    """noise: the posterior's noise is part of the batch, so that two devices see the same, and no layer is at zero."""
    from ear_teacher.config import ALIASES, PRESETS, EarVAETrainingConfig
    from ear_teacher.module import EarVAELightning
    from earface.core.command_line import parse_options

    assets = Assets.of(context)
    perceptual = assets.dinov2_perceptual if "--encoder=dinov2" in flags else assets.perceptual
    small = ["--image_size=64", "--base_channels=4", "--latent_dim=8", "--linear_path_size=16", "--batch_size=4"]
    argv = [*perceptual, "--encoder_weights=none", "--progress=none", *flags, *(small if context.smoke else [])]
    config = parse_options(
        EarVAETrainingConfig, argv, prog="workload", aliases=ALIASES, preset_field="encoder", presets=PRESETS
    )
    torch.manual_seed(0)
    module = EarVAELightning(config)
    module.model.fit_closed_form(linear_rows(module))
    count = config.batch_size
    batch = {"pixels": pictures(count, config.image_size), "index": torch.arange(count)}
    batch["subject"] = torch.arange(count) // 2
    if noise:
        wake(module.model)
        batch["noise"] = torch.randn(2, count, config.latent_dim, generator=torch.Generator().manual_seed(1))

    def forward(batch: dict[str, Any]) -> Any:
        mu, logvar = module.model.encoder(batch["source"])
        noises = batch["noise"] if noise else torch.randn(2, *mu.shape, device=mu.device)
        first, second = (mu + each * (0.5 * logvar).exp() for each in noises)
        return module.model.decode(first), mu, logvar, first, second

    def losses(batch: dict[str, Any], outputs: Any) -> Tensor:
        reconstruction, mu, logvar, first, second = outputs
        second = second if config.contrastive_weight > 0 else None
        assert module.loss is not None, "built for training"
        return total_of(
            module.loss(
                reconstruction, batch["image"], mu, logvar, KL_WEIGHT, z1=first, z2=second, subjects=batch["subject"]
            )
        )

    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        image = to_model_range(batch["pixels"])
        return {**batch, "image": image, "source": image}

    return Workload(module, batch, prepare, forward, losses)


def wake(model: torch.nn.Module) -> None:
    """Give weights to what starts at zero or nearly: behind it no layer would have a gradient to compare."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.abs().max() < 1e-4 and not name.endswith("bias"):
                parameter.normal_(std=0.02) if parameter.ndim > 1 else parameter.fill_(0.5)


def linear_rows(module: Any) -> Tensor:
    """A few pictures as the linear path is fitted on them."""
    rows: Tensor = module.model.closed_form_rows(to_model_range(pictures(FEW_ROWS, module.config.image_size, seed=2)))
    return rows


def dsr(context: Context, flags: Sequence[str]) -> Workload:
    from dsr.config import ALIASES, PRESETS, DSRTrainingConfig
    from dsr.losses import load_perceptual
    from dsr.module import DSRLightning
    from earface.core.command_line import parse_options
    from earface.data.face_dataset import with_vlr
    from facial_rec.recognizer import load_frozen_recognizer

    assets = Assets.of(context)
    own = [f"--recognizer={assets.edgeface}", "--second_recognizer=none", "--progress=none", *assets.perceptual]
    small = ["--variant=small", "--base_channels=8", "--residual_blocks=1", "--batch_size=4"] if context.smoke else []
    config = parse_options(
        DSRTrainingConfig,
        [*own, *flags, *small],
        prog="workload",
        aliases=ALIASES,
        preset_field="variant",
        presets=PRESETS,
    )
    torch.manual_seed(0)
    recognizer = load_frozen_recognizer("--recognizer", config.recognizer, config.crop)
    module = DSRLightning(config, recognizer, None, load_perceptual(config))
    index = torch.arange(config.batch_size)
    batch = {"hr_pixels": pictures(config.batch_size, 128), "identity": index, "index": index}
    return Workload(
        module,
        batch,
        lambda batch: with_vlr(batch, config.degradation, config.vlr),
        lambda batch: module.objective(batch) if config.compile else module.model(batch["vlr"]),
        lambda batch, found: total_of(
            found if config.compile else module.loss(found, batch["hr"], config.recognizer_jitter)
        ),
    )


def edgeface(context: Context, flags: Sequence[str], identities: int = 1000) -> Workload:
    """Stage 2: everything learns."""
    from earface.core.command_line import parse_options
    from earface.nn.margin_head import margin_loss
    from facial_rec.config import ALIASES, EdgeFaceTrainingConfig
    from facial_rec.module import EdgeFaceLightning
    from facial_rec.recognizer import load_edgeface

    argv = [f"--recognizer={Assets.of(context).edgeface}", "--progress=none", *flags]
    config = parse_options(EdgeFaceTrainingConfig, argv, prog="workload", aliases=ALIASES).of_stage(2)
    torch.manual_seed(0)
    module = EdgeFaceLightning(config, load_edgeface(config.recognizer), [str(each) for each in range(identities)])
    count = config.batch_size
    batch = {"pixels": pictures(count, 128), "label": torch.arange(count) % identities, "index": torch.arange(count)}

    def forward(batch: dict[str, Any]) -> Any:
        if config.compile:
            return module.objective(batch)
        return module.model(module.contract(batch["image"])).float()

    def losses(batch: dict[str, Any], found: Any) -> Tensor:
        if config.compile:
            return total_of(found)
        return margin_loss(module.head(found, batch["label"]), batch["label"], config.label_smoothing)

    return Workload(
        module,
        batch,
        lambda batch: {"image": to_model_range(batch["pixels"]), "label": batch["label"], "index": batch["index"]},
        forward,
        losses,
    )


def detector(context: Context, flags: Sequence[str]) -> Workload:
    from ear_teacher.detector.config import ALIASES, EarDetectorTrainingConfig
    from ear_teacher.detector.losses import box_losses, landmark_losses
    from ear_teacher.detector.model import EarDetector
    from ear_teacher.detector.module import EarDetectorLightning
    from earface.core.command_line import parse_options

    small = ["--image_size=64", "--crop_size=32", "--pyramid_width=16", "--batch_size=4"] if context.smoke else []
    argv = ["--encoder_weights=none", "--progress=none", *flags, *small]
    config = parse_options(EarDetectorTrainingConfig, argv, prog="workload", aliases=ALIASES).resolved(17)
    torch.manual_seed(0)
    model = EarDetector(config.model_config((), ()), "none")
    module = EarDetectorLightning(config, model)
    count, side, crop = config.batch_size, config.image_size, config.crop_size or 0
    corners = torch.tensor([[0.2, 0.2, 0.6, 0.7]]) * side
    batch = {
        "pixels": pictures(count, side),
        "crop_pixels": pictures(count, crop, seed=1),
        "keypoints": torch.cat([torch.rand(count, 17, 2) * crop, torch.full((count, 17, 1), 2.0)], dim=2),
        "boxes": torch.stack([corners + each for each in range(count)]),
        "unclear": torch.full((count, 1, 4), torch.nan),
        "complete": torch.ones(count, dtype=torch.bool),
        "index": torch.arange(count),
    }

    def forward(batch: dict[str, Any]) -> Any:
        assert model.landmarks is not None, "built with landmarks"
        return model.boxes(batch["image"]), model.landmarks(batch["crops"])

    def losses(batch: dict[str, Any], outputs: Any) -> Tensor:
        (logits, boxes), (points, visibility, heat) = outputs
        net, ears = model.boxes, (batch["boxes"], batch["unclear"], batch["complete"])
        terms = box_losses(logits, boxes, net.places, net.strides, net.level_sizes, *ears)
        terms |= landmark_losses(points, visibility, heat, batch["keypoints"], crop)
        weights = {"box": config.box_weight, "heatmap": config.heatmap_weight, "landmark": config.landmark_weight}
        return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()

    def prepare(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "image": to_model_range(batch["pixels"]), "crops": to_model_range(batch["crop_pixels"])}

    return Workload(module, batch, prepare, forward, losses)


def total_of(result: Any) -> Tensor:
    """Of a loss that gives (total, terms), or a result with `total`."""
    return result[0] if isinstance(result, tuple) else result.total


def to_device(batch: dict[str, Tensor], device: str) -> dict[str, Any]:
    """From pinned memory without waiting, as a loader's batch goes."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def pinned(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.pin_memory() for name, value in batch.items()}
