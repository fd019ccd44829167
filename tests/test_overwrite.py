"""No program replaces a file that is there unless it is told to, and none touches files that are not its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from earface.commands import COMMANDS, main
from earface.data.images import write_image
from tests.conftest import TINY, VLR, only_line

pytestmark = pytest.mark.runs

RESULTS = {  # arguments, and a file that would be written
    "ears prepare": ("--images {pictures} --out {out}", "val_teacher.npy"),
    "ears annotations": ("--boxes {file} --out {out}/a.json", "a_train.json"),
    "ears synthesize": ("--out {out}", "anything"),
    "ears scenes": ("--out {out}", "anything"),
    "ears evaluate": ("--checkpoint {file} --out {out}", "samples.png"),
    "ears extract": ("--checkpoint {file} --input {pictures} --out {out}/e.npz", "e.npz"),
    "ears sample": ("--checkpoint {file} --out {out}", "anything"),
    "ears eigenears": ("--checkpoint {file} --out {out}", "pc_3.png"),
    "ears detector evaluate": ("--checkpoint {file} --out {out}", "scores.png"),
    "ears detector predict": ("--checkpoint {file} --input {pictures} --out {out}", "overlays/p.png"),
    "ears recognize evaluate": ("--checkpoint {file} --npy {file} --out {out}", "metrics.json"),
    "ears recognize embed": ("--recognizer {file} --input {pictures} --out {out}/e.npz", "e.npz"),
    "faces prepare": ("--images {pictures} --aligned --out {out}", "anything"),
    "faces synthesize": ("--out {out}", "anything"),
    "faces embed": ("--input {pictures} --weights {file} --out {out}/e.npz", "e.npz"),
    "faces evaluate": ("--weights {file} --dataset-root {pictures} --out {out}", "metrics.json"),
    "dsr evaluate": ("--checkpoint {file} --dataset-root {pictures} --out {out}", "faces.png"),
    "dsr upscale": ("--checkpoint {file} --input {pictures} --out {out}", "p.png"),
    "enroll": ("--input {pictures} --recognizer {file} --out {out}/g.npz", "g.npz"),
    "identify": ("--input {pictures} --gallery {file} --out {out}", "candidates.png"),
    "evaluate": ("--dataset-root {pictures} --recognizer {file} --out {out}", "plots/16_bicubic_cmc.png"),
    "report": ("{pictures} --out {out}/p.html", "p.html"),
    "compare": ("{pictures} {pictures} --out {out}/p.html", "p.html"),
    "export ears": ("--checkpoint {file} --out {out}", "config.json"),
    "export detector": ("--checkpoint {file} --out {out}", "model.safetensors"),
    "export recognizer": ("--checkpoint {file} --out {out}", "ear_form.json"),
    "export dsr": ("--checkpoint {file} --out {out}", "dsr.onnx"),
    "export edgeface": ("--checkpoint {file} --out {out}", "edgeface.onnx"),
}
OTHERS = {  # what else a command writes
    "search": ("ears extract", "--checkpoint {file} --input {pictures} --search {pictures}/p.png --out {out}/e.npz"),
    "clusters": ("ears extract", "--checkpoint {file} --input {pictures} --clusters 2 --out {out}/e.npz"),
    "projector": ("ears extract", "--checkpoint {file} --input {pictures} --projector {out} --out {out}/e.npz"),
    "ears image grid": ("ears synthesize", "--out {out}/new --image-grid {out}/grid.png"),
    "faces image grid": ("faces synthesize", "--out {out}/new --image-grid {out}/grid.png"),
    "scenes image grid": ("ears scenes", "--out {out}/new --image-grid {out}/grid.png"),
    "fold": ("ears annotations", "--boxes {file} --folds 2 --out {out}/a.json"),
    "whole": ("ears annotations", "--boxes {file} --val-fraction 0 --out {out}/a.json"),
}
THERE = {
    "search": "e_search_p.png",
    "clusters": "e_clusters.png",
    "projector": "projector_config.pbtxt",
    "fold": "a_fold2_val.json",
    "whole": "a.json",
} | {name: "grid.png" for name in OTHERS if name.endswith("image grid")}
WRITE_NOTHING = {"ears check", "doctor", "gallery show", "gallery remove"}  # the last replaces what it is given
RESUME = {"ears train", "ears detector train", "ears recognize train", "faces finetune", "dsr train"}
NEW_FOLDER = {name for name, (_, file) in RESULTS.items() if file == "anything"}  # where nothing else may be


def words(name: str, arguments: str, folder: Path) -> list[str]:
    """`file` is one that is read as nothing, `pictures` holds a grey one."""
    write_image(folder / "pictures" / "p.png", np.full((128, 128, 3), 127, np.uint8))
    (folder / "file.ckpt").write_text("nothing")
    given = {"pictures": folder / "pictures", "file": folder / "file.ckpt", "out": folder / "out"}
    return [*name.split(), *arguments.format(**given).split()]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_command_is_looked_at() -> None:
    assert RESULTS.keys() | WRITE_NOTHING | RESUME == COMMANDS.keys()


@pytest.mark.parametrize("case", [*RESULTS, *OTHERS])
def test_a_file_that_is_there_is_not_replaced(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, (arguments, file) = (
        (case, RESULTS[case]) if case in RESULTS else (OTHERS[case][0], (OTHERS[case][1], THERE[case]))
    )
    given = words(name, arguments, tmp_path)
    put(tmp_path / "out" / file)
    assert main(given) == 2
    line = only_line(capsys)
    assert str(tmp_path / "out" if case in NEW_FOLDER else tmp_path / "out" / file) in line
    assert "--overwrite" in line
    assert contents(tmp_path / "out") == {tmp_path / "out" / file: b"mine"}


@pytest.mark.parametrize("name", sorted(RESULTS.keys() - NEW_FOLDER))
def test_other_files_are_not_in_the_way(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is given is refused for what it is, or not at all, and the folder keeps what is in it."""
    given = words(name, RESULTS[name][0], tmp_path)
    for file in ("notes.txt", "mine.png", "pc_notes.png", "plots/mine.png", "p.txt"):
        put(tmp_path / "out" / file)
    before = contents(tmp_path / "out")
    main(given)
    assert "--overwrite" not in capsys.readouterr().err
    assert before.items() <= contents(tmp_path / "out").items()


