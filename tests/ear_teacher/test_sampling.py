"""New ears: as many as asked for, the same for a seed, distributed as they should be."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ear_teacher.config import EarVAEConfig
from ear_teacher.model import EarVAE
from ear_teacher.posterior import AggregatePosterior
from ear_teacher.sampling import distance_to_prior, draw_latents
from earface.commands import main
from earface.data.coco import read_coco
from earface.data.ear_contract import EarAligner, EarContract
from earface.data.ear_networks import EarLandmarker
from earface.data.images import read_image
from earface.data.tables import read_csv
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_factors import EarShape, EarView
from earface.synthetic.ear_rendering import draw_ear
from tests.conftest import only_line

CONFIG = EarVAEConfig(encoder="conv", image_size=32, base_channels=4, latent_dim=4, linear_path_size=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported VAE whose latents are far from N(0, 1)."""
    torch.manual_seed(0)
    vae = EarVAE(CONFIG).eval()
    vae.fit_closed_form(torch.rand(30, 3 * 8 * 8) * 2 - 1)
    vae.posterior = AggregatePosterior(torch.tensor([3.0, 0, 0, 0]), 0.1 * torch.eye(4))
    vae.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def sample(folder: Path, out: Path, *more: str) -> int:
    return main(["ears", "sample", "--checkpoint", str(folder), "--out", str(out), *more])


def test_the_index_names_every_picture_and_a_seed_names_them_all(folder: Path, tmp_path: Path) -> None:
    """Whatever the batch size."""
    for name, more in (("a", ("--batch-size", "7")), ("b", ("--batch-size", "3")), ("c", ("--seed", "1"))):
        assert sample(folder, tmp_path / name, "--num", "10", *more) == 0
    rows = read_csv(tmp_path / "a" / "index.csv")
    assert len(rows) == len({row["subject"] for row in rows}) == 10
    pictures = {
        name: np.stack([cv2.imread(str(tmp_path / name / row["file"])) for row in rows]) for name in ("a", "b", "c")
    }
    assert pictures["a"].shape == (10, 32, 32, 3)
    assert np.abs(pictures["a"].astype(int) - pictures["b"]).max() <= 1  # a rounding
    assert np.abs(pictures["a"].astype(int) - pictures["c"]).max() > 5
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "index.csv",
        "grid.png",
        *(row["file"] for row in rows),
    }


def test_latents_are_drawn_from_the_fitted_gaussian(folder: Path) -> None:
    vae = EarVAE.from_pretrained(folder)
    latents = draw_latents(vae, 20_000, "posterior", torch.Generator().manual_seed(0))
    torch.testing.assert_close(latents.mean(dim=0), torch.tensor([3.0, 0, 0, 0]), atol=0.01, rtol=0)
    torch.testing.assert_close(latents.T.cov(), 0.01 * torch.eye(4), atol=1e-3, rtol=0)


def test_the_distance_to_the_prior_is_torchs_own(folder: Path) -> None:
    vae = EarVAE.from_pretrained(folder)
    assert vae.posterior is not None
    found = torch.distributions.MultivariateNormal(vae.posterior.mean, scale_tril=vae.posterior.factor)
    prior = torch.distributions.MultivariateNormal(torch.zeros(4), torch.eye(4))
    assert distance_to_prior(vae) == pytest.approx(float(torch.distributions.kl_divergence(found, prior)) / 4, rel=1e-5)


def test_a_prior_that_was_never_enforced_is_a_warning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(folder, tmp_path / "a", "--source", "prior", "--num", "2") == 0
    assert "never enforced: use --source posterior" in capsys.readouterr().err
    assert sample(folder, tmp_path / "b", "--num", "2") == 0
    assert "never enforced" not in capsys.readouterr().err


def test_a_model_that_was_never_validated_has_the_prior_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EarVAE(CONFIG).eval().save_pretrained(tmp_path / "vae")
    assert sample(tmp_path / "vae", tmp_path / "a", "--num", "2") == 2
    assert "has no aggregate posterior" in only_line(capsys)
    assert not (tmp_path / "a").exists()
    assert sample(tmp_path / "vae", tmp_path / "a", "--num", "2", "--source", "prior") == 0


@pytest.fixture(scope="module")
def ears_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported VAE in closed form, whose samples are synthetic ears in canonical form, widened."""
    rng = np.random.default_rng(0)
    shapes = [EarShape(lobe_length=low, helix_width=wide) for low, wide in rng.uniform(0, 1, (40, 2))]
    ears = [draw_ear(shape, EarView(side="r", scale=0.86), 128).image[:, 24:104] for shape in shapes]
    squares = np.stack([cv2.resize(ear, (64, 64), interpolation=cv2.INTER_AREA) for ear in ears])
    config = EarVAEConfig(
        encoder="conv",
        image_size=64,
        base_channels=4,
        latent_dim=4,
        linear_path_size=64,
        contract=EarContract.canonical(EarLandmarker()).id,
    )
    vae = EarVAE(config).eval()
    vae.fit_closed_form(torch.from_numpy(squares).permute(0, 3, 1, 2).flatten(1).float() / 127.5 - 1)
    vae.posterior = AggregatePosterior(torch.zeros(4), torch.eye(4))
    folder = tmp_path_factory.mktemp("ears") / "vae"
    vae.save_pretrained(folder)
    return folder


def test_landmarks_are_those_that_the_landmarker_places_on_the_written_pictures(
    ears_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(ears_folder, tmp_path / "a", "--num", "6", "--landmarks") == 0
    printed = capsys.readouterr().out
    found = read_coco(tmp_path / "a" / "landmarks.json")
    kept = len(found.photographs)
    assert kept >= 4
    assert f"17 landmarks of {kept} ears" in printed
    assert f"{6 - kept} ears left out" in printed
    assert found.landmark_names == EAR_LANDMARKS
    aligner = EarAligner("canonical", EarLandmarker())
    for photograph in found.photographs:
        picture = read_image(photograph.path)
        assert picture.shape == (64, 40, 3)  # a frame of 5:8
        ear = aligner.locate(picture)
        assert ear.landmarks is not None
        np.testing.assert_allclose(photograph.keypoints[0, :, :2], ear.landmarks.points, atol=1e-3)
        np.testing.assert_array_equal(photograph.keypoints[0, :, 2] == 2, ear.landmarks.visibility >= 0.5)
        assert photograph.sides == ("r",)
        assert not photograph.has_boxes
    assert len({photograph.subject for photograph in found.photographs}) == kept
    assert sample(ears_folder, tmp_path / "a", "--num", "6", "--overwrite") == 0
    assert not (tmp_path / "a" / "landmarks.json").exists()  # of other pictures


def test_ears_whose_landmarks_are_not_sure_are_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here all: the pictures are noise."""
    assert sample(folder, tmp_path / "a", "--num", "3", "--landmarks") == 2
    assert "in none of 3 pictures the landmarks form an ear" in only_line(capsys).replace("\n", " ")
    assert not (tmp_path / "a" / "landmarks.json").exists()


def test_a_landmarker_without_landmarks_is_a_mistake(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(folder, tmp_path / "a", "--landmarker", "mine.onnx") == 2
    assert "belongs to --landmarks" in only_line(capsys)


def test_a_folder_that_holds_anything_is_not_written_into(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("")
    assert sample(folder, tmp_path / "a") == 2
    assert "is not empty" in only_line(capsys)
