"""Real runs of the trainer: what the guide asks for, what it writes, exact resume, and what it refuses."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from dsr import DSR
from dsr.config import ALIASES, PRESETS, DSRTrainingConfig
from dsr.train_dsr import main
from earface.core.command_line import parse_options
from earface.core.stopping import EXIT_PAUSED
from earface.data.identity_split import identity_digests
from earface.data.image_grid import SCALE_HEIGHT
from earface.nn.checkpoint import read_checkpoint
from tests.conftest import PERCEPTUAL, VLR, only_line
from tests.dsr.conftest import ALONE, Arguments
from tests.support.training import assert_same, metric_rows, outcome

pytestmark = pytest.mark.runs

GUIDE = {  # shared/reference/vlr_32x32_guide.md
    "epochs": 100,
    "batch-size": 14,
    "learning-rate": 1.3e-4,
    "warmup-epochs": 5,
    "grad-clip": 1.0,
    "lambda-perceptual": 0.025,
    "lambda-identity": 0.60,
    "lambda-feature-match": 0.18,
    "lambda-tv": 2e-6,
    "base-channels": 128,
    "residual-blocks": 16,
}


def parse(*argv: str) -> DSRTrainingConfig:
    return parse_options(DSRTrainingConfig, argv, prog="dsr", aliases=ALIASES, preset_field="variant", presets=PRESETS)


# The guide


def test_every_flag_of_the_guide_has_its_default_and_is_read() -> None:
    for flag, value in GUIDE.items():
        field = flag.replace("-", "_")
        field = ALIASES.get(field, field)
        assert getattr(parse(), field) == value
        assert getattr(parse(f"--{flag}", str(2 * value)), field) == 2 * value


def test_the_guides_command_is_read() -> None:
    config = parse("--device", "cuda", "--epochs", "100")
    assert (config.accelerator, config.epochs) == ("cuda", 100)
    assert config.vlr_size == "32"


def test_small_is_a_shape_that_flags_override() -> None:
    assert (
        parse("--variant", "small").model_config()
        == parse("--base-channels", "48", "--residual-blocks", "8").model_config()
    )
    assert parse("--variant", "small", "--base-channels", "64").base_channels == 64


# What a run writes


def test_a_run_writes_checkpoints_metrics_pictures_and_its_options(finished: Path, face_set: Path) -> None:
    logs = finished / "logs" / "dsr" / "version_0"
    rows = metric_rows(finished)
    validated = [row for row in rows if "val/loss" in row]
    assert [row["epoch"] for row in validated] == [0, 1]
    names = {"psnr", "psnr_gain", "psnr_y", "ssim", "cosine", "rank1"}
    terms = {"loss", "l1", "identity", "feature_match", "perceptual", "tv"}
    for row in validated:
        assert {name.removeprefix("val/") for name in row if name.startswith("val/")} == names | terms
    epochs = [row for row in rows if "train/loss" in row]
    assert {name.removeprefix("train/") for name in epochs[0] if name.startswith("train/")} == terms
    assert [row["step"] for row in rows if "train/loss_step" in row] == [2, 4]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    for epoch in (0, 1):
        grid = cv2.imread(str(logs / "faces" / f"epoch_{epoch:03d}.png"))
        assert grid is not None
        assert grid.shape[0] == (4 + 2) * (128 + 2) + SCALE_HEIGHT  # VLR, bicubic, DSR, HR; errors of bicubic and DSR
    assert list(logs.glob("events*"))
    assert (finished / "checkpoints" / "last.ckpt").is_file()
    assert len(list((finished / "checkpoints").glob("dsr-epoch=*-val_loss=*.ckpt"))) == 2
    assert len(list((finished / "checkpoints").glob("best-psnr-*.ckpt"))) == 1
    assert len(list((finished / "checkpoints").glob("best-cosine-*.ckpt"))) == 1
    again = parse("--config", str(logs / "config.yaml"))
    assert again.dataset_root == str(face_set)
    assert (again.vlr_size, again.lambda_perceptual, again.ema_decay) == (VLR, 0.025, 0.9)


def test_the_loss_is_the_weighted_sum_of_what_is_logged(finished: Path) -> None:
    weights = {"l1": 1.0, "identity": 0.6, "feature_match": 0.18, "perceptual": 0.025, "tv": 2e-6}
    for row in metric_rows(finished):
        for split in ("train", "val"):
            if f"{split}/loss" in row:
                total = sum(weight * row[f"{split}/{name}"] for name, weight in weights.items())
                assert row[f"{split}/loss"] == pytest.approx(total, rel=1e-4)


def test_a_checkpoint_holds_the_model_alone_and_plain_values(finished: Path, edgeface: Path, face_set: Path) -> None:
    path = finished / "checkpoints" / "last.ckpt"
    stored = torch.load(path, weights_only=True)
    for part in ("state_dict", "current_model_state"):
        names = {name for name in stored[part] if name.startswith("model.")}
        assert {name.removeprefix("model.") for name in names} == set(DSR.load_from_checkpoint(path).state_dict())
        assert all(name in names or name == "n_averaged" for name in stored[part])
    assert path.stat().st_size < edgeface.stat().st_size / 4
    train = {file.name[:3] for file in (face_set / "train_processed" / "hr_images").iterdir()}
    assert stored["trained_on"] == identity_digests(train)


def test_it_learns_a_few_faces_better_than_interpolation(tmp_path: Path, arguments: Arguments) -> None:
    """On pixels alone, at a rate for so short a run."""
    plan = ("--epochs", "8", "--lr", "2e-2", "--batch-size", "4", "--augment", "none", "--ema-decay", "0")
    assert main(arguments(tmp_path, *ALONE, *plan)) == 0
    gains = [row["val/psnr_gain"] for row in metric_rows(tmp_path) if "val/psnr_gain" in row]
    assert gains[-1] > 0.1
    assert gains[-1] > gains[0] + 0.1


# Exact resume

PLAN = (
    *("--epochs", "3", "--degradation", "realistic", "--accumulate-grad-batches", "2", "--schedule", "plateau"),
    *("--plateau-patience", "0", "--lambda-identity", "0.3", "--augment", "full"),
)


@pytest.fixture(scope="module")
def uninterrupted(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(arguments(folder, *PLAN)) == 0
    return outcome(folder)


def test_stopped_and_resumed_ends_as_never_stopped(
    tmp_path: Path, arguments: Arguments, uninterrupted: tuple[dict[str, Any], str]
) -> None:
    """Weights, their average, optimiser, schedule and rows, to the last bit; with other workers in between."""
    assert main(arguments(tmp_path, *PLAN, "--stop-after-epoch", "1", "--num-workers", "1")) == EXIT_PAUSED
    half = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert half["run"]["epochs_done"] == 1
    assert main(arguments(tmp_path, *PLAN)) == 0
    checkpoint, rows = outcome(tmp_path)
    assert rows == uninterrupted[1]
    assert_same(checkpoint, uninterrupted[0])
    assert {"state_dict", "current_model_state", "optimizer_states", "lr_schedulers"} <= checkpoint.keys()
    weights = checkpoint["state_dict"]
    assert any(not torch.equal(value, half["state_dict"][name]) for name, value in weights.items())


def test_a_finished_run_says_so(finished: Path, arguments: Arguments, perceptual: list[str], capsys: Any) -> None:
    before = (finished / "checkpoints" / "last.ckpt").read_bytes()
    assert main(arguments(finished, *perceptual, "--lambda-perceptual", "0.025")) == 0
    assert "finished: " in capsys.readouterr().out
    assert (finished / "checkpoints" / "last.ckpt").read_bytes() == before


def test_another_loss_is_no_continuation(
    finished: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(finished, "--lambda-perceptual", "0.025", "--lambda-identity", "0.1", "--epochs", "3")) == 2
    error = only_line(capsys)
    assert "lambda_identity 0.6 -> 0.1" in error
    assert "--init-from" in error


def test_init_from_takes_the_weights_and_whom_they_know(
    finished: Path, face_set: Path, tmp_path: Path, arguments: Arguments
) -> None:
    """Trained on with the validation people as training set: the new checkpoint names both."""
    swapped = tmp_path / "swapped"
    for split, own in (("train", "val"), ("val", "train")):
        shutil.copytree(face_set / f"{own}_processed" / "hr_images", swapped / f"{split}_processed" / "hr_images")
    start = finished / "checkpoints" / "last.ckpt"
    plan = ("--dataset-root", str(swapped), "--epochs", "1", "--lr", "1e-9", "--init-from", str(start))
    assert main(arguments(tmp_path / "run", *ALONE, *plan)) == 0
    given, kept = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (finished, tmp_path / "run"))
    for name, value in given["state_dict"].items():
        if name.startswith("model."):
            torch.testing.assert_close(kept["state_dict"][name], value, atol=1e-6, rtol=0)
    assert kept["global_step"] == 1
    assert len(given["trained_on"]) < len(kept["trained_on"])
    assert kept["trained_on"] == identity_digests(path.name[:3] for path in swapped.rglob("*.png"))


# What is not finite


@pytest.fixture
def poisoned(finished: Path, tmp_path: Path) -> Path:
    """The finished run's last.ckpt with a NaN among its weights."""
    checkpoint = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        checkpoint[part]["model.head.weight"][0, 0] = torch.nan
    torch.save(checkpoint, tmp_path / "poisoned.ckpt")
    return tmp_path / "poisoned.ckpt"


