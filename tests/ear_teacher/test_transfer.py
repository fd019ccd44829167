"""Pretrained backbones in training: what is frozen stays, what is loaded is used, what it costs is not paid twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from ear_teacher.backbones import DINOV2_VARIANTS, DINOv2Backbone
from ear_teacher.config import ALIASES, PRESETS, EarVAETrainingConfig
from ear_teacher.model import EarVAE
from ear_teacher.module import EarVAELightning
from ear_teacher.sam import WindowBlock
from ear_teacher.train import main
from earface.core.command_line import parse_options
from earface.core.errors import InputError
from earface.nn.checkpoint import model_state, read_checkpoint
from earface.nn.perceptual import PerceptualLoss
from earface.training.trainer import group_table
from tests.conftest import only_line
from tests.ear_teacher.test_training import arguments
from tests.support.training import metric_rows, watch_first_step

pytestmark = pytest.mark.runs

DIM, MLP = {"dinov2": 384, "sam": 768}, 4


@pytest.fixture(scope="module")
def dinov2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINOv2 ViT-S/14 at random weights, in the layout that Meta publishes."""
    torch.manual_seed(0)
    model = timm.create_model(DINOV2_VARIANTS["vits14"].partition(".")[0], num_classes=0, init_values=0.1)
    path = tmp_path_factory.mktemp("weights") / "dinov2_vits14_pretrain.pth"
    torch.save({**model.state_dict(), "mask_token": torch.zeros(1, 384)}, path)
    return path


def preset(encoder: str, *extra: str) -> EarVAETrainingConfig:
    flags = ["--encoder", encoder, "--encoder-weights", "none", "--perceptual-weight", "0", *extra]
    return parse_options(
        EarVAETrainingConfig, flags, prog="train", aliases=ALIASES, preset_field="encoder", presets=PRESETS
    )


def block_parameters(dim: int) -> int:
    """Attention, MLP of width 4, two norms."""
    return 4 * dim * dim + 4 * dim + 2 * MLP * dim * dim + (MLP + 1) * dim + 4 * dim


FROZEN = {
    # blocks with layer scale, patch embedding, 37x37 positions and the class token's, class token
    "dinov2": 8 * (block_parameters(384) + 2 * 384) + (14 * 14 * 3 + 1) * 384 + (37 * 37 + 1) * 384 + 384,
    # four windowed blocks with tables of 27 rows, blocks 3 and 6 with 127, patch embedding, 64x64 positions
    "sam": 6 * block_parameters(768) + 64 * 2 * (4 * 27 + 2 * 127) + (16 * 16 * 3 + 1) * 768 + 64 * 64 * 768,
}


@pytest.mark.parametrize("encoder", ["dinov2", "sam"])
def test_the_preset_freezes_what_the_design_names(encoder: str) -> None:
    module = EarVAELightning(preset(encoder, "--base-channels", "4", "--latent-dim", "4"))
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    assert frozen == FROZEN[encoder]
    assert {"dinov2": 15.0, "sam": 46.3}[encoder] == round(frozen / 1e6, 1)
    rates = {group["name"].removesuffix(".no_decay"): group["lr"] for group in module.parameter_groups()}
    assert rates == {"backbone": pytest.approx(3e-5), "encoder": 3e-4, "decoder": 3e-4}


def test_the_table_adds_up() -> None:
    module = EarVAELightning(preset("timm:test_vit", "--freeze-layers", "2", "--layer-decay", "0.5"))
    console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(group_table(module))
    rows = [line.split() for line in console.export_text().splitlines() if line.strip()][1:]
    cells = {row[0]: (float(row[1]), 0.0 if row[0] == "frozen" else float(row[3])) for row in rows}
    total, trainable = cells.pop("total")
    assert cells.keys() == {"backbone.2", "backbone.3", "backbone.4", "backbone.5", "encoder", "decoder", "frozen"}
    assert sum(count for count, _ in cells.values()) == pytest.approx(total, abs=0.05)
    assert sum(count for count, _ in cells.values()) - cells["frozen"][0] == pytest.approx(trainable, abs=0.05)


