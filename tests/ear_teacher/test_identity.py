"""The identity part of an ear VAE: where it comes from, what moves it, how it is trained, measured and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from ear_teacher.config import EarVAEConfig, EarVAETrainingConfig
from ear_teacher.datamodule import EarVAEDataModule
from ear_teacher.identity import IdentityLoss, IdentityMetrics
from ear_teacher.model import EarVAE
from ear_teacher.train import main as train
from earface.commands import main
from earface.core.stopping import EXIT_PAUSED
from earface.data.npy import read_teacher_npy, write_teacher_npy
from earface.metrics.identification import identify, unit_rows
from earface.nn.checkpoint import read_checkpoint
from tests.conftest import only_line
from tests.support.training import assert_same, metric_rows, outcome

SMALL: dict[str, Any] = {
    **{"encoder": "conv", "image_size": 32, "base_channels": 8, "latent_dim": 24, "linear_path_size": 16},
    "identity_dim": 8,
}
IDENTITY = ("--identity-weight", "0.5", "--identity-dim", "4", "--latent-dim", "12", "--perceptual-weight", "0")


def noise(count: int, side: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def model(**options: Any) -> EarVAE:
    """In evaluation mode, after a few batches, so that its batch norms hold statistics of them."""
    torch.manual_seed(0)
    made = EarVAE(EarVAEConfig(**{**SMALL, **options}))
    images = noise(16, made.config.image_size, made.config.in_channels)
    if made.linear_path is not None or made.appearance is not None:
        made.fit_closed_form(made.closed_form_rows(images))
    made.train()
    for _ in range(20):
        made(images)
    return made.eval()


# The latents


@torch.no_grad()
def test_the_identity_part_starts_as_pca_of_the_backbones_embedding() -> None:
    torch.manual_seed(0)
    vae = EarVAE(EarVAEConfig(**SMALL, appearance_dim=6)).eval()
    images = noise(40)
    vae.fit_closed_form(vae.closed_form_rows(images))
    embeddings = vae.encoder.embedding(images).double().numpy()
    wanted = PCA(8, svd_solver="full").fit_transform(embeddings)
    wanted /= np.sqrt(wanted.var(axis=0, ddof=1).mean())
    found = vae.encode(images)[:, vae.config.identity_part].double().numpy()
    assert np.allclose(np.abs(found), np.abs(wanted), atol=1e-3)  # a direction has no sign


@torch.no_grad()
def test_edgeface_sees_pictures_with_their_light() -> None:
    vae = EarVAE(EarVAEConfig(**{**SMALL, "encoder": "edgeface_xxs", "image_size": 64}, appearance_dim=6)).eval()
    images = noise(2, 64)
    for found, wanted in zip(vae.features(images), vae.encoder.backbone(images), strict=True):
        assert torch.equal(found, wanted)
    dark = vae.encoder.embedding(images * 0.5 - 0.3)
    assert not torch.allclose(dark, vae.encoder.embedding(images), atol=1e-3)


@pytest.mark.parametrize(("appearance", "linear"), [(0, 16), (6, 16), (6, 0)])
def test_the_identity_part_lies_between_shape_and_light(appearance: int, linear: int) -> None:
    vae = model(appearance_dim=appearance, linear_path_size=linear)
    images = noise(6)
    mu, logvar = vae.encode_posterior(images)
    assert mu.shape == logvar.shape == (6, 24)
    part = vae.config.identity_part
    assert (part.start, part.stop) == (16 - appearance, 24 - appearance)
    embedding = vae.encoder.backbone.embedding(vae.features(images))
    assert vae.encoder.identity is not None
    torch.testing.assert_close(mu[:, part], vae.encoder.identity(embedding), atol=1e-5, rtol=1e-5)
    found = vae.embed(images)
    torch.testing.assert_close(found, torch.nn.functional.normalize(mu[:, part], dim=1).detach())
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))


def test_an_embedding_is_the_same_alone_and_in_any_batch() -> None:
    vae, images = model(), noise(11)
    together = vae.identity(images)
    assert torch.equal(torch.cat([vae.identity(each[None]) for each in images]), together)
    assert torch.equal(vae.identity(images.flip(0)).flip(0), together)


def test_a_model_without_the_part_embeds_by_mu() -> None:
    vae = model(identity_dim=0)
    assert torch.equal(vae.embed(noise(3)), vae.encode(noise(3)).detach())
    with pytest.raises(ValueError, match="no identity part"):
        vae.identity(noise(3))


def test_the_decoder_uses_the_part() -> None:
    vae = model()
    for up in vae.decoder.ups:
        torch.nn.init.normal_(up.modulation.weight, std=0.1)  # training moves it from zero
    torch.nn.init.normal_(vae.decoder.to_pixels.weight, std=0.1)
    latents = vae.encode(noise(3)).detach()
    other = latents.clone()
    other[:, vae.config.identity_part] += 1.0
    assert (vae.decode(other) - vae.decode(latents)).abs().max() > 1e-3
    assert vae.linear_path is not None
    assert torch.equal(vae.linear_path.decode(other), vae.linear_path.decode(latents))


# The loss


def configured(**options: Any) -> EarVAETrainingConfig:
    return EarVAETrainingConfig(**{**SMALL, "identity_weight": 1.0, "encoder_weights": "none", **options})


def test_its_gradient_reaches_the_part_and_what_that_is_made_of_alone() -> None:
    vae = model().train()
    loss = IdentityLoss(configured(), ["a", "b", "c"])
    mu, _ = vae.encoder(noise(6))
    mu.retain_grad()
    loss(mu[:, vae.config.identity_part], torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    assert mu.grad is not None
    moved = mu.grad.abs().sum(dim=0) > 0
    assert moved.tolist() == [False] * 16 + [True] * 8
    with_gradient = {name.split(".")[1] for name, p in vae.named_parameters() if p.grad is not None and p.grad.any()}
    assert with_gradient == {"backbone", "identity"}  # of the encoder; none of its head, nor of the decoder
    assert loss.head.weight.grad is not None
    assert loss.head.weight.grad.any()


def test_it_is_the_smoothed_cross_entropy_of_scaled_cosines() -> None:
    """Without a margin; a slow loop."""
    torch.manual_seed(0)
    loss, mu, people = IdentityLoss(configured(), ["a", "b", "c"]), torch.randn(4, 8), torch.tensor([2, 0, 0, 1])
    total = 0.0
    for row, person in zip(mu, people.tolist(), strict=True):
        cosines = torch.stack([torch.cosine_similarity(row, center, dim=0) for center in loss.head.weight])
        logs = torch.log_softmax(32.0 * cosines, dim=0)
        target = torch.full((3,), 0.1 / 3)
        target[person] += 0.9
        total -= float((target * logs).sum().detach())
    assert float(loss(mu, people).detach()) == pytest.approx(total / 4, rel=1e-5)


def test_metrics_keep_the_people_of_two_files_apart(ear_set: Path) -> None:
    data = EarVAEDataModule(configured(**files(ear_set), image_size=64, progress="none"))
    (first,) = data.train_files
    (second,) = data.val_files
    latents = torch.randn(len(first) + len(second), 8, generator=torch.Generator().manual_seed(0))
    metrics = IdentityMetrics([first, second], 8, torch.device("cpu"))
    for rows in torch.randperm(len(latents)).split(7):
        metrics.add(latents[rows], rows)
    found = metrics.means(lambda values: values)
    for number, file, own in ((1, first, latents[: len(first)]), (2, second, latents[len(first) :])):
        wanted = identify(unit_rows(own.numpy()), file.subjects)
        assert found[f"identity_rank1_{number}"] == wanted.rank1
        assert found[f"identity_eer_{number}"] == wanted.eer
    assert found["identity_eer"] == pytest.approx((found["identity_eer_1"] + found["identity_eer_2"]) / 2)


def files(folder: Path) -> dict[str, tuple[str]]:
    return {f"{side}_npy": (str(folder / f"{side}_teacher.npy"),) for side in ("train", "val")}


def test_people_of_two_files_with_equal_names_have_numbers_of_their_own(ear_set: Path, tmp_path: Path) -> None:
    data = read_teacher_npy(ear_set / "train_teacher.npy")
    assert data.image_paths
    subjects = [f"00{row % 3}" for row in range(len(data))]
    paths = tuple(str(tmp_path / f"{name}.npy") for name in "ab")
    for path, rows in zip(paths, (slice(20), slice(20, None)), strict=True):
        write_teacher_npy(path, image_paths=data.image_paths[rows], subjects=subjects[rows], collection=path)
    module = EarVAEDataModule(
        configured(train_npy=paths, val_npy=files(ear_set)["val_npy"], image_size=64, progress="none", augment="none")
    )
    module.setup()
    assert module.classes == [f"{file}/00{number}" for file in range(2) for number in range(3)]
    numbers = [module.train_set[0, row]["subject"] for row in range(40)]
    wanted = [module.classes.index(f"{int(row >= 20)}/{subjects[row]}") for row in range(40)]
    assert numbers == wanted
    assert min(module.val_set[0, row]["subject"] for row in range(10)) >= len(module.classes)


# Training


@pytest.mark.slow
@pytest.mark.runs
def test_training_raises_the_rank_1_of_other_people(tiny: list[str], tmp_path: Path) -> None:
    """Of the part itself, from chance of random weights on."""
    options = ("--epochs", "12", "--identity-dim", "8", "--latent-dim", "24", "--identity-margin", "0")
    still = ("--perceptual-weight", "0", "--cache-dir", str(tmp_path / "cache"), "--kl-weight", "0", "--lr", "3e-3")
    assert train([*tiny, *options, *still, "--identity-weight", "1", "--base-channels", "8"]) == 0
    rows = [row for row in metric_rows(tmp_path) if "val/identity_eer" in row]
    losses = [row["train/identity"] for row in metric_rows(tmp_path) if "train/identity" in row]
    assert len(rows) == 12
    assert losses[-1] < 0.6 * losses[0]
    assert max(row["val/identity_rank1"] for row in rows[-4:]) > rows[0]["val/identity_rank1"]


@pytest.mark.runs
def test_an_interrupted_run_ends_with_the_same_bits(tiny: list[str], tmp_path: Path) -> None:
    plan = ("--epochs", "3", "--augment", "light", "--identity-margin-epochs", "2", "--identity-head", "adaface")
    shared = (*plan, *IDENTITY, "--ema-decay", "0.9", "--accumulate-grad-batches", "2")

    def run(name: str, *extra: str) -> int:
        places = ("--checkpoint-dir", str(tmp_path / name / "checkpoints"), "--log-dir", str(tmp_path / name / "logs"))
        return train([*tiny, *shared, *places, *extra])

    assert run("whole") == 0
    assert run("parts", "--stop-after-epoch", "1") == EXIT_PAUSED
    assert run("parts") == 0
    for one, other in zip(outcome(tmp_path / "whole"), outcome(tmp_path / "parts"), strict=True):
        assert_same(one, other)
    checkpoint = read_checkpoint(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    assert checkpoint["state_dict"]["identity_loss.head.weight"].shape == (8, 4)
    assert len(checkpoint["classes"]) == 8


@pytest.fixture(scope="module")
def trained(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs with all three parts of latents."""
    from tests.ear_teacher.test_training import arguments

    folder = tmp_path_factory.mktemp("trained")
    options = (*IDENTITY, "--latent-dim", "20", "--appearance-dim", "6", "--epochs", "2")
    assert train(arguments(ear_set, folder, *options)) == 0
    return folder


