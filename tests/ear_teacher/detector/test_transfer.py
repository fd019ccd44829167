"""From a trained ear VAE to a detector: the encoder's weights as they are, in both copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ear_teacher import EarVAE
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.train import main as train_detector
from ear_teacher.train import main as train_vae
from earface.core.errors import InputError
from earface.core.options import to_plain
from earface.nn.checkpoint import model_state, read_checkpoint
from earface.synthetic.scene_set import SceneSet, write_scene_set
from earface.training.checkpoint_io import AtomicCheckpointIO
from tests.conftest import TINY
from tests.ear_teacher.detector.test_model import SHAPE, saved

pytestmark = pytest.mark.runs

BACKBONE = "model.encoder.backbone."
SMALL = {"pyramid_width": 16, "image_size": 64, "crop_size": 32}


def written(folder: Path, **shape: Any) -> str:
    """The checkpoint of an ear VAE of random weights, batch statistics too."""
    torch.manual_seed(0)
    vae = EarVAE(latent_dim=4, linear_path_size=0, base_channels=4, **shape)
    state = {f"model.{name}": value for name, value in vae.state_dict().items()}
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_()
    path = folder / "vae.ckpt"
    AtomicCheckpointIO().save_checkpoint(
        {"state_dict": state, "hyper_parameters": {"model": to_plain(vae.config)}}, path
    )
    return str(path)


@pytest.fixture(scope="module")
def trained(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint of an epoch of ear_teacher.train with the moving average of the weights."""
    folder = tmp_path_factory.mktemp("vae")
    files = ("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy"))
    places = ("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs"))
    assert train_vae([*files, *places, *TINY, "--epochs", "1", "--ema-decay", "0.9"]) == 0
    return str(folder / "checkpoints" / "last.ckpt")


def encoder_in(path: str, weights: str = "averaged") -> dict[str, Tensor]:
    state = model_state(read_checkpoint(path), weights)
    return {name.removeprefix(BACKBONE): value for name, value in state.items() if name.startswith(BACKBONE)}


def assert_has_encoder(model: EarDetector, wanted: dict[str, Tensor]) -> None:
    assert len(model.backbones()) == 2
    for backbone in model.backbones():
        own = backbone.state_dict()
        assert own.keys() == wanted.keys()
        for name, value in own.items():
            assert torch.equal(value, wanted[name]), name


@pytest.mark.parametrize("weights", ["averaged", "raw"])
def test_a_detector_starts_from_the_weights_of_a_trained_vae(trained: str, weights: str) -> None:
    model = EarDetector.from_vae_checkpoint(trained, 5, weights=weights, image_size=96, pyramid_width=16)
    assert (model.config.encoder, model.config.base_channels, model.config.crop_size) == ("conv", 4, 64)
    assert (model.config.num_landmarks, model.config.image_size) == (5, 96)
    wanted = encoder_in(trained, weights)
    other = encoder_in(trained, "raw" if weights == "averaged" else "averaged")
    assert any(not torch.equal(wanted[name], other[name]) for name in wanted)
    assert_has_encoder(model, wanted)


def test_training_starts_from_a_vae_and_keeps_its_encoder_if_frozen(
    trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("train", 1), ("val", 2)):
        write_scene_set(tmp_path / name, SceneSet(4, 96, 72, seed=seed))
    files = [flag for name in ("train", "val") for flag in (f"--{name}-json", f"{tmp_path / name}/annotations.json")]
    places = ["--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")]
    small = ["--image-size", "64", "--pyramid-width", "16", "--batch-size", "4", "--precision", "32"]
    given = [*files, *places, *small, "--vae-checkpoint", trained, "--num-workers", "0", "--progress", "none"]
    assert train_detector([*given, "--encoder", "resnet18"]) == 2
    assert f"--encoder resnet18: {trained} has encoder conv" in capsys.readouterr().err
    assert train_detector([*given, "--freeze-encoder", "--epochs", "1"]) == 0
    model = EarDetector.load_from_checkpoint(str(tmp_path / "checkpoints" / "last.ckpt"))
    assert (model.config.encoder, model.config.base_channels, model.config.crop_size) == ("conv", 4, 64)
    assert_has_encoder(model, encoder_in(trained))


