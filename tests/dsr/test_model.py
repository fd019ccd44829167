"""The super-resolver: its size, where it starts, what it takes, and reading it from checkpoints."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dsr import DSR, DSRConfig
from dsr.config import HR_SIZE, PRESETS
from dsr.hub import Provenance
from dsr.module import DSRLightning
from earface.core.errors import InputError
from earface.data.identity_split import identity_digests
from earface.data.pixels import interpolate
from earface.nn.checkpoint import read_checkpoint

SIZES = ["32", "24", "16", "14x16"]
TINY = DSRConfig(base_channels=8, residual_blocks=1, vlr_size="16")


def tiny(vlr_size: str = "16", seed: int = 0) -> DSR:
    torch.manual_seed(seed)
    return DSR(replace(TINY, vlr_size=vlr_size))


def faces(config: DSRConfig, count: int = 2) -> Tensor:
    shape = (count, 3, config.vlr.height, config.vlr.width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def multiply_adds(model: DSR) -> int:
    """Of one face, counted as it passes."""
    counts: list[int] = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        counts.append(output[0].numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1])

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(faces(model.config, 1))
    return sum(counts)


@pytest.mark.parametrize(("vlr_size", "millions"), [("32", "2.42"), ("24", "2.42"), ("16", "2.59"), ("14x16", "2.59")])
def test_the_default_has_the_guides_parameters_and_small_a_tenth_of_the_cost(vlr_size: str, millions: str) -> None:
    """2.6 M, of which the last layer's depend on how far it enlarges."""
    full, small = (DSR(DSRConfig(vlr_size=vlr_size, **shape)) for shape in ({}, PRESETS["small"]))
    assert f"{sum(p.numel() for p in full.parameters()) / 1e6:.2f}" == millions
    assert multiply_adds(small) <= multiply_adds(full) / 10


@pytest.mark.parametrize("vlr_size", SIZES)
def test_every_size_becomes_128(vlr_size: str) -> None:
    model = tiny(vlr_size)
    sr = model(faces(model.config))
    assert sr.shape == (2, 3, HR_SIZE, HR_SIZE)
    assert sr.dtype == torch.float32


@pytest.mark.parametrize(
    ("vlr_size", "grid"), [("32", 32), ("24", 32), ("16", 16), ("14x16", 16), ("8", 8), ("64", 64)]
)
def test_blocks_work_on_the_next_grid_that_doubles_to_128(vlr_size: str, grid: int) -> None:
    assert DSRConfig(vlr_size=vlr_size).grid == grid
    assert tiny(vlr_size).tail.shuffle.upscale_factor == HR_SIZE // grid


def correction(model: DSR, vlr: Tensor) -> Tensor:
    """What the network adds to bicubic interpolation."""
    with torch.no_grad():
        return model.train()(vlr) - interpolate(vlr, HR_SIZE)


@pytest.mark.parametrize("vlr_size", SIZES)
def test_at_the_start_nothing_repeats_with_the_period_of_the_grid(vlr_size: str) -> None:
    """ICNR: the pixels that one place of the grid becomes are equal, so no picture gets a checkerboard."""
    model = tiny(vlr_size)
    cell = HR_SIZE // model.config.grid
    added = correction(model, faces(model.config))
    cells = added.unfold(2, cell, cell).unfold(3, cell, cell)
    torch.testing.assert_close(cells, cells[..., :1, :1].expand_as(cells), atol=1e-6, rtol=0)
    assert cells[..., 0, 0].std() > 1e-4


@pytest.mark.parametrize("vlr_size", SIZES)
def test_at_the_start_a_constant_picture_stays_constant(vlr_size: str) -> None:
    """Inside, where the three layers see no padding."""
    model = tiny(vlr_size)
    edge = 3 * HR_SIZE // model.config.grid
    with torch.no_grad():
        sr = model(torch.full_like(faces(model.config), 0.4))
    inside = sr[:, :, edge:-edge, edge:-edge]
    assert inside.amax(dim=(2, 3)) - inside.amin(dim=(2, 3)) == pytest.approx(np.zeros((2, 3)), abs=1e-6)


@pytest.mark.parametrize("shape", [{}, PRESETS["small"]], ids=["full", "small"])
def test_it_starts_at_bicubic_interpolation_nearly(shape: dict[str, int]) -> None:
    """Within some levels of 255, whatever the depth, yet not at zero, where nothing below the tail would learn."""
    torch.manual_seed(0)
    model = DSR(DSRConfig(vlr_size="16", **shape))
    size = correction(model, faces(model.config)).abs().mean() * 127.5
    assert 0.1 < size < 10


