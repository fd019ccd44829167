"""Small real data and small real runs that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before numpy and torch start their threads: tiny arrays gain nothing from two, and a run in a process of its own
# must add up its numbers in the same order. No GPU unless it is asked for: the same numbers on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # benchmarks.settings gives more
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if not os.environ.get("EARFACE_TEST_CUDA"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
from hypothesis import settings

# the same examples in every run, and as long as they take on a busy machine
settings.register_profile("earface", derandomize=True, deadline=None, database=None)
settings.load_profile("earface")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU, and EARFACE_TEST_CUDA=1"))


@pytest.fixture(scope="session")
def ear_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train_teacher.npy (40 ears of 8 subjects) and val_teacher.npy (10 of 2), 64x64."""
    from earface.synthetic.ear_set import EarSet, write_ear_set

    folder = tmp_path_factory.mktemp("ears")
    write_ear_set(folder, EarSet(10, 5, 64, seed=3), val_fraction=0.2, num_workers=1, overwrite=True)
    return folder


TINY = (
    *("--encoder", "conv", "--base-channels", "4", "--image-size", "64", "--latent-dim", "8"),
    *("--linear-path-size", "16", "--batch-size", "4", "--precision", "32", "--lr", "1e-3"),
    *("--log-every-n-steps", "2", "--num-workers", "0", "--progress", "none", "--augment", "none"),
)


@pytest.fixture
def tiny(ear_set: Path, tmp_path: Path) -> list[str]:
    """Arguments of `ear_teacher.train` for a run of a second an epoch, logging under tmp_path."""
    return [
        *("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy")),
        *("--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")),
        *TINY,
    ]


PERCEPTUAL = "timm:test_resnet.r160_in1k"  # timm's own test model, 0.4 M parameters


@pytest.fixture(scope="session")
def perceptual(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that take a perceptual network from a file."""
    import timm
    import torch

    path = tmp_path_factory.mktemp("perceptual") / "weights.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model(PERCEPTUAL.removeprefix("timm:")).state_dict(), path)
    return ["--perceptual-backbone", PERCEPTUAL, "--perceptual-weights", str(path)]


@pytest.fixture
def nothing_compiled() -> Iterator[None]:
    """Nothing compiled before; backward without autocast, as it is where nothing is compiled."""
    import torch

    torch._dynamo.reset()
    with torch._functorch.config.patch(backward_pass_autocast="off"):
        yield
    torch._dynamo.reset()


VLR = "16"  # of face_set


@pytest.fixture(scope="session")
def face_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people with three faces and two with one: 19 to train, 6 of two people to validate, 7 to test."""
    from earface.data.prepare_faces import main as prepare
    from earface.synthetic.face_set import FaceSet, write_face_set

    folder = tmp_path_factory.mktemp("faces")
    write_face_set(folder / "drawn", FaceSet(12, 3, 128, seed=3))
    for subject in ("011", "012"):
        for path in sorted((folder / "drawn").rglob(f"{subject}_*.png"))[1:]:
            path.unlink()
    made = folder / "set"
    assert prepare(["--images", str(folder / "drawn"), "--aligned", "--out", str(made), "--vlr-size", VLR]) == 0
    return made


@pytest.fixture(scope="session")
def edgeface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of EdgeFace-XXS in the authors' layout, random."""
    from tests.support.edgeface import random_edgeface

    return random_edgeface(tmp_path_factory.mktemp("edgeface") / "xxs.pt", 0)


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """stderr, which holds one line."""
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error
