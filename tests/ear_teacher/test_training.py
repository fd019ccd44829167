"""Real runs of the trainer: what it learns, writes, and refuses."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import huggingface_hub
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from ear_teacher import EarVAE
from ear_teacher.annealing import KLAnnealing
from ear_teacher.config import ALIASES, PRESETS, EarVAETrainingConfig
from ear_teacher.datamodule import EarVAEDataModule
from ear_teacher.module import EarVAELightning
from ear_teacher.train import main
from earface.core.command_line import parse_options
from earface.core.stopping import EXIT_PAUSED
from earface.data.image_cache import open_image_cache
from earface.data.npy import read_teacher_npy, write_teacher_npy
from earface.nn.checkpoint import read_checkpoint
from earface.training.resume import open_run
from earface.training.trainer import build_trainer
from tests.conftest import TINY, only_line
from tests.support.hostile import Payload
from tests.support.training import metric_rows, watch_first_step

pytestmark = pytest.mark.runs

WEIGHTS = {"ssim": 0.5, "edge": 0.25, "contrastive": 0.125, "center": 2.0, "kl": 0.0625, "perceptual": 0.75}
TINY_CONFIG: dict[str, Any] = {
    **{"encoder": "conv", "image_size": 64, "latent_dim": 8, "base_channels": 4, "linear_path_size": 16},
    **{"encoder_weights": "none", "perceptual_weight": 0.0},
}
EVERY_TERM = [part for name, weight in WEIGHTS.items() for part in (f"--{name}-weight", str(weight))]


def arguments(ear_set: Path, folder: Path, *extra: str) -> list[str]:
    return [
        *("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy")),
        *("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")),
        *TINY,
        *extra,
    ]


@pytest.fixture(scope="module")
def finished(ear_set: Path, tmp_path_factory: pytest.TempPathFactory, perceptual: list[str]) -> Path:
    """The folder of a run of four epochs with every term of the loss and a KL ramp over the whole run."""
    folder = tmp_path_factory.mktemp("finished")
    annealed = ("--epochs", "4", "--kl-anneal-strategy", "linear")
    assert main(arguments(ear_set, folder, *annealed, *perceptual, *EVERY_TERM)) == 0
    return folder


# What it learns


def test_the_networks_alone_overfit_eight_ears(ear_set: Path, tmp_path: Path) -> None:
    """Small and smooth ones, 7 dB beyond their mean in 120 steps. No linear path, so nothing but the networks can."""
    data = read_teacher_npy(ear_set / "train_teacher.npy")
    ears = open_image_cache(data, image_size=64, channels=3, cache_dir=tmp_path).images[::5]
    smooth = [cv2.resize(cv2.GaussianBlur(ear, (0, 0), 3), (32, 32), interpolation=cv2.INTER_AREA) for ear in ears]
    for name, offset in (("train", 0), ("val", 1)):  # the same file twice is refused
        np.save(tmp_path / f"{name}.npy", np.stack(smooth).clip(0, 254) + np.uint8(offset))
    config = EarVAETrainingConfig(
        **PRESETS["conv"]
        | {
            "encoder": "conv",
            "image_size": 32,
            "latent_dim": 32,
            "base_channels": 16,
            "linear_path_size": 0,
            "batch_size": 8,
            "epochs": 120,
            "warmup_epochs": 24.0,
            "schedule": "cosine",
            "lr": 2e-3,
            "weight_decay": 0.01,
            "reconstruction": "l1",
            "kl_weight": 0.0,
            "seed": 1,
            "augment": "none",
            "num_workers": 0,
            "train_npy": (str(tmp_path / "train.npy"),),
            "val_npy": (str(tmp_path / "val.npy"),),
        }
    )
    pl.seed_everything(config.seed, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=120,
        check_val_every_n_epoch=120,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(EarVAELightning(config), EarVAEDataModule(config))
    assert len(smooth) == 8
    unit = np.stack(smooth) / 255
    of_mean = -10 * np.log10(np.square(unit - unit.mean(axis=0)).mean(axis=(1, 2, 3))).mean()
    assert trainer.callback_metrics["val/psnr"] > of_mean + 7


def test_several_files_are_trained_on_and_each_is_validated(ear_set: Path, tmp_path: Path) -> None:
    """Also given in a configuration file, where one file is a text or a list."""
    for side, parts in (("train", 2), ("val", 3)):
        data = read_teacher_npy(ear_set / f"{side}_teacher.npy")
        assert data.image_paths
        for part in range(2):
            rows = slice(parts) if part == 0 else slice(parts, None)
            path = tmp_path / f"{side}{part}.npy"
            write_teacher_npy(path, image_paths=data.image_paths[rows], collection=str(part))
    config = tmp_path / "run.yaml"
    files = [f"{tmp_path}/{side}{part}.npy" for side in ("train", "val") for part in range(2)]
    config.write_text(f"train_npy: {files[0]}\nval_npy: [{files[2]}, {files[3]}]\n")
    argv = arguments(ear_set, tmp_path, "--epochs", "1", "--cache-dir", str(tmp_path / "cache"))[4:]
    assert main(["--config", str(config), *argv]) == 0
    options = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["hyper_parameters"]["options"]
    assert (options["train_npy"], options["val_npy"]) == (files[:1], files[2:])
    (row,) = [row for row in metric_rows(tmp_path) if "val/psnr" in row]
    for name in ("psnr", "ssim"):
        assert row[f"val/{name}"] == pytest.approx((3 * row[f"val/{name}_1"] + 7 * row[f"val/{name}_2"]) / 10, rel=1e-5)
    assert main(["--config", str(config), *argv, "--train-npy", *files[:2], "--resume", "never"]) == 0
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 10


def val_loss(ear_set: Path, folder: Path, *extra: str) -> float:
    """After one step of training, on one batch."""
    argv = arguments(ear_set, folder, "--fast_dev_run", *extra)
    config = parse_options(
        EarVAETrainingConfig, argv, prog="ears", aliases=ALIASES, preset_field="encoder", presets=PRESETS
    )
    pl.seed_everything(0, verbose=False)
    run, config = open_run(config, "ear_vae")
    trainer = build_trainer(config, run, best={"ssim": "max"})
    trainer.fit(EarVAELightning(config), EarVAEDataModule(config))
    return float(trainer.callback_metrics["val/loss"])


@pytest.mark.parametrize(
    "changed",
    [
        *([f"--{name}-weight", str(weight)] for name, weight in WEIGHTS.items()),
        ["--kl-reduction", "mean"],
        ["--reconstruction", "l1"],
        ["--focal-gamma", "2"],
        ["--kl-anneal-end", "0.5"],
    ],
    ids=lambda changed: changed[0],
)
def test_each_option_of_the_loss_changes_it(
    ear_set: Path, tmp_path: Path, perceptual: list[str], changed: list[str], conv_loss: float
) -> None:
    assert val_loss(ear_set, tmp_path, *perceptual, *changed) != pytest.approx(conv_loss, rel=1e-4)


@pytest.fixture(scope="module")
def conv_loss(ear_set: Path, tmp_path_factory: pytest.TempPathFactory, perceptual: list[str]) -> float:
    """With the conv recipe as it is, twice the same."""
    folder = tmp_path_factory.mktemp("conv_loss")
    losses = [val_loss(ear_set, folder, *perceptual) for _ in range(2)]
    assert losses[0] == losses[1]
    return losses[0]


ANNEALING = {
    "threshold": {"epochs": 2, "latest_epoch": 0},
    "epoch": {"epochs": 2},
    "linear": {},
    "monotonic": {},
    "cyclic": {"cycles": 2, "ratio": 0.75},
    "none": {},
}


@pytest.mark.filterwarnings("ignore:KL ramp")  # its latest epoch is the first one
@pytest.mark.parametrize("strategy", ANNEALING)
def test_the_kl_weight_follows_its_strategy_at_every_step(ear_set: Path, tmp_path: Path, strategy: str) -> None:
    """Worked out from the logged loss, of which nothing but reconstruction and KL are parts."""
    options = ANNEALING[strategy] | {"start": 0.25, "end": 0.75}
    flags = [part for name, value in options.items() for part in (f"--kl-anneal-{name.replace('_', '-')}", str(value))]
    fixed = ("--epochs", "1", "--kl-weight", "2", "--kl-reduction", "mean", "--log-every-n-steps", "1")
    assert main(arguments(ear_set, tmp_path, "--kl-anneal-strategy", strategy, *fixed, *flags)) == 0
    steps = [row for row in metric_rows(tmp_path) if "train/loss_step" in row]
    weights = [(row["train/loss_step"] - row["train/recon_step"]) / row["train/kl_step"] for row in steps]
    oracle = KLAnnealing(strategy, 2.0, 1, **options)  # type: ignore[arg-type]
    assert weights == pytest.approx([oracle.weight_at(step / 10) for step in range(10)], rel=1e-4)


def test_validation_loss_is_at_the_final_kl_weight_in_every_epoch(finished: Path) -> None:
    epochs = [row for row in metric_rows(finished) if "val/loss" in row]
    assert len(epochs) == 4
    for row in epochs:
        terms = {"ssim": row["val/ssim_loss"]} | {
            name: row[f"val/{name}"] for name in ("edge", "contrastive", "center", "kl", "perceptual")
        }
        total = row["val/recon"] + sum(WEIGHTS[name] * term for name, term in terms.items())
        assert row["val/loss"] == pytest.approx(total, rel=1e-5)
        assert row["val/ssim"] == pytest.approx(1 - row["val/ssim_loss"], abs=1e-5)
    weights = [row["train/kl_weight"] for row in metric_rows(finished) if "train/loss" in row]
    assert weights == sorted(weights)
    assert weights[0] < WEIGHTS["kl"]  # while the training loss is not


# What it writes


def test_a_run_leaves_what_the_design_names(finished: Path) -> None:
    version = finished / "logs" / "ear_vae" / "version_0"
    names = {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()}
    pictures = {f"{kind}/epoch_{epoch:03d}.png" for kind in ("reconstructions", "samples") for epoch in range(4)}
    assert names >= pictures | {"metrics.csv", "hparams.yaml", "config.yaml"}
    assert sum(name.startswith("events.out.tfevents") for name in names) == 1
    assert all(cv2.imread(str(version / name)) is not None for name in pictures)

    saved = sorted(path.name for path in (finished / "checkpoints").rglob("*.ckpt"))
    assert "last.ckpt" in saved
    assert sum(name.startswith("ear_vae-epoch=") for name in saved) == 3
    assert sum(name.startswith("best-ssim-epoch=") for name in saved) == 1
    assert len(saved) == 5


def test_every_number_in_the_metrics_is_finite(finished: Path) -> None:
    rows = metric_rows(finished)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert {"val/psnr", "val/ssim", "val/kl_nats", "val/active_units", "lr/backbone"} <= set().union(*rows)


def test_the_best_checkpoints_are_the_best_epochs(finished: Path) -> None:
    losses = [row["val/loss"] for row in metric_rows(finished) if "val/loss" in row]
    best = {f"{loss:.4f}" for loss in sorted(losses)[:3]}
    assert {path.stem.split("val_loss=")[1] for path in finished.rglob("ear_vae-epoch=*.ckpt")} == best


def test_no_loss_network_and_no_optimiser_name_is_among_the_weights(finished: Path) -> None:
    names = read_checkpoint(finished / "checkpoints" / "last.ckpt")["state_dict"]
    assert {name.split(".")[1] for name in names} == {"encoder", "decoder", "linear_path"}


def test_compiled_networks_keep_their_names_and_their_results() -> None:
    module = EarVAELightning(EarVAETrainingConfig(**TINY_CONFIG, compile=True)).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    names, wanted = list(module.state_dict()), module(images)[0]
    module.compile_networks()
    assert list(module.state_dict()) == names
    with torch.compiler.set_stance("force_eager"):  # wrapped as ever; generating the code takes two minutes here
        assert torch.equal(module(images)[0], wanted)


def test_on_a_cpu_compiling_is_left_out_with_a_note(
    ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(ear_set, tmp_path, "--compile", "--fast-dev-run")) == 0
    assert "note: --compile is left out" in capsys.readouterr().out


# Where it runs


@pytest.mark.slow
def test_the_script_runs_as_a_file_from_anywhere(ear_set: Path, tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "ear_teacher" / "train.py"
    command = [sys.executable, str(script), *arguments(ear_set, tmp_path, "--fast_dev_run")]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "logs").exists()


def decays_by_half_from_layer_2(module: EarVAELightning) -> bool:
    """The first two layers are frozen, and of the others each has twice the rate of the one before."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    rates = {name: rate for name, rate in module.rates().items() if name.startswith("lr/backbone.")}
    ordered = [rates[name] for name in sorted(rates)]
    halves = all(math.isclose(low * 2, high) for low, high in itertools.pairwise(ordered))
    return bool(frozen) and min(rates) == "lr/backbone.2" and len(rates) > 1 and halves


