"""Light apart from shape: the code is what it says, and the rest of the latents does not see it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from ear_teacher.appearance_code import CANONICAL_STD, AppearanceCode
from ear_teacher.config import EarVAEConfig, EarVAETrainingConfig
from ear_teacher.eigenears.appearance import appearance
from ear_teacher.model import EarVAE
from ear_teacher.module import EarVAELightning
from ear_teacher.train import main as train
from earface.commands import main
from earface.core.errors import InputError
from earface.data.pixels import to_model_range

SMALL = {"encoder": "conv", "image_size": 32, "base_channels": 8, "latent_dim": 20, "linear_path_size": 16}


def ears(count: int, channels: int = 3) -> Tensor:
    """Smooth pictures (N, C, 32, 32) within [-.5, .5], so that brighter ones are not clipped."""
    small = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(1)) - 0.5
    return torch.nn.functional.interpolate(small, (32, 32), mode="bicubic").clamp(-0.5, 0.5)


def relit(images: Tensor) -> Tensor:
    """With other gains, offsets and gradients in each channel."""
    places = torch.linspace(-1, 1, 33)[:-1] + 1 / 32
    plane = 0.1 * places[None, :] - 0.05 * places[:, None]
    gains = torch.linspace(0.6, 1.2, images.shape[1]).view(1, -1, 1, 1)
    return images * gains + torch.linspace(-0.2, 0.1, images.shape[1]).view(1, -1, 1, 1) + plane


def model(appearance_dim: int, channels: int = 3) -> EarVAE:
    torch.manual_seed(0)
    made = EarVAE(EarVAEConfig(**SMALL, appearance_dim=appearance_dim, in_channels=channels)).eval()
    made.fit_closed_form(made.closed_form_rows(ears(40, channels)))
    return made


@pytest.mark.parametrize(("size", "channels"), [(6, 3), (12, 3), (15, 3), (2, 1), (5, 1)])
def test_splitting_and_restoring_gives_the_picture_back(size: int, channels: int) -> None:
    code = AppearanceCode(size, channels, 32)
    images = ears(5, channels)
    code.fit(code.measure(ears(40, channels)))
    canonical, light = code.split(images)
    assert canonical.mean(dim=(2, 3)).abs().max() < 1e-6
    assert canonical.std(dim=(2, 3), correction=0).sub(CANONICAL_STD).abs().max() < 1e-5
    torch.testing.assert_close(code.restore(canonical, light), images, atol=1e-5, rtol=0)
    spread = code.split(ears(40, channels))[1]
    torch.testing.assert_close(spread.mean(dim=0), torch.zeros(size), atol=1e-4, rtol=0)
    torch.testing.assert_close(spread.std(dim=0), torch.ones(size), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [6, 12, 15])
def test_the_light_that_is_taken_out_is_the_least_squares_fit(size: int) -> None:
    """Beside numpy's lstsq."""
    code = AppearanceCode(size, 3, 32)
    image = relit(ears(1))
    places = (np.arange(32) + 0.5) / 16 - 1
    across, down = np.tile(places, 32), np.repeat(places, 32)
    columns = np.stack([np.ones(1024), across, down, np.exp(-2 * (across**2 + down**2))], axis=1)[:, : size // 3 - 1]
    pixels = image[0].flatten(1).T.numpy()
    rest = pixels - columns @ np.linalg.lstsq(columns, pixels, rcond=None)[0]
    canonical = code.split(image)[0][0].flatten(1).T.numpy()
    np.testing.assert_allclose(canonical, rest / rest.std(axis=0) * CANONICAL_STD, atol=1e-4)
    if size == 6:
        np.testing.assert_allclose(code.measure(image)[0, :3], pixels.mean(axis=0), atol=1e-6)


def test_a_flat_channel_is_not_noise_to_be_enlarged() -> None:
    code = AppearanceCode(6, 3, 32)
    flat = torch.full((1, 3, 32, 32), 0.25) + 1e-4 * torch.randn(1, 3, 32, 32)
    canonical, light = code.split(flat)
    assert canonical.abs().max() < 0.01
    torch.testing.assert_close(code.restore(canonical, light), flat, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [6, 12, 15])
def test_the_light_of_a_picture_is_in_the_code_alone(size: int) -> None:
    vae = model(size)
    images = ears(4)
    if size == 6:
        other = images * torch.tensor([0.8, 1.1, 0.9]).view(3, 1, 1) + torch.tensor([0.1, -0.1, 0.0]).view(3, 1, 1)
    else:
        other = relit(images)
    first, second = vae.encode(images), vae.encode(other)
    shape = vae.config.shape_dim
    assert shape == 20 - size
    torch.testing.assert_close(first[:, :shape], second[:, :shape], atol=1e-4, rtol=1e-3)
    assert (first[:, shape:] - second[:, shape:]).abs().max() > 0.1


def test_the_code_moves_the_light_of_the_decoded_picture() -> None:
    vae = model(6)
    latents = vae.encode(ears(3)).detach()
    brighter = latents.clone()
    brighter[:, vae.config.shape_dim : vae.config.shape_dim + 3] += 1.0
    looks = [
        appearance(((vae.decode(each) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
        for each in (latents, brighter)
    ]
    moved = looks[1].colour - looks[0].colour
    assert vae.appearance is not None
    np.testing.assert_allclose(moved, np.tile(vae.appearance.std[:3].numpy() / 2, (3, 1)), atol=0.01)


def test_it_is_saved_and_loaded_with_the_model(tmp_path: Path) -> None:
    vae = model(12)
    vae.save_pretrained(tmp_path)
    again = EarVAE.from_pretrained(tmp_path).eval()
    assert again.config.appearance_dim == 12
    assert torch.equal(again.encode(ears(3)), vae.encode(ears(3)))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"appearance_dim": 6, "in_channels": 1}, "of grey pictures must be 2, 4, 5 or 0"),
        ({"appearance_dim": 5}, "of RGB pictures must be 6, 12, 15 or 0"),
        ({"appearance_dim": 12, "latent_dim": 13}, "leave at least 2 of `latent_dim` 13"),
    ],
)
def test_a_code_of_no_use_is_refused(options: dict[str, int], reason: str) -> None:
    with pytest.raises(InputError, match="`appearance_dim`") as caught:
        EarVAEConfig(**{**SMALL, **options}).check()
    assert reason in str(caught.value)


