"""The form of the ears goes with the model: from data to checkpoint, to new pictures, and never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ear_teacher import EarVAE
from ear_teacher.datamodule import EarVAEDataModule
from ear_teacher.eigenears.create_eigenears import main as eigenears
from ear_teacher.embeddings.table import Embeddings, read_embeddings
from ear_teacher.evaluate import main as evaluate
from ear_teacher.extract import main as extract
from ear_teacher.train import main as train
from earface.data.ear_contract import EarContract
from earface.data.ear_networks import EarLandmarker
from earface.data.folders import list_images
from earface.data.images import read_image, write_image
from earface.data.prepare_ears import main as prepare
from earface.synthetic.ear_set import EarSet, write_ear_set
from tests.conftest import TINY, only_line
from tests.support.ear_boxes import write_fixed_boxes

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SUBJECT/NAME.png: 6 subjects with 4 synthetic ears each, as they come."""
    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("pictures")
    write_ear_set(made, EarSet(6, 4, 96, seed=77), num_workers=1)
    for path in list_images(made / "images"):
        write_image(folder / path.stem.split("_")[0] / path.name, read_image(path))
    return folder


@pytest.fixture(scope="module")
def sets(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pictures prepared in each form, by the form's name."""
    folder = tmp_path_factory.mktemp("sets")
    for fit in ("canonical", "letterbox", "stretch"):
        argv = ["--images", pictures, "--out", folder / fit, "--fit", fit, "--val-fraction", "0.34", "--size", "64"]
        assert prepare([*map(str, argv)]) == 0
    return {path.name: path for path in folder.iterdir()}


def run(data: Path, out: Path, *flags: object) -> int:
    files = ["--train-npy", data / "train_teacher.npy", "--val-npy", data / "val_teacher.npy"]
    folders = ["--checkpoint-dir", out / "checkpoints", "--log-dir", out / "logs"]
    return train([*map(str, [*files, *folders, *TINY, "--epochs", 1, "--perceptual-weight", 0, *flags])])


@pytest.fixture(scope="module")
def checkpoint(sets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run on canonical ears."""
    out = tmp_path_factory.mktemp("run")
    assert run(sets["canonical"], out, "--encoder-weights", "none") == 0
    return out / "checkpoints" / "last.ckpt"


def canonical() -> str:
    return EarContract.canonical(EarLandmarker()).id


def test_the_checkpoint_and_the_exported_folder_name_the_form(checkpoint: Path, tmp_path: Path) -> None:
    model = EarVAE.load(checkpoint)
    assert model.config.contract == canonical()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["image"]["ears"] == canonical()
    assert EarVAE.from_pretrained(tmp_path).config.contract == canonical()


def test_models_of_pictures_as_they_come_are_stored_as_ever(sets: dict[str, Path], tmp_path: Path) -> None:
    assert run(sets["stretch"], tmp_path, "--encoder-weights", "none") == 0
    model = EarVAE.load(tmp_path / "checkpoints" / "last.ckpt")
    assert model.config.contract == "stretch"
    model.save_pretrained(tmp_path / "folder")
    assert "ears" not in json.loads((tmp_path / "folder" / "config.json").read_text())["image"]


def embedded(checkpoint: Path, out: Path, *inputs: object) -> Embeddings:
    assert extract([*map(str, ["--checkpoint", checkpoint, "--out", out, "--input", *inputs])]) == 0
    return read_embeddings(out)


def test_new_pictures_are_brought_into_the_form(
    checkpoint: Path, pictures: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    """The same embedding, bit for bit, as of the ear that was prepared from the picture at this size."""
    prepared = embedded(checkpoint, tmp_path / "a.npz", sets["canonical"] / "ears")
    raw = embedded(checkpoint, tmp_path / "b.npz", pictures)
    own = {Path(path).stem: row for row, path in enumerate(prepared.paths)}
    shared = [(row, own[Path(path).stem]) for row, path in enumerate(raw.paths) if Path(path).stem in own]
    assert len(shared) >= 20
    for row, other in shared:
        np.testing.assert_array_equal(raw.embeddings[row], prepared.embeddings[other])
    assert raw.metadata["contract"] == canonical()


def test_the_teacher_file_and_the_folder_of_prepared_ears_give_the_same(
    checkpoint: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    folder = embedded(checkpoint, tmp_path / "a.npz", sets["canonical"] / "ears")
    files = embedded(
        checkpoint, tmp_path / "b.npz", *(sets["canonical"] / f"{part}_teacher.npy" for part in ("train", "val"))
    )
    order = [files.paths.index(path) for path in folder.paths]
    np.testing.assert_array_equal(files.embeddings[order], folder.embeddings)


def test_a_detector_finds_the_ears_of_photographs(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    photograph = np.full((384, 384, 3), 100, np.uint8)
    picture = read_image(list_images(pictures)[0])
    photograph[96:192, 192:288] = picture
    write_image(tmp_path / "photographs" / "one.png", photograph)
    detector = write_fixed_boxes(tmp_path / "boxes.onnx", [[32, 16, 48, 32]], [0.9])
    found = embedded(checkpoint, tmp_path / "a.npz", tmp_path / "photographs", "--detector", detector)
    alone = embedded(checkpoint, tmp_path / "b.npz", list_images(pictures)[0])
    first, second = found.embeddings[0], alone.embeddings[0]
    assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) > 0.9


def test_ears_in_another_form_are_refused_everywhere(
    checkpoint: Path, sets: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    other = sets["letterbox"] / "val_teacher.npy"
    for command, flags in (
        (evaluate, ["--val-npy", other, "--out", tmp_path / "a"]),
        (eigenears, ["--npy", other, "--out", tmp_path / "b"]),
        (extract, ["--input", other, "--out", tmp_path / "c.npz"]),
    ):
        capsys.readouterr()
        assert command([*map(str, ["--checkpoint", checkpoint, *flags])]) == 2
        assert "in the form letterbox" in only_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_training_and_validation_ears_are_of_one_form(sets: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    flags = ("--val-npy", sets["letterbox"] / "val_teacher.npy", "--encoder-weights", "none")
    assert run(sets["canonical"], tmp_path, *flags) == 2
    assert "prepare all alike" in only_line(capsys)


def test_a_run_does_not_go_on_with_ears_in_another_form(sets: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    import shutil

    shutil.copytree(sets["canonical"], tmp_path / "data")
    assert run(tmp_path / "data", tmp_path, "--encoder-weights", "none") == 0
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(sets["letterbox"], tmp_path / "data")
    capsys.readouterr()
    assert run(tmp_path / "data", tmp_path, "--encoder-weights", "none", "--epochs", 2) == 2
    assert "in the form letterbox, and the run began with canonical" in only_line(capsys)


def test_another_landmarker_is_refused(checkpoint: Path, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    import onnx

    from earface.data.ear_networks import EAR_LANDMARKS

    model = onnx.load(EAR_LANDMARKS)
    model.doc_string = "another"
    onnx.save(model, tmp_path / "other.onnx")
    argv = ["--checkpoint", checkpoint, "--input", pictures, "--landmarker", tmp_path / "other.onnx"]
    assert extract([*map(str, argv)]) == 2
    assert "not the one that the model's ears were aligned by" in only_line(capsys)


def test_canonical_ears_are_not_mirrored_in_training(sets: dict[str, Path]) -> None:
    """A picture with a dark left half stays dark on the left in every view."""
    from ear_teacher.config import EarVAETrainingConfig
    from earface.data.augmentation import Augmentation

    picture = np.full((64, 64, 3), 220, np.uint8)
    picture[:, :32] = 20
    mirrored = []
    for mirror in (True, False):
        views = [Augmentation("full", mirror=mirror)(picture, (1, key))[0].astype(int) for key in range(60)]
        mirrored.append(sum(view[16:48, :16].mean() > view[16:48, -16:].mean() for view in views))
    assert mirrored[0] > 15
    assert mirrored[1] == 0
    for fit, wanted in (("canonical", False), ("letterbox", True)):
        files = {f"{part}_npy": str(sets[fit] / f"{part}_teacher.npy") for part in ("train", "val")}
        data = EarVAEDataModule(EarVAETrainingConfig(**files, image_size=64, progress="none"))
        data.setup()
        steps = data.train_set.augmentation.view.transforms
        assert any(type(step).__name__ == "HorizontalFlip" for step in steps) == wanted
