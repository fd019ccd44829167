"""Ears in the canonical form, and a recogniser trained on them, that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

FORMS = ("canonical", "letterbox")


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SUBJECT/NAME.png: 6 subjects with 4 synthetic ears each, as they come."""
    from earface.data.folders import list_images
    from earface.data.images import read_image, write_image
    from earface.synthetic.ear_set import EarSet, write_ear_set

    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("crops")
    write_ear_set(made, EarSet(6, 4, 96, seed=77), num_workers=1)
    for path in list_images(made / "images"):
        write_image(folder / path.stem.split("_")[0] / path.name, read_image(path))
    return folder


@pytest.fixture(scope="session")
def prepared_crops(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of FORMS, in which the crops are prepared at 64 px."""
    from earface.data.prepare_ears import main as prepare

    folder = tmp_path_factory.mktemp("prepared")
    for fit in FORMS:
        argv = ["--images", crops, "--out", folder / fit, "--fit", fit, "--val-fraction", "0.34", "--size", "64"]
        assert prepare([*map(str, argv)]) == 0
    return folder


@pytest.fixture(scope="session")
def ear_recognizer(prepared_crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """last.ckpt of an ear recogniser of 12 epochs on canonical ears: enough that it tells them apart."""
    from tests.ear_teacher.recognition.test_training import run

    folder = tmp_path_factory.mktemp("recognizer")
    flags = ("--epochs", 12, "--ema-decay", 0, "--margin", 0)
    assert run(prepared_crops / "canonical", folder, *flags) == 0
    return folder / "checkpoints" / "last.ckpt"