@pytest.mark.slow
@pytest.mark.runs
def test_tools_take_a_model_that_has_the_part(trained: Path, tmp_path: Path, capsys: Any) -> None:
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    assert main(["ears", "evaluate", "--checkpoint", checkpoint, "--out", str(tmp_path / "evaluation")]) == 0
    assert "VAE's identity part" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    last = [row for row in metric_rows(trained) if "val/identity_eer" in row][-1]
    vae = EarVAE.load(checkpoint)
    for name in ("rank1", "eer"):
        assert metrics[f"identity_{name}"] == pytest.approx(last[f"val/identity_{name}"], abs=1e-6)
    out = tmp_path / "eigenears"
    assert main(["ears", "eigenears", "--checkpoint", checkpoint, "--components", "3", "--out", str(out)]) == 0
    assert main(["ears", "sample", "--checkpoint", checkpoint, "--num", "4", "--out", str(tmp_path / "new")]) == 0
    exported = tmp_path / "exported"
    assert main(["export", "ears", "--checkpoint", checkpoint, "--out", str(exported)]) == 0
    about = {entry.key: entry.value for entry in onnx.load(exported / "encoder.onnx").metadata_props}
    assert about["identity_dim"] == "4"
    images = noise(3, 64)
    session = onnxruntime.InferenceSession(exported / "encoder.onnx")
    mu, _ = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(mu, vae.encode(images).detach().numpy(), atol=1e-4)
    again = EarVAE.from_pretrained(exported)
    assert torch.equal(again.embed(images), vae.embed(images))
    assert vae.interpolate(images[:1], images[1:2], 3).shape == (1, 3, 3, 64, 64)


