"""Two processes on a CPU train as one does on the same batches, and end together."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from earface.core.stopping import EXIT_PAUSED
from tests.support.several_processes import Trainer, steps, train
from tests.support.training import assert_same, outcome

pytestmark = [pytest.mark.slow, pytest.mark.runs]

COMMON = (
    *("--accelerator", "cpu", "--precision", "32", "--num-workers", "0", "--num-threads", "1", "--progress", "none"),
    *("--augment", "none", "--no-pictures", "--logger", "none", "--log-every-n-steps", "1"),
    *("--schedule", "constant", "--warmup-epochs", "0"),
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with and without ears: 16 to train on and 9 to validate with."""
    from earface.synthetic.scene_set import SceneSet, write_scene_set

    folder = tmp_path_factory.mktemp("scenes")
    write_scene_set(folder / "train", SceneSet(16, 96, 72, seed=1))
    write_scene_set(folder / "val", SceneSet(9, 96, 72, seed=2))
    return folder


@pytest.fixture(scope="module")
def trainers(
    ear_set: Path, face_set: Path, edgeface: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trainer]:
    ears = ["--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy")]
    faces = ["--dataset-root", str(face_set), "--recognizer", str(edgeface), "--vlr-size", "16"]
    cache = str(tmp_path_factory.mktemp("cache"))
    slow = ["--epochs", "1", "--lr", "1e-7", "--head-lr", "1e-7"]
    small = ["--base-channels", "4", "--image-size", "64"]
    return {
        "ears": (
            "ear_teacher.train",
            [
                *(*ears, "--encoder", "conv", *small, "--latent-dim", "8", *slow[:4]),
                *("--contrastive-weight", "0.5", "--ssim-weight", "1", "--edge-weight", "1", "--center-weight", "1"),
                *("--linear-path-size", "16", "--kl-anneal-strategy", "none"),
            ],
        ),
        "detector": (
            "ear_teacher.detector.train",
            [
                *("--train-json", str(scenes / "train" / "annotations.json")),
                *("--val-json", str(scenes / "val" / "annotations.json")),
                *("--encoder", "conv", *small, "--crop-size", "32", "--pyramid-width", "16", *slow[:4]),
            ],
        ),
        "ear recogniser": (
            "ear_teacher.recognition.train",
            [
                *(*ears, "--backbone", "conv", *small, "--embedding-dim", "16", "--backbone-weights", "none"),
                *("--images-per-class", "6", *slow),
            ],
        ),
        "dsr": (
            "dsr.train_dsr",
            [
                *(*faces, "--second-recognizer", "none", "--base-channels", "8", "--residual-blocks", "1"),
                *("--lambda-perceptual", "0", "--recognizer-jitter", "0", *slow[:4]),
            ],
        ),
        "edgeface": (
            "facial_rec.finetune_edgeface",
            [
                *(*faces, "--upsampler", "bicubic", "--cache-dir", cache, "--keep-weight", "1", "--lambda-align", "1"),
                *("--stage1-epochs", "1", "--stage2-epochs", "1", "--head-lr", "1e-7", "--head-lr-stage2", "1e-7"),
                *("--backbone-lr", "1e-7"),
            ],
        ),
    }


def rows(folder: Path) -> list[dict[str, float]]:
    """Of all stages."""
    found = []
    for path in sorted((folder / "logs").rglob("metrics.csv")):
        with path.open(newline="") as file:
            found += [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)]
    return found


# Means over a validation batch that are no means over its pictures; the two runs have batches of other sizes.
OF_BATCHES = {
    "ears": {"val/loss", "val/contrastive"},
    "detector": {f"val/{name}" for name in ("loss", "score", "box", "heatmap", "landmark", "visibility")},
}


