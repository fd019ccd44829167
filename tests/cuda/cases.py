"""Every trainer at a small size, ready for one step on fake CUDA tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.data import default_collate

from earface.nn.weights import load_timm_backbone
from tests.cuda.fake import CUDA, HostTraffic, fake_cuda, on_cuda, precision

NEVER = 10**6  # steps between two readings of the terms: readings are no part of a step
TIMM = "timm:test_resnet.r160_in1k"  # timm's own test model, 0.4 M parameters


@dataclass(frozen=True)
class Files:
    """Small sets that cases are built of, and a folder for what they make."""

    ears: Path
    faces: Path
    scenes: Path
    edgeface: Path
    folder: Path


@dataclass(frozen=True)
class Case:
    """A module with its data module, and a batch of each kind as the loader gives it."""

    module: Any
    datamodule: Any
    training: dict[str, Any]
    validation: dict[str, Any]
    warm: set[bool] = field(default_factory=set)  # whether a step of training, or of validation, was run


@dataclass
class Standing:
    """What a module asks of its Trainer in a step."""

    datamodule: Any
    current_epoch: int = 0
    global_step: int = 0
    global_rank: int = 0
    num_training_batches: int = 10
    world_size: int = 1
    is_global_zero: bool = True
    sanity_checking: bool = False
    loggers: list[Any] = field(default_factory=list)
    ckpt_path: str | None = None
    precision: str = "32-true"
    root_device: torch.device = CUDA

    @property
    def strategy(self) -> Any:
        return self


@dataclass(frozen=True)
class Counted:
    """A training step and a validation batch, each after one that is not counted."""

    training: HostTraffic
    validation: HostTraffic


def count(case: Case, name: str) -> Counted:
    """Run both in a precision of tests.cuda.fake.PRECISIONS."""
    return Counted(_counted(case, name, True), _counted(case, name, False))


def _counted(case: Case, name: str, training: bool) -> HostTraffic:
    module, datamodule = case.module, case.datamodule
    if not case.warm:
        module.to(memory_format=torch.channels_last)  # as a Trainer on CUDA does
    with fake_cuda() as traffic:
        on_cuda(module)
        module._trainer = Standing(datamodule)
        module.terms.check_every = NEVER
        module.train(training)
        module.on_fit_start()
        if not training:
            module.on_validation_epoch_start()
        for step in range(1 if training in case.warm else 2):
            batch = on_cuda(case.training if training else case.validation)
            traffic.clear()
            batch = datamodule.on_after_batch_transfer(batch, 0)
            with precision(name), torch.set_grad_enabled(training):
                if training:
                    module.on_train_batch_start(batch, step)
                    module.training_step(batch, step)
                else:
                    outputs = module.validation_step(batch, step)
                    module.on_validation_batch_end(outputs, batch, step)
    case.warm.add(training)
    return traffic


def _case(module: Any, datamodule: Any, size: int = 4) -> Case:
    collate = datamodule.collate or default_collate
    training = collate([datamodule.train_set[0, index] for index in range(size)])
    validation = collate([datamodule.val_set[index] for index in range(min(size, len(datamodule.val_set)))])
    return Case(
        module, datamodule, *(datamodule.on_before_batch_transfer(batch, 0) for batch in (training, validation))
    )


def _untrained(name: str, weights: str, **options: Any) -> Any:
    """For a perceptual loss, which takes no random weights."""
    return load_timm_backbone(name, "none", **options)


def ear_teacher(files: Files, **options: Any) -> Case:
    """All seven terms of the loss, 64 px."""
    from ear_teacher.config import EarVAETrainingConfig
    from ear_teacher.datamodule import EarVAEDataModule
    from ear_teacher.losses import build_loss
    from ear_teacher.module import EarVAELightning

    shape = {"encoder": "conv", "image_size": 64, "latent_dim": 16, "base_channels": 8, "linear_path_size": 16}
    perceptual = {"perceptual_backbone": TIMM}
    data = {"train_npy": (str(files.ears / "train_teacher.npy"),), "val_npy": (str(files.ears / "val_teacher.npy"),)}
    config = EarVAETrainingConfig(**{**shape, **perceptual, **data, "encoder_weights": "none", **options})
    datamodule = EarVAEDataModule(config)
    datamodule.setup()
    with patch("earface.nn.perceptual.load_timm_backbone", _untrained):
        loss = build_loss(config)
    return _case(EarVAELightning(config, loss=loss), datamodule)


def detector(files: Files, **options: Any) -> Case:
    """Boxes and landmarks in 64 px photographs."""
    from ear_teacher.detector.annotated_photographs import AnnotatedPhotographs
    from ear_teacher.detector.config import EarDetectorTrainingConfig
    from ear_teacher.detector.datamodule import EarDetectorDataModule
    from ear_teacher.detector.model import EarDetector
    from ear_teacher.detector.module import EarDetectorLightning

    shape = {"encoder": "conv", "base_channels": 4, "image_size": 64, "crop_size": 32, "pyramid_width": 16}
    data = {f"{split}_json": (str(files.scenes / split / "annotations.json"),) for split in ("train", "val")}
    config = EarDetectorTrainingConfig(**{**shape, **data, "encoder_weights": "none", **options})
    annotated = AnnotatedPhotographs.read(config)
    config = config.resolved(annotated.num_landmarks)
    datamodule = EarDetectorDataModule(config, annotated)
    datamodule.setup()
    module = EarDetectorLightning(config, EarDetector(config.model_config(*annotated.landmarks)))
    return _case(module, datamodule)


def dsr(files: Files, **options: Any) -> Case:
    """Every term of the loss, with jitter and two recognisers, 16 px to 128."""
    from dsr.config import DSRTrainingConfig
    from dsr.datamodule import DSRDataModule
    from dsr.losses import load_perceptual
    from dsr.module import DSRLightning
    from facial_rec.recognizer import load_frozen_recognizer

    shape = {"vlr_size": "16", "base_channels": 8, "residual_blocks": 1, "dataset_root": str(files.faces)}
    perceptual = {"perceptual_backbone": TIMM}
    recognizers = {"recognizer": str(files.edgeface), "second_recognizer": str(files.edgeface)}
    config = DSRTrainingConfig(**{**shape, **perceptual, **recognizers, **options})
    datamodule = DSRDataModule(config)
    datamodule.setup()
    first, second = (
        load_frozen_recognizer(flag, getattr(config, flag), config.crop) for flag in ("recognizer", "second_recognizer")
    )
    with patch("earface.nn.perceptual.load_timm_backbone", _untrained):
        perceptual_loss = load_perceptual(config)
    return _case(DSRLightning(config, first, second, perceptual_loss), datamodule)


def edgeface(files: Files, stage: Any, **options: Any) -> Case:
    """A stage of the fine-tuning on interpolated faces."""
    from dsr.upsampler import build_upsamplers
    from facial_rec.config import EdgeFaceTrainingConfig
    from facial_rec.datamodule import EdgeFaceDataModule
    from facial_rec.module import EdgeFaceLightning
    from facial_rec.recognizer import load_edgeface

    data = {"dataset_root": str(files.faces), "upsampler": "bicubic", "vlr_size": "16"}
    paths = {"recognizer": str(files.edgeface), "cache_dir": str(files.folder / "cache")}
    config = EdgeFaceTrainingConfig(**{**data, **paths, **options}).of_stage(stage)
    datamodule = EdgeFaceDataModule(config, build_upsamplers(config.mixture, config.dsr_checkpoint, config.vlr_size))
    datamodule.setup()
    return _case(EdgeFaceLightning(config, load_edgeface(config.recognizer), datamodule.classes), datamodule)


def ear_recognizer(files: Files, **options: Any) -> Case:
    """Ears of 64 px, under a margin that has risen half."""
    from ear_teacher.recognition.config import EarRecognizerTrainingConfig
    from ear_teacher.recognition.datamodule import EarRecognizerDataModule
    from ear_teacher.recognition.model import EarRecognizer
    from ear_teacher.recognition.module import EarRecognizerLightning

    shape = {"backbone": "conv", "base_channels": 4, "image_size": 64, "embedding_dim": 16}
    if str(options.get("backbone", "")).startswith("edgeface"):
        shape = {}
    data = {f"{role}_npy": (str(files.ears / f"{role}_teacher.npy"),) for role in ("train", "val")}
    config = EarRecognizerTrainingConfig(**{**shape, **data, "backbone_weights": "none", **options})
    datamodule = EarRecognizerDataModule(config)
    datamodule.setup()
    module = EarRecognizerLightning(config, EarRecognizer(config.model_config()), datamodule.classes)
    module.head.margin = config.margin / 2
    return _case(module, datamodule)


def _vae(**options: Any) -> Callable[[Files], Case]:
    return lambda files: ear_teacher(files, **options)


def _detector(**options: Any) -> Callable[[Files], Case]:
    return lambda files: detector(files, **options)


def _dsr(**options: Any) -> Callable[[Files], Case]:
    return lambda files: dsr(files, **options)


def _edgeface(stage: int, **options: Any) -> Callable[[Files], Case]:
    return lambda files: edgeface(files, stage, **options)


def _ear_recognizer(**options: Any) -> Callable[[Files], Case]:
    return lambda files: ear_recognizer(files, **options)


ALONE = {"lambda_perceptual": 0.0, "lambda_identity": 0.0, "lambda_feature_match": 0.0, "lambda_tv": 0.0}
CASES: dict[str, Callable[[Files], Case]] = {
    "ear teacher, resnet18": _vae(encoder="resnet18"),
    "ear teacher, resnet50": _vae(encoder="resnet50"),
    "ear teacher, conv": _vae(),
    "ear teacher, dinov2": _vae(encoder="dinov2", freeze_layers=8, focal_gamma=1.0),
    "ear teacher, sam": _vae(encoder="sam", freeze_layers=6),
    "ear teacher, timm:edgenext_xx_small": _vae(encoder="timm:edgenext_xx_small"),
    "ear teacher, conv, denoising, grey": _vae(denoise=True, augment="full", in_channels=1, linear_path_size=0),
    "ear teacher, conv, VGG16": _vae(perceptual_backbone="vgg16"),
    "ear teacher, conv, DINOv2 as loss": _vae(perceptual_backbone="dinov2"),
    "ear teacher, conv, mse alone": _vae(
        reconstruction="mse",
        perceptual_weight=0.0,
        ssim_weight=0.0,
        edge_weight=0.0,
        contrastive_weight=0.0,
        center_weight=0.0,
        kl_reduction="sum",
    ),
    "ear recogniser, conv": _ear_recognizer(),
    "ear recogniser, edgeface": _ear_recognizer(backbone="edgeface_xxs"),
    "ear recogniser, adaface, sub-centres": _ear_recognizer(head="adaface", sub_centers=3),
    "detector, conv, landmarks": _detector(),
    "detector, conv, boxes only": _detector(num_landmarks=0),
    "detector, conv, landmarks only": _detector(train_boxes=False),
    "detector, resnet18, landmarks": _detector(encoder="resnet18", freeze_encoder=True),
    "dsr, all terms": _dsr(),
    "dsr, realistic": _dsr(degradation="realistic"),
    "dsr, l1": _dsr(**ALONE, recognizer="none", second_recognizer="none"),
    "dsr, perceptual": _dsr(**ALONE | {"lambda_perceptual": 1.0}, perceptual_backbone="vgg16"),
    "dsr, identity": _dsr(**ALONE | {"lambda_identity": 1.0}, recognizer_jitter=0.0),
    "dsr, feature matching": _dsr(**ALONE | {"lambda_feature_match": 1.0}, crop="center"),
    "dsr, total variation": _dsr(**ALONE | {"lambda_tv": 1.0}),
    "edgeface, stage 1, arcface": _edgeface(1),
    "edgeface, stage 1, adaface": _edgeface(1, head="adaface"),
    "edgeface, stage 2, arcface": _edgeface(2),
    "edgeface, stage 2, cosface": _edgeface(2, head="cosface"),
    "edgeface, stage 2, adaface": _edgeface(2, head="adaface"),
    "edgeface, stage 2, align and keep": _edgeface(2, lambda_align=1.0, keep_weight=1.0),
    "edgeface, stage 2, LoRA": _edgeface(2, lora_rank=2),
}
THOROUGH = {  # every network; the others differ from one of these in their losses, and in the number of their parts
    *(name for name in CASES if name.startswith("ear teacher") and name.count(",") == 1),
    *("detector, conv, landmarks", "detector, resnet18, landmarks", "dsr, all terms"),
    *("edgeface, stage 1, arcface", "edgeface, stage 2, arcface", "ear recogniser, edgeface"),
}
