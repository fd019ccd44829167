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
from earface.data.tables import read_csv
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


def test_a_folder_that_holds_anything_is_not_written_into(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("")
    assert sample(folder, tmp_path / "a") == 2
    assert "is not empty" in only_line(capsys)