@pytest.fixture(scope="module")
def trained(ear_set: Path, dinov2_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epoch by the dinov2 recipe at 32 px, with the moving average of the weights."""
    folder = tmp_path_factory.mktemp("dinov2")
    recipe = ("--encoder", "dinov2", "--image-size", "32", "--encoder-weights", str(dinov2_file), "--epochs", "1")
    average = ("--ema-decay", "0.9", "--perceptual-weight", "0")
    assert main(arguments(ear_set, folder, *recipe, *average, "--warmup-epochs", "0.2")) == 0
    return folder


@pytest.mark.parametrize("weights", ["raw", "averaged"])
def test_training_leaves_frozen_blocks_as_in_the_file_and_moves_the_others(
    trained: Path, dinov2_file: Path, weights: str
) -> None:
    state = model_state(read_checkpoint(trained / "checkpoints" / "last.ckpt"), weights)
    official: dict[str, Tensor] = torch.load(dinov2_file, weights_only=True)
    prefix = "model.encoder.backbone.net."
    for name, value in official.items():
        if name == "mask_token":
            continue
        frozen = not name.startswith(("norm", *(f"blocks.{index}." for index in range(8, 12))))
        assert torch.equal(state[prefix + name], value) == frozen, name


def test_rates_are_logged_by_group(trained: Path) -> None:
    logged = [row for row in metric_rows(trained) if "lr/backbone" in row]
    assert logged
    for row in logged:
        assert row["lr/backbone"] == pytest.approx(0.1 * row["lr/decoder"], rel=1e-5)
        assert row["lr/encoder"] == row["lr/decoder"]


def test_a_trained_model_is_rebuilt_from_its_checkpoint_alone(trained: Path) -> None:
    model = EarVAE.load_from_checkpoint(str(trained / "checkpoints" / "last.ckpt"))
    assert model.config.encoder == "dinov2"
    assert torch.isfinite(model.encode(torch.zeros(1, 3, 32, 32))).all()


def test_sam_trains_with_checkpointed_blocks_in_grey(
    ear_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that learn are computed again for the backward pass, frozen ones are not and stay."""
    step, calls, forward = watch_first_step(monkeypatch), Counter[int](), WindowBlock.forward

    def counted(block: WindowBlock, x: Tensor) -> Tensor:
        calls[id(block)] += step.module is not None and step.module.training
        return forward(block, x)

    monkeypatch.setattr(WindowBlock, "forward", counted)
    given = ("--encoder-weights", "none", "--perceptual-weight", "0", "--fast-dev-run", "--image-size", "32")
    options = ("--encoder", "sam", "--freeze-layers", "6", "--in-channels", "1", "--gradient-checkpointing")
    assert main(arguments(ear_set, tmp_path, *given, *options, "--sam-size", "64", "--linear-path-size", "8")) == 0
    blocks = step.module.model.encoder.backbone.net.blocks
    assert [calls[id(block)] for block in blocks] == [1] * 6 + [2] * 6
    learning = {name.split(".")[5] for name in step.reached if ".net.blocks." in name}
    assert learning == {str(index) for index in range(6, 12)}
    assert "model.encoder.head.mu.weight" in step.changed()
    assert step.module.model.eval().reconstruct(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("encoder", ["dinov2", "sam"])
def test_frozen_blocks_store_nothing_for_the_backward_pass(encoder: str) -> None:
    model = EarVAE(encoder=encoder, image_size=32, latent_dim=4, base_channels=4, linear_path_size=0).train()
    model.encoder.freeze(8)
    recorded: list[bool] = []
    backbone: Any = model.encoder.backbone
    for block in backbone.net.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: recorded.append(output.requires_grad))
    model.features(torch.zeros(2, 3, 32, 32))
    assert recorded == [False] * 8 + [True] * 4


@pytest.mark.parametrize(("size", "sees"), [(0, 126), (140, 140), (28, 28)])
def test_dinov2_sees_whole_patches(size: int, sees: int) -> None:
    model = EarVAE(encoder="dinov2", dinov2_size=size, latent_dim=4, base_channels=4)
    seen: list[tuple[int, ...]] = []
    backbone: Any = model.encoder.backbone
    backbone.net.patch_embed.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
    maps = model.eval().features(torch.zeros(1, 3, 128, 128))
    assert seen == [(1, 3, sees, sees)]
    assert {tuple(found.shape) for found in maps} == {(1, 384, sees // 14, sees // 14)}


@pytest.mark.parametrize("variant", ["vits14_reg", "vitb14"])
def test_every_variant_of_dinov2_is_built(variant: str) -> None:
    backbone = DINOv2Backbone(variant, 3, 28, "none").eval()
    maps = backbone(torch.zeros(1, 3, 28, 28))
    assert [found.shape for found in maps] == [(1, 768 if "vitb" in variant else 384, 2, 2)] * 4


def test_a_checkpoint_carries_the_normalisation_of_its_weights(tmp_path: Path) -> None:
    """EdgeFace was trained on (x - .5) / .5, timm's EdgeNeXt was not."""
    state = timm.create_model("edgenext_xx_small", num_classes=0).state_dict()
    save_file({f"model.{key}": value for key, value in state.items()}, tmp_path / "edgeface.safetensors")
    shape: dict[str, Any] = {"encoder": "timm:edgenext_xx_small", "image_size": 64, "latent_dim": 4}
    started = EarVAE(**shape, base_channels=4, encoder_weights=str(tmp_path / "edgeface.safetensors")).eval()
    rebuilt = EarVAE(**shape, base_channels=4).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    rebuilt.load_state_dict(started.state_dict())
    assert torch.equal(rebuilt.features(images)[-1], started.features(images)[-1])
    backbone: Any = rebuilt.encoder.backbone
    torch.testing.assert_close(backbone.normalise(images), images)


def test_the_perceptual_dinov2_comes_from_metas_file(dinov2_file: Path) -> None:
    loss = PerceptualLoss("dinov2", dinov2_file)
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    maps = loss.features(images)
    assert [tuple(found.shape) for found in maps] == [(1, 384, 5, 5)] * 3  # 64 is resampled to 70
    target = torch.rand(1, 3, 64, 64, requires_grad=True)
    loss(images, target).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert target.grad is None


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (("--encoder", "dinov2", "--dinov2-size", "128"), "--dinov2-size 128: must be a multiple of 14"),
        (("--encoder", "sam", "--sam-size", "100"), "--sam-size 100: must be a multiple of 16"),
        (
            ("--encoder", "conv", "--gradient-checkpointing"),
            "--gradient-checkpointing: this encoder has no transformer",
        ),
        (
            ("--encoder", "timm:vit_small_patch14_dinov2", "--encoder-weights", "none"),
            "--image-size 64: vit_small_patch14_dinov2 takes multiples of its patch, 14",
        ),
        (("--encoder", "sam", "--freeze-layers", "13"), "--freeze-layers 13: this encoder has 12 layer groups"),
    ],
)
def test_what_an_encoder_cannot_take_is_one_line(
    ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...], reason: str
) -> None:
    given = ("--encoder-weights", "none", "--perceptual-weight", "0")
    assert main(arguments(ear_set, tmp_path, *given, *extra)) == 2
    assert reason in only_line(capsys)


@pytest.mark.parametrize("damage", ["truncated", "hostile"])
def test_a_damaged_weights_file_is_one_line(
    ear_set: Path, tmp_path: Path, dinov2_file: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "weights.pth"
    if damage == "truncated":
        path.write_bytes(dinov2_file.read_bytes()[:100_000])
    else:
        torch.save({"patch_embed.proj.weight": Path("/")}, path)
    assert main(arguments(ear_set, tmp_path, "--encoder", "dinov2", "--encoder-weights", str(path))) == 2
    assert f"{path}: not a weights file that loads without running code" in only_line(capsys)


def test_freezing_random_layers_gives_a_note(ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--freeze-layers", "1", "--fast-dev-run")
    assert main(arguments(ear_set, tmp_path, *given)) == 0
    assert "--freeze-layers 1 keeps random weights as they are" in capsys.readouterr().out


def test_sizes_out_of_range_are_refused_in_python_too() -> None:
    with pytest.raises(InputError, match="`dinov2_size` 1036"):
        EarVAE(encoder="dinov2", dinov2_size=1036)