@pytest.mark.parametrize("encoder", ["resnet18", "dinov2", "sam"])
def test_every_family_of_encoders_is_taken_over_bit_for_bit(tmp_path: Path, encoder: str) -> None:
    path = written(tmp_path, encoder=encoder, image_size=32)
    model = EarDetector.from_vae_checkpoint(path, 3, freeze_encoder=True, **SMALL)
    assert_has_encoder(model, encoder_in(path))
    frozen = {id(parameter) for backbone in model.backbones() for parameter in backbone.parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (id(parameter) not in frozen), name


def test_a_grey_vae_makes_a_grey_detector(tmp_path: Path) -> None:
    path = written(tmp_path, encoder="conv", image_size=32, in_channels=1)
    model = EarDetector.from_vae_checkpoint(path, image_size=64, pyramid_width=16)
    assert model.config.in_channels == 1
    assert_has_encoder(model, encoder_in(path))


@pytest.mark.parametrize(("encoder", "freeze"), [("conv", True), ("conv", False), ("resnet18", True)])
def test_a_frozen_encoder_learns_nothing_not_even_batch_statistics(tmp_path: Path, encoder: str, freeze: bool) -> None:
    path = written(tmp_path, encoder=encoder, image_size=32)
    model = EarDetector.from_vae_checkpoint(path, 3, freeze_encoder=freeze, **SMALL).train()
    logits, boxes = model.boxes(torch.rand(2, 3, 64, 64))
    assert model.landmarks is not None
    points, visibility, _ = model.landmarks(torch.rand(4, 3, 32, 32))
    torch.stack([each.square().mean() for each in (logits, boxes, points, visibility)]).sum().backward()
    wanted = encoder_in(path)
    for backbone in model.backbones():
        statistics = [name for name in wanted if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
        assert len(statistics) > 10
        for name in statistics:
            assert torch.equal(backbone.state_dict()[name], wanted[name]) == freeze, name
        assert all((parameter.grad is None) == freeze for parameter in backbone.parameters())
        norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all(module.training != freeze for module in norms)
    assert model.boxes.score.weight.grad is not None


def test_a_vae_of_another_encoder_is_refused_by_name(trained: str) -> None:
    with pytest.raises(InputError, match=r"last\.ckpt: has encoder 'conv', not 'resnet18'"):
        EarDetector.from_vae_checkpoint(trained, encoder="resnet18")
    with pytest.raises(InputError, match=r"last\.ckpt: its encoder is not conv of this shape"):
        EarDetector(**{**SHAPE, "base_channels": 8}).load_encoder(trained)


def test_an_encoder_whose_weights_are_bound_to_a_size_is_refused_for_another(tmp_path: Path) -> None:
    """timm's plain vision transformers have a position embedding for each patch."""
    path = written(tmp_path, encoder="timm:test_vit", image_size=160)
    with pytest.raises(InputError, match=r"vae\.ckpt: its encoder is not timm:test_vit of this shape"):
        EarDetector.from_vae_checkpoint(path, 0, image_size=320, pyramid_width=16)


def test_what_is_no_vae_is_refused_by_name(tmp_path: Path) -> None:
    detector = saved(EarDetector(**SHAPE), tmp_path / "detector.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    (tmp_path / "notes.ckpt").write_text("not a checkpoint")
    for path, reason in (
        (detector, "holds no ear VAE"),
        (str(tmp_path / "bare.ckpt"), "holds no ear VAE"),
        (str(tmp_path / "notes.ckpt"), "notes.ckpt: "),
        (str(tmp_path / "absent.ckpt"), "no such checkpoint"),
    ):
        with pytest.raises(InputError, match=reason) as error:
            EarDetector.from_vae_checkpoint(path)
        assert path in str(error.value)


def test_what_is_no_detector_is_refused_by_name(trained: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"last\.ckpt: this checkpoint holds no ear detector"):
        EarDetector.load_from_checkpoint(trained)
    model = EarDetector(**SHAPE)
    path = saved(model, tmp_path / "detector.ckpt")
    checkpoint = read_checkpoint(path)
    del checkpoint["state_dict"]["model.boxes.score.weight"]
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=r"1 tensors do not fit this model; first at boxes\."):
        EarDetector.load_from_checkpoint(path)