# Runs


@pytest.fixture(scope="module")
def models(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ear VAE of one epoch, vae/last.ckpt."""
    folder = tmp_path_factory.mktemp("models")
    files = [f"--train-npy={ear_set}/train_teacher.npy", f"--val-npy={ear_set}/val_teacher.npy"]
    places = [f"--checkpoint-dir={folder}/vae", f"--log-dir={folder}/logs"]
    assert main(["ears", "train", *TINY, "--epochs", "1", *files, *places]) == 0
    return folder


def again(given: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs it, runs it again, and again with --overwrite."""
    assert main(given) == 0
    first = contents(out)
    foreign = {out / name: b"mine" for name in ("notes.txt", "mine.png", "images/mine.png", "tensorboard/mine")}
    for path in foreign:
        put(path)
    capsys.readouterr()
    assert main(given) == 2
    assert "--overwrite" in only_line(capsys)
    assert contents(out) == first | foreign
    for path in first:
        if path.name != "faces.csv":  # which tells the pictures of a set of faces
            path.write_text("old")
    assert main([*given, "--overwrite"]) == 0
    found = contents(out)
    assert foreign.items() <= found.items()
    kept = [path.name for path, content in found.items() if content == b"old"]
    assert set(kept) <= {"README.md"}, "a model card, in which people write, is made once"


EARS = {
    "ears prepare": "--images {ears}/images --subject-pattern S\\d+ --out {out}",
    "ears annotations": "--coco {ears}/landmarks.json --images {ears} --split-by subject --out {out}/a.json",
    "ears synthesize": "--subjects 2 --images-per-subject 2 --image-size 32 --num-workers 1 --out {out} "
    "--image-grid {out}/s.png",
    "ears evaluate": "--checkpoint {models}/vae/last.ckpt --out {out}",
    "ears extract": "--checkpoint {models}/vae/last.ckpt --input {ears}/val_teacher.npy --clusters 2 --out {out}/e.npz "
    "--search {ears}/images/S0001_000.png",
    "ears eigenears": "--checkpoint {models}/vae/last.ckpt --components 2 --steps 5 --out {out}",
    "export ears": "--checkpoint {models}/vae/last.ckpt --format safetensors --out {out}",
}


@pytest.mark.parametrize("name", EARS)
def test_a_program_for_ears_replaces_only_what_it_wrote(
    name: str, ear_set: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = EARS[name].format(ears=ear_set, models=models, out=tmp_path / "out")
    again([*name.split(), *given.split()], tmp_path / "out", capsys)


FACES = {
    "faces prepare": "--images {faces}/../drawn --aligned --vlr-size 16 --out {out}",
    "faces embed": "--input {faces}/test_processed/hr_images --weights {edgeface} --out {out}/e.npz",
    "faces evaluate": "--weights {edgeface} --dataset-root {faces} --vlr-size 16 --num-workers 0 --out {out}",
    "identify": "--aligned --gallery {models}/g.npz --input {faces}/test_processed/hr_images --recognizer {edgeface} "
    "--out {out}",
    "enroll": "--aligned --input {faces}/test_processed/hr_images --recognizer {edgeface} --out {out}/g.npz",
    "evaluate": "--dataset-root {faces} --recognizer {edgeface} --vlr-size 16 --bootstrap 100 --num-workers 0 "
    "--out {out}",
    "dsr evaluate": "--checkpoint {models}/dsr/last.ckpt --dataset-root {faces} --recognizer none "
    "--second-recognizer none --num-workers 0 --out {out}",
    "dsr upscale": "--checkpoint {models}/dsr/last.ckpt --input {faces}/test_processed/vlr_images --compare "
    "--out {out}",
}


@pytest.fixture(scope="module")
def face_models(face_set: Path, edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a super-resolver of one epoch, dsr/last.ckpt, and a gallery, g.npz."""
    folder = tmp_path_factory.mktemp("face_models")
    shape = ["--vlr-size", VLR, "--base-channels", "8", "--residual-blocks", "1", "--batch-size", "8", "--epochs", "1"]
    alone = ["--recognizer", "none", "--second-recognizer", "none", "--lambda-identity", "0"]
    alone += ["--lambda-feature-match", "0", "--lambda-perceptual", "0"]
    few = ["--num-workers", "0", "--progress", "none", "--precision", "32"]
    places = [f"--checkpoint-dir={folder}/dsr", f"--log-dir={folder}/logs", f"--dataset-root={face_set}"]
    assert main(["dsr", "train", *shape, *alone, *few, *places]) == 0
    pictures = f"{face_set}/test_processed/hr_images"
    given = ["--aligned", "--input", pictures, "--recognizer", str(edgeface), "--out", f"{folder}/g.npz"]
    assert main(["enroll", *given]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FACES)
def test_a_program_for_faces_replaces_only_what_it_wrote(
    name: str, face_set: Path, edgeface: Path, face_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = FACES[name].format(faces=face_set, models=face_models, edgeface=edgeface, out=tmp_path / "out")
    again([*name.split(), *given.split()], tmp_path / "out", capsys)