@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        (("--encoder", "resnet50"), lambda module: module.model.config.encoder == "resnet50"),
        (("--encoder", "timm:test_vit", "--layer-decay", "0.5", "--freeze-layers", "2"), decays_by_half_from_layer_2),
        (
            ("--in-channels", "1"),
            lambda module: module.model.eval().reconstruct(torch.zeros(1, 1, 64, 64)).shape[1] == 1,
        ),
        (("--precision", "bf16"), lambda module: module.trainer.precision == "bf16-mixed"),
        (("--device", "cpu", "--devices", "1"), lambda module: module.device.type == "cpu"),
    ],
    ids=lambda extra: " ".join(extra[:2]) if isinstance(extra, tuple) else "",
)
def test_a_batch_reaches_every_layer_that_is_not_frozen(
    ear_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: tuple[str, ...],
    shown: Callable[[EarVAELightning], bool],
) -> None:
    step = watch_first_step(monkeypatch)
    given = ("--encoder-weights", "none", "--perceptual-weight", "0", "--fast_dev_run")
    assert main(arguments(ear_set, tmp_path, *given, *extra)) == 0
    trained = {name for name, parameter in step.module.named_parameters() if parameter.requires_grad}
    assert step.reached == trained
    assert {"model.encoder.head.mu.weight", "model.decoder.to_pixels.weight"} <= step.changed() <= trained
    assert math.isfinite(step.module.trainer.callback_metrics["val/loss"])
    assert shown(step.module)