@pytest.mark.runs
def test_a_run_with_it_trains_is_evaluated_and_has_eigenears_of_one_light(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--epochs", "2", "--perceptual-weight", "0", "--cache-dir", str(tmp_path / "cache"))
    assert train([*tiny, *options, "--latent-dim", "14", "--appearance-dim", "6"]) == 0
    checkpoint = str(tmp_path / "checkpoints" / "last.ckpt")
    assert main(["ears", "evaluate", "--checkpoint", checkpoint, "--out", str(tmp_path / "evaluation")]) == 0
    out = tmp_path / "eigenears"
    assert main(["ears", "eigenears", "--checkpoint", checkpoint, "--components", "3", "--out", str(out)]) == 0
    loaded = EarVAE.load(checkpoint)
    table = np.loadtxt(out / "scores.csv", delimiter=",", skiprows=1, usecols=-1)
    assert len(table) == 40
    assert loaded.config.shape_dim == 8
    assert train([*tiny, "--appearance-dim", "5", "--cache-dir", str(tmp_path / "cache")]) == 2
    assert "--appearance-dim 5" in capsys.readouterr().err


def test_a_float_batch_of_other_precision_keeps_the_code() -> None:
    vae = model(6)
    images = to_model_range(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = vae.encode(images)
    shape = vae.config.shape_dim
    torch.testing.assert_close(rounded[:, shape:], vae.encode(images)[:, shape:], atol=1e-5, rtol=1e-5)


@pytest.mark.runs
def test_a_degraded_input_is_reconstructed_in_the_light_of_its_target() -> None:
    """Of a picture and its darker copy a training step has the same loss: only the shape comes from the input."""
    config = EarVAETrainingConfig(
        **SMALL, appearance_dim=6, augment="light", denoise=True, perceptual_weight=0, contrastive_weight=0
    )
    torch.manual_seed(0)
    module = EarVAELightning(config, model(6)).train()
    module.trainer = SimpleNamespace(num_training_batches=1, current_epoch=0, global_step=0)  # type: ignore[assignment]
    images = ears(4)
    losses = []
    for source in (images, images * 0.7 - 0.1):
        torch.manual_seed(1)
        batch = {"image": images, "source": source, "subject": torch.full((4,), -1), "index": torch.arange(4)}
        losses.append(float(module.training_step(batch, 0).detach()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