def test_a_loss_that_is_not_finite_names_step_terms_and_files_and_keeps_the_last_good_checkpoint(
    finished: Path,
    poisoned: Path,
    arguments: Arguments,
    perceptual: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    longer = ("--lambda-perceptual", "0.025", "--epochs", "3", "--resume", str(poisoned))
    assert main(arguments(finished, *perceptual, *longer)) == 2
    error = only_line(capsys)
    assert error.startswith("error: step 4: loss, l1, identity, feature_match, perceptual, tv not finite on ")
    assert error.count("train_processed/hr_images/") == 8  # the batch
    assert f"{last} is from before that" in error
    assert last.read_bytes() == before
    assert all(value.isfinite().all() for value in DSR.load_from_checkpoint(last).state_dict().values())


def test_a_start_from_weights_that_are_not_finite_saves_nothing(
    poisoned: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "new", *ALONE, "--init-from", str(poisoned))) == 2
    error = only_line(capsys)
    assert error.startswith("error: step 0: loss, l1, tv not finite on ")
    assert "there is no checkpoint from before that" in error
    assert not list((tmp_path / "new").rglob("*.ckpt"))


# Networks that the loss needs


@pytest.mark.parametrize("flag", ["--recognizer", "--second-recognizer"])
def test_a_recogniser_that_is_not_there_is_one_line(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert main(arguments(tmp_path, flag, "nowhere.pt")) == 2
    message = f"{flag}: nowhere.pt: neither a file nor one of edgeface_xxs, "
    assert message in only_line(capsys)


def test_weights_of_another_network_are_no_recogniser(
    tmp_path: Path, arguments: Arguments, perceptual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, "--recognizer", perceptual[-1])) == 2
    assert f"--recognizer: {perceptual[-1]}: holds no EdgeFace weights" in only_line(capsys)