# What it refuses


def test_missing_pretrained_weights_are_one_line(
    ear_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert main(arguments(ear_set, tmp_path, "--encoder", "resnet50")) == 2
    error = only_line(capsys)
    assert "resnet50.tv_in1k" in error
    assert "--encoder-weights FILE" in error
    assert "or none" in error


def test_a_hostile_npy_is_refused_and_not_run(
    ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = np.array({"image_paths": [], "bboxes": Payload(tmp_path / "ran")}, dtype=object)
    np.save(tmp_path / "hostile.npy", content)
    assert main(arguments(ear_set, tmp_path, "--train-npy", str(tmp_path / "hostile.npy"))) == 2
    assert str(tmp_path / "hostile.npy") in only_line(capsys)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (("--train-npy", "absent.npy"), "absent.npy: no such file"),
        (("--accelerator", "gpu"), "--accelerator gpu: PyTorch sees no GPU here; use --accelerator cpu"),
        (("--device", "cuda"), "--accelerator cuda: PyTorch sees no GPU here; use --accelerator cpu"),
        (("--accelerator", "abacus"), "--accelerator abacus"),
        (("--devices", "some"), "--devices some: must be auto, a number, or a list such as 0,2"),
        (("--max-time", "soon"), "--max-time soon: must be DD:HH:MM:SS"),
        (("--encoder", "resnet51"), "--encoder resnet51: choose one of"),
        (("--encoder", "timm:"), "--encoder timm:: choose one of"),
        (("--devices", "4096", "--accelerator", "cpu"), "--devices 4096: this machine has"),
        (("--checkpoint-dir", __file__), f"{__file__} is a file; give a folder"),
        (("--log-dir", __file__), f"{__file__} is a file; give a folder"),
        (
            ("--encoder-weights", "absent.pth"),
            "--encoder-weights absent.pth: the conv encoder has no published weights",
        ),
        (("--freeze-layers", "9"), "--freeze-layers 9: this encoder has 4 layer groups"),
        (("--perceptual-weight", "1", "--perceptual-weights", "absent.pth"), "absent.pth: no such weights file"),
        (("--resume", "absent.ckpt"), "absent.ckpt: no such checkpoint"),
        (("--init-from", "absent.ckpt"), "absent.ckpt: no such checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...], reason: str
) -> None:
    assert main(arguments(ear_set, tmp_path, *extra)) == 2
    assert reason in only_line(capsys)


@pytest.mark.parametrize("flag", ["--resume", "--init-from"])
def test_a_checkpoint_of_another_configuration_is_refused_with_the_difference(
    ear_set: Path, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    other = str(finished / "checkpoints" / "last.ckpt")
    assert main(arguments(ear_set, tmp_path, "--latent-dim", "9", flag, other)) == 2
    error = only_line(capsys)
    assert other in error
    assert ("10 other settings" if flag == "--resume" else "latent_dim 8") in error


# What is not finite


@pytest.fixture
def poisoned(ear_set: Path, tmp_path: Path) -> tuple[Path, bytes]:
    """A copy of a paused run's last.ckpt with a NaN among its weights, and last.ckpt itself."""
    assert main(arguments(ear_set, tmp_path, "--epochs", "2", "--stop-after-epoch", "1")) == EXIT_PAUSED
    last = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = read_checkpoint(last)
    checkpoint["state_dict"]["model.decoder.project.weight"][0, 0] = torch.nan
    torch.save(checkpoint, tmp_path / "poisoned.ckpt")
    return tmp_path / "poisoned.ckpt", last.read_bytes()


def test_a_loss_that_is_not_finite_is_one_line_and_leaves_the_last_good_checkpoint(
    ear_set: Path, tmp_path: Path, poisoned: tuple[Path, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    path, good = poisoned
    capsys.readouterr()
    assert main(arguments(ear_set, tmp_path, "--epochs", "2", "--resume", str(path))) == 2
    error, last = only_line(capsys), tmp_path / "checkpoints" / "last.ckpt"
    assert error.startswith("error: step 10: loss, recon not finite on ")
    assert error.count("/images/S") == 4  # the batch
    assert f"{last} is from before that" in error
    assert last.read_bytes() == good
    assert all(value.isfinite().all() for value in EarVAE.load_from_checkpoint(str(last)).state_dict().values())


def test_a_start_from_weights_that_are_not_finite_says_that_nothing_was_saved(
    ear_set: Path, tmp_path: Path, poisoned: tuple[Path, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(arguments(ear_set, tmp_path / "new", "--init-from", str(poisoned[0]))) == 2
    error = only_line(capsys)
    assert error.startswith("error: step 0: ")
    assert "there is no checkpoint from before that" in error
    assert list((tmp_path / "new").rglob("*.ckpt")) == []


def test_a_validation_loss_that_is_not_finite_is_one_line_and_is_not_saved(
    ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The final KL weight overflows, that of the first epoch does not."""
    ramp = ("--kl-weight", "3e38", "--kl-reduction", "sum", "--kl-anneal-strategy", "linear", "--epochs", "1000000")
    assert main(arguments(ear_set, tmp_path, *ramp, "--stop-after-epoch", "1")) == 2
    assert only_line(capsys).startswith("error: step 10: loss not finite in validation; there is no checkpoint")
    assert list(tmp_path.rglob("*.ckpt")) == []
