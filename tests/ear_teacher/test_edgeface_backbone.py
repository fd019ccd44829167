"""EdgeFace as the encoder of an ear VAE: its authors' embedding, its maps, and which weights it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ear_teacher import EarDetector, EarRecognizer
from ear_teacher.config import EarVAEConfig
from ear_teacher.hub import FROM_FACES
from ear_teacher.model import EarVAE
from ear_teacher.recognition.train import main as train_recognizer
from ear_teacher.train import main as train
from earface.core.errors import InputError
from earface.nn.checkpoint import read_checkpoint
from tests.conftest import only_line
from tests.ear_teacher.test_identity import IDENTITY, SMALL, noise
from tests.support.edgeface import random_edgeface
from tests.support.shared_files import needs, official_edgeface


def edgeface_vae(file: str, encoder: str = "edgeface_xxs", **options: Any) -> EarVAE:
    shape = {**SMALL, "encoder": encoder, "image_size": 64, **options}
    return EarVAE(EarVAEConfig(**shape), encoder_weights=file).eval()


@pytest.mark.parametrize(
    "encoder",
    ["edgeface_xxs", pytest.param("edgeface_xs", marks=needs(official_edgeface("edgeface_xs_q")))],
)
@torch.no_grad()
def test_its_embedding_is_that_of_the_authors_network(encoder: str, edgeface: Path) -> None:
    from facial_rec.model import EdgeFace

    file = edgeface if encoder == "edgeface_xxs" else official_edgeface("edgeface_xs_q")
    vae, network = edgeface_vae(str(file), encoder), EdgeFace.from_weights(file).eval()
    images = noise(3, 112)
    backbone = vae.encoder.backbone
    maps = backbone(images)
    assert [each.shape[1:] for each in maps] == [
        (width, side, side) for width, side in zip(backbone.channels, backbone.grids, strict=True)
    ]
    torch.testing.assert_close(backbone.embedding(maps), network.model(images), atol=1e-5, rtol=1e-5)
    grey = edgeface_vae(str(file), encoder, in_channels=1).encoder.backbone
    torch.testing.assert_close(grey(images[:, :1])[-1], backbone(images[:, :1].expand(-1, 3, -1, -1))[-1])


def test_its_embedding_is_the_same_alone_and_in_any_batch(edgeface: Path) -> None:
    vae = edgeface_vae(str(edgeface))
    images = noise(9, 64)
    assert torch.equal(torch.cat([vae.identity(each[None]) for each in images]), vae.identity(images))


@torch.no_grad()
def test_its_posterior_is_made_of_its_7x7_map(edgeface: Path) -> None:
    """The map before the last, whose places are twice as fine."""
    vae = edgeface_vae(str(edgeface))
    seen: list[torch.Tensor] = []
    vae.encoder.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    vae.encode(noise(2, 64))
    maps = vae.features(noise(2, 64))
    assert maps[-1].shape[2:] == (3, 3)
    assert seen[0].shape[2:] == (7, 7)
    assert torch.allclose(seen[0][:2], maps[-2], atol=1e-4)


def test_its_output_layer_is_frozen_where_nothing_uses_it(edgeface: Path) -> None:
    for dim, learns in ((0, False), (8, True)):
        backbone = edgeface_vae(str(edgeface), identity_dim=dim).encoder.backbone
        assert all(p.requires_grad == learns for p in backbone.layer_groups()[-1][-1].parameters())
    listed = {id(p) for group in backbone.layer_groups() for module in group for p in module.parameters()}
    assert listed == {id(p) for p in backbone.parameters()}
    with pytest.raises(InputError, match="this encoder has 5 layer groups"):
        backbone.freeze(6)


@pytest.mark.runs
def test_an_ear_recognizers_weights_are_a_start_and_the_vaes_are_one_for_it(
    ear_set: Path, edgeface: Path, tmp_path: Path, capsys: Any
) -> None:
    from earface.nn.checkpoint import network_state
    from tests.ear_teacher.test_training import arguments

    ears = ["--train-npy", f"{ear_set}/train_teacher.npy", "--val-npy", f"{ear_set}/val_teacher.npy"]
    small = [*ears, "--num-workers", "0", "--progress", "none", "--precision", "32", "--fast-dev-run"]
    recognizer = EarRecognizer(backbone="edgeface_xxs", backbone_weights=str(edgeface)).eval()
    recognizer.save_pretrained(tmp_path / "recognizer")
    options = ("--encoder", "edgeface_xxs", "--encoder-weights", str(tmp_path / "recognizer"), "--lr", "1e-9")
    assert train(arguments(ear_set, tmp_path / "vae", *IDENTITY, *options, "--epochs", "1", "--ema-decay", "0")) == 0
    checkpoint = tmp_path / "vae" / "checkpoints" / "last.ckpt"
    vae = EarVAE.load(checkpoint)
    images = noise(3, 64)
    resized = torch.nn.functional.interpolate(images, (112, 112), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(vae.encoder.embedding(images), recognizer(resized), atol=1e-3, rtol=1e-3)
    assert vae.from_faces
    vae.save_pretrained(tmp_path / "folder")
    assert EarVAE.from_pretrained(tmp_path / "folder").from_faces
    assert FROM_FACES in (tmp_path / "folder" / "README.md").read_text()
    assert train_recognizer(["--backbone", "edgeface_xxs", "--vae-checkpoint", str(checkpoint), *small]) == 0
    again = EarRecognizer(backbone="edgeface_xxs")
    again.load_encoder(str(checkpoint))
    kept = network_state(read_checkpoint(checkpoint))
    assert all(
        torch.equal(value, kept[f"encoder.backbone.net.{name}"]) for name, value in again.network.state_dict().items()
    )
    detector = EarDetector.from_vae_checkpoint(str(checkpoint), image_size=64, pyramid_width=16, num_landmarks=0)
    assert torch.equal(detector.boxes.backbone.net.stem[0].weight, kept["encoder.backbone.net.stem.0.weight"])
    capsys.readouterr()
    for argv, reason in (
        (["--backbone", "edgeface_xs_q", "--vae-checkpoint", str(checkpoint)], "has the encoder edgeface_xxs, not"),
        (["--backbone", "edgeface_base", "--vae-checkpoint", str(checkpoint)], "no ear VAE has edgeface_base"),
    ):
        assert train_recognizer([*argv, *small]) == 2
        assert reason in only_line(capsys)


@pytest.mark.runs
def test_weights_of_something_else_are_one_line(tiny: list[str], edgeface: Path, tmp_path: Path, capsys: Any) -> None:
    EarRecognizer(backbone="conv", base_channels=4, image_size=32, embedding_dim=8).save_pretrained(tmp_path / "conv")
    EarVAE(EarVAEConfig(**SMALL)).save_pretrained(tmp_path / "vae")
    random_edgeface(tmp_path / "other.pt", 0, "edgeface_s_gamma_05")
    for file, reason in (
        (tmp_path / "conv", "holds the network conv"),
        (tmp_path / "vae", "describes no ear recogniser"),
        (tmp_path / "other.pt", "holds the network edgeface_s_gamma_05"),
        (tmp_path / "none.pt", "none.pt: no such weights file"),
        (tmp_path / "none.ckpt", "none.ckpt: no such"),
    ):
        weights = ("--encoder", "edgeface_xxs", "--encoder-weights", str(file), "--perceptual-weight", "0")
        assert train([*tiny, *weights]) == 2
        assert reason in only_line(capsys)