@pytest.mark.parametrize("vlr_size", SIZES)
def test_the_interpolation_is_opencvs_cubic(vlr_size: str) -> None:
    vlr = faces(DSRConfig(vlr_size=vlr_size), 1)
    theirs = cv2.resize(vlr[0].permute(1, 2, 0).numpy(), (128, 128), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(interpolate(vlr, 128)[0].permute(1, 2, 0).numpy(), theirs, atol=1e-5)
    assert interpolate(vlr.bfloat16(), 128).dtype == torch.float32


def test_what_overshoots_is_clipped_in_evaluation_and_keeps_its_gradient_in_training() -> None:
    model = tiny()
    with torch.no_grad():
        model.tail.conv.bias.fill_(1.5)
    vlr = faces(TINY)
    raw = model(vlr)
    assert raw.max() > 1.5
    raw.sum().backward()
    assert model.tail.conv.bias.grad.min() > 0  # of every channel
    with torch.no_grad():
        assert torch.equal(model.eval()(vlr), raw.clamp(-1, 1))


def test_a_block_adds_its_rectified_convolution() -> None:
    block = tiny().body[0]
    x = torch.randn(1, 8, 5, 5)
    convolved = nn.functional.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    torch.testing.assert_close(block(x), x + torch.where(convolved > 0, convolved, 0.1 * convolved))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(1, 3, 32, 32),
        torch.zeros(1, 3, 16, 14),
        torch.zeros(1, 1, 16, 16),
        torch.zeros(3, 16, 16),
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
    ],
    ids=lambda wrong: f"{wrong.dtype} {tuple(wrong.shape)}",
)
def test_faces_of_another_shape_are_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 16, 16\) in \[-1, 1\] wanted"):
        tiny()(wrong)


def test_14x16_is_width_by_height() -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 16, 14\)"):
        tiny("14x16")(torch.zeros(1, 3, 14, 16))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"vlr_size": "70"}, "`vlr_size`: VLR size '70' is out of range"),
        ({"vlr_size": "tiny"}, "`vlr_size`: VLR size 'tiny'"),
        ({"base_channels": 4}, "`base_channels` 4: must be at least 8"),
        ({"residual_blocks": 0}, "`residual_blocks` 0: must be at least 1"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(shape: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DSR(DSRConfig(**shape))  # type: ignore[arg-type]


# Checkpoints


def test_a_checkpoint_tells_whom_the_model_was_trained_on_and_how(finished: Path, face_set: Path) -> None:
    model = DSR.load_from_checkpoint(finished / "checkpoints" / "last.ckpt")
    people = identity_digests(path.name[:3] for path in (face_set / "train_processed").rglob("*.png"))
    assert model.provenance == Provenance(tuple(people), "bicubic")


def test_a_checkpoint_gives_the_averaged_or_the_raw_weights(finished: Path) -> None:
    path = finished / "checkpoints" / "last.ckpt"
    stored = read_checkpoint(path)
    for weights, key in (("averaged", "state_dict"), ("raw", "current_model_state")):
        model = DSR.load_from_checkpoint(path, weights=weights)
        assert model.config == TINY
        assert not model.training
        for name, value in model.state_dict().items():
            assert torch.equal(value, stored[key][f"model.{name}"])
    name = "model.tail.conv.weight"
    assert not torch.equal(stored["state_dict"][name], stored["current_model_state"][name])


def test_a_pattern_gives_its_newest_match(finished: Path, tmp_path: Path) -> None:
    for name, age in (("a.ckpt", 100), ("b.ckpt", 50), ("c.ckpt", 200)):
        shutil.copy(finished / "checkpoints" / "last.ckpt", tmp_path / name)
        os.utime(tmp_path / name, (2_000_000_000 - age, 2_000_000_000 - age))
    newest = read_checkpoint(tmp_path / "b.ckpt")
    newest["state_dict"]["model.head.bias"].fill_(7.0)
    torch.save(newest, tmp_path / "b.ckpt")
    os.utime(tmp_path / "b.ckpt", (2_000_000_000, 2_000_000_000))
    model = DSR.load_from_checkpoint(str(tmp_path / "*.ckpt"))
    assert (model.head.bias == 7).all()
    with pytest.raises(InputError, match="no such checkpoint"):
        DSR.load_from_checkpoint(str(tmp_path / "*.pt"))


def test_a_checkpoint_of_something_else_is_refused(finished: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(finished / "checkpoints" / "last.ckpt")
    stored = checkpoint["hyper_parameters"]
    stored["kind"] = "earface.EarVAE"
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt: this checkpoint holds no DSR"):
        DSR.load_from_checkpoint(tmp_path / "other.ckpt")
    checkpoint["hyper_parameters"] |= {"kind": "earface.DSR", "model": stored["model"] | {"attention": True}}
    torch.save(checkpoint, tmp_path / "newer.ckpt")
    with pytest.raises(InputError, match="holds no DSR"):
        DSR.load_from_checkpoint(tmp_path / "newer.ckpt")


@pytest.mark.parametrize(
    ("shape", "message"), [({"base_channels": 16}, "base_channels 8"), ({"residual_blocks": 2}, "residual_blocks 1")]
)
def test_weights_of_another_shape_are_refused_by_name(finished: Path, shape: dict[str, int], message: str) -> None:
    path = finished / "checkpoints" / "last.ckpt"
    model = DSR(replace(TINY, **shape))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=rf"last\.ckpt: .* fit this model; it was made with {message}$"):
        model.load_weights(read_checkpoint(path), path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_without_one_of_its_weights_is_refused(finished: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(finished / "checkpoints" / "last.ckpt")
    del checkpoint["state_dict"]["model.head.bias"]
    torch.save(checkpoint, tmp_path / "part.ckpt")
    with pytest.raises(InputError, match="fit this model"):
        DSR.load_from_checkpoint(tmp_path / "part.ckpt")


def test_a_module_is_not_rebuilt_from_a_checkpoint_alone(finished: Path) -> None:
    path = finished / "checkpoints" / "last.ckpt"
    with pytest.raises(InputError, match=r"last\.ckpt: DSRLightning also needs .*; DSR\.load_from_checkpoint gives"):
        DSRLightning.load_from_checkpoint(path)
