"""Without a network, every weights file that a program needs is named in its one line, before the data is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
from huggingface_hub import constants
from safetensors.torch import save_file

from earface.commands import main
from earface.synthetic.scene_set import SceneSet, write_scene_set
from tests.conftest import TINY, VLR, only_line

pytestmark = pytest.mark.runs

ROOT = Path(__file__).parents[1]
FEW = ("--num-workers", "0", "--progress", "none", "--precision", "32")
ENCODER = ("resnet50.tv_in1k", "--encoder-weights FILE")
VGG = ("vgg16.tv_in1k", "--perceptual-weights FILE")
FIRST, SECOND = ("edgeface_xxs", "--recognizer FILE"), ("edgeface_xs_gamma_06", "--second-recognizer FILE")
PROGRAMS = {  # words, and what is missing with the way to give it
    "ears train": ("--train-npy {ears}/train_teacher.npy --val-npy {ears}/val_teacher.npy", (ENCODER, VGG)),
    "ears detector train": ("--train-json {file} --val-json {other}", (ENCODER,)),
    "dsr train": (
        "--dataset-root {broken}",
        (FIRST, SECOND, ("vgg16.tv_in1k", "--perceptual-weights FILE"), ("", "--lambda-perceptual 0")),
    ),
    "faces finetune": (
        "--dataset-root {broken}",
        (("edgeface_xxs", "--recognizer FILE"), ("", "dsr/checkpoints/last.ckpt: no such checkpoint")),
    ),
    "faces evaluate": (
        "--dataset-root {broken} --recognizer edgeface_xxs edgeface_base",
        (("edgeface_xxs", "--recognizer FILE"), ("edgeface_base", "--recognizer FILE")),
    ),
    "faces embed": ("--input {broken} --variant edgeface_xxs", (("edgeface_xxs", "give a file of the authors"),)),
    "faces prepare": ("--images {broken} --out {tmp}/out", (("YuNet", "--detector"),)),
    "evaluate": ("--dataset-root {broken}", (FIRST,)),
    "enroll": ("--input {broken} --out {tmp}/gallery.npz", (FIRST, ("YuNet", "--detector"))),
}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def words(name: str, ears: Path, folder: Path) -> list[str]:
    """`broken` is a face set, and `file` annotations, that would be refused if they were read."""
    broken = folder / "broken"
    for split in ("train", "val", "test"):
        (broken / f"{split}_processed" / "hr_images").mkdir(parents=True, exist_ok=True)
    for file in ("file", "other"):
        (folder / f"{file}.json").write_text(f"no JSON: {file}")
    files = {"file": folder / "file.json", "other": folder / "other.json"}
    given = PROGRAMS[name][0].format(ears=ears, broken=broken, tmp=folder, **files)
    return [*name.split(), *given.split()]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", PROGRAMS)
def test_all_that_is_missing_is_named(
    name: str, ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(name, ear_set, tmp_path)) == 2
    line = only_line(capsys)
    for what, way in PROGRAMS[name][1]:
        assert what in line
        assert way in line
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.usefixtures("offline")
def test_the_evaluation_of_a_super_resolver_names_checkpoint_and_recognisers(
    face_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ("--vlr-size", VLR, "--base-channels", "8", "--residual-blocks", "1", "--batch-size", "8", "--epochs", "1")
    alone = ("--recognizer", "none", "--second-recognizer", "none", "--lambda-identity", "0")
    without = ("--lambda-feature-match", "0", "--lambda-perceptual", "0", *FEW)
    assert main(["dsr", "train", "--dataset-root", str(face_set), *train, *alone, *without]) == 0
    capsys.readouterr()
    (tmp_path / "damaged.ckpt").write_bytes(b"")
    given = ["--checkpoint", "dsr/checkpoints/last.ckpt", "damaged.ckpt", "--dataset-root", str(face_set)]
    assert main(["dsr", "evaluate", *given]) == 2
    line = only_line(capsys)
    assert all(part in line for part in ("damaged.ckpt", *FIRST, *SECOND))
    assert not (tmp_path / "dsr" / "evaluation").exists()


@pytest.mark.usefixtures("offline")
def test_what_the_line_advises_is_enough(ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*words("ears train", ear_set, tmp_path), *TINY, "--encoder", "resnet18", "--epochs", "1"]
    assert main(given) == 2
    line = only_line(capsys)
    advised = ("--encoder_weights", "none", "--perceptual-weight", "0")
    assert "--encoder-weights FILE" in line
    assert "or none" in line
    assert "--perceptual-weight 0" in line
    assert main([*given, *advised]) == 0


def training_from_file(program: str, ears: Path, folder: Path) -> tuple[list[str], Path]:
    """Words of a run of an epoch, checkpoints in folder/checkpoints, and the encoder's weights that it starts from."""
    weights = folder / "encoder.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), weights)
    if program == "ears train":
        data = ("--train-npy", str(ears / "train_teacher.npy"), "--val-npy", str(ears / "val_teacher.npy"))
        own = (*TINY, "--perceptual-weight", "0")
    else:
        drawn = [folder / split / "annotations.json" for split in ("train", "val")]
        for seed, file in enumerate(drawn):
            write_scene_set(file.parent, SceneSet(4, 96, 72, seed=seed))
        data = ("--train-json", str(drawn[0]), "--val-json", str(drawn[1]))
        own = ("--image-size", "64", "--crop-size", "32", *FEW)
    given = [*program.split(), *data, *own, "--encoder", "timm:test_vit", "--encoder-weights", str(weights)]
    given += ["--batch-size", "4", "--log-every-n-steps", "1", "--epochs", "1"]
    return [*given, "--checkpoint-dir", str(folder / "checkpoints")], weights


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("program", ["ears train", "ears detector train"])
def test_a_checkpoint_holds_the_weights_of_the_encoder(
    program: str, ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that continues one, or starts from one, does not look for what the first started from."""
    given, weights = training_from_file(program, ear_set, tmp_path)
    assert main(given) == 0
    weights.unlink()
    assert main([*given, "--epochs", "2"]) == 0
    first = (tmp_path / "checkpoints" / "last.ckpt").rename(tmp_path / "first.ckpt")
    assert main([*given, "--epochs", "3", "--resume", str(first)]) == 0
    assert main([*given, "--init-from", str(first), "--checkpoint-dir", str(tmp_path / "new")]) == 0
    capsys.readouterr()
    assert main([*given, "--checkpoint-dir", str(tmp_path / "another")]) == 2
    assert weights.name in only_line(capsys)


@pytest.mark.usefixtures("offline")
def test_a_detector_without_landmarks_holds_no_landmarkers_encoder(
    ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, weights = training_from_file("ears detector train", ear_set, tmp_path)
    assert main([*given, "--num-landmarks", "0"]) == 0
    weights.unlink()
    capsys.readouterr()
    start = ("--init-from", str(tmp_path / "checkpoints" / "last.ckpt"), "--checkpoint-dir", str(tmp_path / "new"))
    assert main([*given, *start]) == 2
    assert weights.name in only_line(capsys)


def started(arguments: Sequence[str], cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_process_says_it_in_one_line(ear_set: Path, tmp_path: Path) -> None:
    folders = ["--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")]
    done = started(["earface", *words("ears train", ear_set, tmp_path), *folders], tmp_path / "cache")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "resnet50.tv_in1k" in done.stderr
    assert "vgg16.tv_in1k" in done.stderr