@pytest.mark.runs
def test_what_cannot_be_trained_so_is_one_line(tiny: list[str], ear_set: Path, tmp_path: Path, capsys: Any) -> None:
    data = read_teacher_npy(ear_set / "train_teacher.npy")
    assert data.image_paths
    paths = data.image_paths[:8]
    for name, subjects in (("nobody", None), ("once", [*"abcdefgh"]), ("one", ["a"] * 8)):
        write_teacher_npy(tmp_path / f"{name}.npy", image_paths=paths, subjects=subjects)
    for options, reason in (
        (("--train-npy", f"{tmp_path}/nobody.npy"), "names no subjects, which --identity-weight needs"),
        (("--train-npy", f"{tmp_path}/once.npy"), "needs two people, one of them with two ears"),
        (("--train-npy", f"{tmp_path}/one.npy"), "needs two people, one of them with two ears"),
        (("--val-npy", f"{tmp_path}/once.npy"), "needs two people, one of them with two ears"),
        (("--identity-dim", "11"), "--identity-dim 11: must leave at least 2 of 12 latents"),
    ):
        assert train([*tiny, *IDENTITY, *options]) == 2
        assert reason in only_line(capsys)


@pytest.mark.runs
def test_a_run_with_another_part_is_not_continued_or_begun_from(
    trained: Path, tiny: list[str], tmp_path: Path, capsys: Any
) -> None:
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    shape = ("--latent-dim", "20", "--appearance-dim", "6", "--init-from", checkpoint, "--perceptual-weight", "0")
    capsys.readouterr()
    for options in ((), ("--identity-weight", "1", "--identity-dim", "5")):
        assert train([*tiny, *shape, *options]) == 2
        assert "it was made with identity_dim 4" in only_line(capsys)