@pytest.mark.parametrize("name", ["ears", "detector", "ear recogniser", "dsr", "edgeface"])
def test_two_processes_are_one_with_the_same_batches(name: str, trainers: dict[str, Trainer], tmp_path: Path) -> None:
    """Loss and gradients of each step to 1e-5, and every metric of the training and of a validation set."""
    module, argv = trainers[name]
    one, two = tmp_path / "one", tmp_path / "two"
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(train, (module, [*argv, *COMMON, "--batch-size", size]), folder, processes)
            for folder, processes, size in ((one, 1, "8"), (two, 2, "4"))
        ]
    for run in runs:
        codes, output = run.result()
        assert not any(codes), output
    alone, first, second = steps(one, 0), steps(two, 0), steps(two, 1)
    assert len(alone) == len(first) == len(second) >= 2
    for (_, loss, gradients), (_, loss_1, gradients_1), (_, loss_2, gradients_2) in zip(
        alone, first, second, strict=True
    ):
        torch.testing.assert_close((loss_1 + loss_2) / 2, loss, rtol=1e-5, atol=1e-5)
        assert gradients.keys() == gradients_1.keys() == gradients_2.keys()
        for parameter, gradient in gradients.items():
            assert torch.equal(gradients_1[parameter], gradients_2[parameter]), parameter
            torch.testing.assert_close(gradients_1[parameter], gradient, rtol=1e-5, atol=1e-5, msg=parameter)
    for row, wanted in zip(rows(two), rows(one), strict=True):
        assert row.keys() == wanted.keys()
        for metric in wanted.keys() - OF_BATCHES.get(name, set()):
            assert row[metric] == pytest.approx(wanted[metric], rel=1e-5, abs=1e-5), metric


# Pausing and going on


STEPS_BETWEEN = 3  # of the 5 of an epoch


@pytest.fixture(scope="module")
def paused(trainers: dict[str, Trainer], tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    """A run of two processes that was to pause from its first step on."""
    module, argv = trainers["ears"]
    plan = ["--batch-size", "4", "--epochs", "2", "--lr", "1e-3", "--schedule", "cosine", "--warmup-epochs", "1"]
    trainer = module, [*argv, *COMMON, *plan, "--log-every-n-steps", str(STEPS_BETWEEN)]
    folder = tmp_path_factory.mktemp("paused")
    codes, output = train(trainer, folder, 2, "--max-time", "0")
    assert codes == [EXIT_PAUSED, 0], output
    assert f"paused by --max-time in epoch 1, step {STEPS_BETWEEN}" in output
    return trainer, folder


def test_two_processes_that_go_on_end_as_two_that_never_stopped(paused: tuple[Trainer, Path], tmp_path: Path) -> None:
    trainer, folder = paused
    copied = Path(shutil.copytree(folder, tmp_path / "resumed"))
    for each in (tmp_path / "whole", copied):
        codes, output = train(trainer, each, 2)
        assert codes == [0, 0], output
    (checkpoint, _), (wanted, _) = outcome(copied), outcome(tmp_path / "whole")
    assert_same(checkpoint["state_dict"], wanted["state_dict"])
    assert_same(checkpoint["optimizer_states"], wanted["optimizer_states"])
    for row, expected in zip(rows(copied), rows(tmp_path / "whole"), strict=True):
        assert row == pytest.approx(expected, rel=1e-12)


def test_what_two_processes_began_one_ends(paused: tuple[Trainer, Path], tmp_path: Path) -> None:
    """Each picture comes once in the epoch, and the learning rate ends where it would have."""
    trainer, folder = paused
    copied = Path(shutil.copytree(folder, tmp_path / "resumed"))
    codes, output = train(trainer, copied, 1)
    assert codes == [0], output
    assert "the run began with 2 x 4 images a step, and goes on with 1 x 4" in output
    before = torch.cat([samples for rank in range(2) for samples, *_ in steps(folder, rank)])
    after = [samples for samples, *_ in steps(copied, 0)]
    assert sorted(torch.cat([before, *after[: len(after) - 10]]).tolist()) == list(range(40))
    assert sorted(torch.cat(after[-10:]).tolist()) == list(range(40))
    found = rows(copied)
    assert [row["epoch"] for row in found if "val/loss" in row] == [0, 1]
    rates = {row["step"]: row["lr/decoder"] for row in found if "lr/decoder" in row}
    assert rates[STEPS_BETWEEN + 4 + 10] == pytest.approx(1e-5)  # a hundredth of the highest


# A process that dies


@pytest.mark.parametrize("victim", ["first", "second"])
def test_a_process_that_dies_ends_the_run(victim: str, trainers: dict[str, Trainer], tmp_path: Path) -> None:
    """Within a minute, and not as if all were well. Lightning starts the second one."""
    module, argv = trainers["ears"]
    places = ["--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")]
    flags = [*argv, *COMMON, *places, "--batch-size", "4", "--epochs", "100000", "--devices", "2", "--strategy", "ddp"]
    with (tmp_path / "output").open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", module, *flags],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
    first = psutil.Process(run.pid)
    while not (tmp_path / "checkpoints" / "last.ckpt").is_file():
        assert run.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.2)
    (second,) = first.children()
    (first if victim == "first" else second).kill()
    assert run.wait(60) != 0
    _, alive = psutil.wait_procs([second], timeout=60)
    assert not alive