def test_a_recogniser_with_a_layer_missing_is_one_line(
    tmp_path: Path, edgeface: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(edgeface, weights_only=True)
    del state["model.head.fc.bias"]
    torch.save(state, tmp_path / "part.pt")
    assert main(arguments(tmp_path, "--recognizer", str(tmp_path / "part.pt"))) == 2
    assert "not the weights of edgeface_xxs: missing model.head.fc.bias" in only_line(capsys)


def test_a_perceptual_network_that_is_not_available_is_one_line(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    random = ("--lambda-perceptual", "0.1", "--perceptual-backbone", PERCEPTUAL, "--perceptual-weights", "none")
    assert main(arguments(tmp_path, *random)) == 2
    error = only_line(capsys)
    assert "--perceptual-weights none: a random network measures nothing" in error
    assert "or --lambda-perceptual 0" in error
    assert main(arguments(tmp_path, *random, "--perceptual-weights", "nowhere.pth")) == 2
    assert "--perceptual-weights: nowhere.pth: no such weights file" in only_line(capsys)


def test_without_a_recogniser_its_losses_must_be_0(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    for weights in ((), ("--lambda-identity", "0"), ("--lambda-feature-match", "0")):
        assert main(arguments(tmp_path, "--recognizer", "none", *weights)) == 2
        assert "--recognizer none: also give --lambda-identity 0 --lambda-feature-match 0" in only_line(capsys)
    assert main(arguments(tmp_path, *ALONE, "--epochs", "1")) == 0
    (row,) = [row for row in metric_rows(tmp_path) if "val/loss" in row]
    assert not any("cosine" in name or "rank1" in name or "identity" in name for name in row)
    assert not list(tmp_path.rglob("best-cosine*"))


def test_a_second_recogniser_measures_and_takes_no_part(
    finished: Path, edgeface: Path, tmp_path: Path, arguments: Arguments
) -> None:
    """The same network as second says the same; training is as without it."""
    plan = ("--epochs", "1", "--stop-after-epoch", "1")
    assert main(arguments(tmp_path / "one", *plan)) == 0
    assert main(arguments(tmp_path / "two", *plan, "--second-recognizer", str(edgeface))) == 0
    one, two = (read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "two"))
    assert_same(two["state_dict"], one["state_dict"])
    (row,) = [row for row in metric_rows(tmp_path / "two") if "val/loss" in row]
    assert row["val/cosine_second"] == pytest.approx(row["val/cosine"], abs=1e-6)
    assert row["val/rank1_second"] == row["val/rank1"]
    assert list(tmp_path.rglob("best-cosine_second-*.ckpt"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--lambda-identity", "-1"], "--lambda-identity -1.0: must be at least 0"),
        (["--vlr-size", "100"], "--vlr-size: VLR size '100' is out of range"),
        (["--degradation", "blurry"], "--degradation blurry: choose one of bicubic, area, realistic, mixed, files"),
        (["--recognizer-jitter", "2"], "--recognizer-jitter 2.0: must be at least 0 and at most 0.5"),
        (["--lambda-gan", "1"], "unrecognized arguments: --lambda-gan; did you mean --lambda-"),
    ],
)
def test_wrong_options_are_one_line(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert main(arguments(tmp_path, *given)) == 2
    assert message in only_line(capsys)
