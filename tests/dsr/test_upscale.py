"""Small faces to PNG files: the same pixels however they are asked for, and nothing lost or overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dsr import DSR, DSRConfig
from dsr.inference import INFERENCE_BATCH, at_size, super_resolve
from dsr.upscale import main
from earface.data.face_sizes import VLRSize
from earface.data.image_grid import LABEL_WIDTH
from earface.data.images import Pixels, read_image
from tests.conftest import only_line
from tests.earface.data.conftest import draw_picture

pytestmark = pytest.mark.runs

COUNT = 11  # over INFERENCE_BATCH


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model at random weights for 14x16 whose correction is plain to see."""
    return saved(tmp_path_factory.mktemp("model") / "last.ckpt", "14x16")


def saved(path: Path, vlr_size: str, scale: float = 3.0) -> Path:
    """averaged: as it stands; raw: another tail."""
    torch.manual_seed(0)
    model = DSR(DSRConfig(base_channels=8, residual_blocks=1, vlr_size=vlr_size))
    with torch.no_grad():
        model.tail.conv.weight.mul_(scale)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    raw = state | {"model.tail.conv.weight": -state["model.tail.conv.weight"]}
    options = {"base_channels": 8, "residual_blocks": 1, "vlr_size": vlr_size}
    torch.save({"state_dict": state, "current_model_state": raw, "hyper_parameters": {"dsr": options}}, path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """COUNT faces of 14x16 in sub-folders."""
    for number in range(COUNT):
        path = tmp_path / "small" / f"p{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_picture(number, 16, 14)).save(path)
    return tmp_path / "small"


def upscale(checkpoint: Path, given: Path, out: Path, *extra: str) -> int:
    return main(["--checkpoint", str(checkpoint), "--input", str(given), "--out", str(out), "--device", "cpu", *extra])


def results(out: Path) -> dict[str, Pixels]:
    return {path.relative_to(out).as_posix(): read_image(path) for path in sorted(out.rglob("*.png"))}


def by_hand(checkpoint: Path, picture: Pixels, weights: str = "averaged") -> np.ndarray:
    """(128, 128, 3) float, 0 to 255."""
    model = DSR.load_from_checkpoint(checkpoint, weights=weights)
    vlr = torch.from_numpy(picture.astype(np.float32) / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        return ((model(vlr)[0].permute(1, 2, 0).numpy() + 1) / 2 * 255).astype(np.float64)


def test_a_folder_becomes_the_models_faces_in_the_same_folders(checkpoint: Path, small: Path, tmp_path: Path) -> None:
    assert upscale(checkpoint, small, tmp_path / "out") == 0
    found = results(tmp_path / "out")
    assert found.keys() == {f"p{number % 3}/{number}.png" for number in range(COUNT)}
    for name, picture in found.items():
        wanted = by_hand(checkpoint, read_image(small / name))
        assert picture.shape == (128, 128, 3)
        assert np.abs(picture - wanted).max() <= 0.5 + 1e-3
        enlarged = cv2.resize(read_image(small / name), (128, 128), interpolation=cv2.INTER_CUBIC)
        assert np.abs(picture.astype(int) - enlarged).mean() > 2
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_the_pixels_depend_on_the_face_alone(checkpoint: Path, small: Path, tmp_path: Path) -> None:
    """Bit for bit: not on what else is there, nor on the batch."""
    assert upscale(checkpoint, small, tmp_path / "all") == 0
    for size in ("1", "3", "9"):
        assert upscale(checkpoint, small, tmp_path / size, "--batch-size", size) == 0
        for name, picture in results(tmp_path / "all").items():
            assert (tmp_path / size / name).read_bytes() == (tmp_path / "all" / name).read_bytes()
            assert picture.std() > 5
    assert upscale(checkpoint, small / "p1" / "4.png", tmp_path / "alone") == 0
    assert (tmp_path / "alone" / "4.png").read_bytes() == (tmp_path / "all" / "p1" / "4.png").read_bytes()


def test_on_a_cpu_16_is_bf16(checkpoint: Path) -> None:
    model = DSR.load_from_checkpoint(checkpoint)
    vlr = torch.rand(2, 3, model.config.vlr.height, model.config.vlr.width) * 2 - 1
    assert torch.equal(super_resolve(model, vlr, "16"), super_resolve(model, vlr, "bf16"))


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_face_in_any_batch_is_the_face_alone_before_rounding(checkpoint: Path, precision: str) -> None:
    model = DSR.load_from_checkpoint(checkpoint)
    vlr = torch.rand(INFERENCE_BATCH + 3, 3, 16, 14, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = super_resolve(model, vlr, precision)
    for index in (0, 5, INFERENCE_BATCH, INFERENCE_BATCH + 2):
        assert torch.equal(super_resolve(model, vlr[index : index + 1], precision)[0], together[index])
    assert together.dtype == torch.float32
    assert (together - super_resolve(model, vlr)).abs().max() < 0.05
    assert torch.equal(together, super_resolve(model, vlr)) == (precision == "32")


def test_other_sizes_and_kinds_of_pictures_are_resized_and_counted(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Pillow's bicubic does, up to rounding, the way VLR faces are made; grey and transparent ones become RGB."""
    given, large = tmp_path / "given", draw_picture(1, 200, 200)
    given.mkdir()
    Image.fromarray(draw_picture(0, 16, 14)).save(given / "fits.png")
    Image.fromarray(large).save(given / "large.png")
    Image.fromarray(large[:10, :10]).save(given / "tiny.png")
    Image.fromarray(large[:40, :35]).save(given / "same_proportions.png")
    Image.fromarray(large).convert("L").save(given / "grey.jpg", quality=95)
    transparent = Image.fromarray(large).convert("RGBA")
    transparent.putalpha(128)
    transparent.save(given / "transparent.png")
    assert upscale(checkpoint, given, tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "4 of 6 faces are larger than the super-resolver takes, 14x16 px (such as" in said.err
    assert "1 of 6 faces are smaller than the super-resolver takes, 14x16 px (such as" in said.err
    assert "tiny.png, 10x10), and are enlarged to it first" in said.err
    assert "3 of 6 pictures are larger than aligned faces usually are" in said.err
    assert "200x200): if they are photographs, align their faces first" in said.err
    found = results(tmp_path / "out")
    assert found.keys() == {
        f"{name}.png" for name in ("fits", "large", "tiny", "same_proportions", "grey", "transparent")
    }
    pictures = {
        "large": large,
        "tiny": large[:10, :10],
        "same_proportions": large[:40, :35],
        "grey": read_image(given / "grey.jpg"),
        "transparent": read_image(given / "transparent.png"),
    }
    for name, picture in pictures.items():
        vlr = Image.fromarray(picture).resize((14, 16), Image.Resampling.BICUBIC)
        assert np.abs(at_size(picture, VLRSize(14, 16)).astype(int) - np.asarray(vlr)).max() <= 1, name
        wanted = by_hand(checkpoint, at_size(picture, VLRSize(14, 16)))
        assert np.abs(found[f"{name}.png"] - wanted).max() <= 0.5 + 1e-3, name


def test_a_face_that_is_not_square_is_not_stretched(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CelebA's 178x218, and the model's own size lying on its side."""
    given = tmp_path / "given"
    given.mkdir()
    Image.fromarray(draw_picture(0, 218, 178)).save(given / "celeba.png")
    assert upscale(checkpoint, given, tmp_path / "out") == 2
    assert "celeba.png: 178x218 is not square; an aligned face is (earface faces prepare)" in only_line(capsys)
    Image.fromarray(draw_picture(0, 14, 16)).save(given / "celeba.png")
    for number in range(19):
        Image.fromarray(draw_picture(0, 16, 14)).save(given / f"{number:02d}.png")
    assert upscale(checkpoint, given, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "1 of 20 pictures cannot be used and are left out:" in said
    assert "celeba.png: 16x14 is not square" in said


@pytest.mark.parametrize("size", [(32, 32), (14, 16), (16, 14)])
def test_a_picture_of_the_right_size_is_taken_as_it_is(size: tuple[int, int]) -> None:
    picture = draw_picture(0, size[1], size[0])
    assert at_size(picture, VLRSize(*size)) is picture


def test_compare_shows_vlr_bicubic_and_dsr(checkpoint: Path, small: Path, tmp_path: Path) -> None:
    assert upscale(checkpoint, small, tmp_path / "out", "--compare") == 0
    grid = read_image(tmp_path / "out" / "compare.png")
    assert grid.shape == (3 * 130, LABEL_WIDTH + COUNT * 130, 3)
    first = slice(LABEL_WIDTH, LABEL_WIDTH + 128)
    dsr = read_image(tmp_path / "out" / "p0" / "0.png")
    assert np.abs(grid[260:388, first].astype(int) - dsr).max() <= 1
    enlarged = cv2.resize(read_image(small / "p0" / "0.png"), (128, 128), interpolation=cv2.INTER_CUBIC)
    assert np.abs(grid[130:258, first].astype(int) - enlarged).max() <= 1


def test_raw_weights_are_the_last_steps(checkpoint: Path, small: Path, tmp_path: Path) -> None:
    face = small / "p0" / "0.png"
    assert upscale(checkpoint, face, tmp_path / "raw", "--weights", "raw") == 0
    wanted = by_hand(checkpoint, read_image(face), "raw")
    assert np.abs(read_image(tmp_path / "raw" / "0.png") - wanted).max() <= 0.5 + 1e-3
    assert np.abs(wanted - by_hand(checkpoint, read_image(face))).mean() > 2


def test_a_pattern_stands_for_its_newest_match(checkpoint: Path, small: Path, tmp_path: Path) -> None:
    for given, out in ((checkpoint, "path"), (checkpoint.parent / "*.ckpt", "pattern")):
        assert upscale(given, small / "p0", tmp_path / out) == 0
    first, second = results(tmp_path / "path"), results(tmp_path / "pattern")
    assert all(np.array_equal(second[name], picture) for name, picture in first.items())


def test_an_exported_folder_gives_the_same_pixels(checkpoint: Path, small: Path, tmp_path: Path) -> None:
    DSR.load_from_checkpoint(checkpoint).save_pretrained(tmp_path / "exported")
    assert upscale(checkpoint, small, tmp_path / "a") == 0
    assert upscale(tmp_path / "exported", small, tmp_path / "b") == 0
    first, second = results(tmp_path / "a"), results(tmp_path / "b")
    assert len(first) == COUNT
    assert all(np.array_equal(second[name], picture) for name, picture in first.items())


# What is in the way


def test_unreadable_pictures_are_listed_and_over_5_percent_stop_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for number in range(20):
        Image.fromarray(draw_picture(0, 16, 14)).save(given / f"{number:02d}.png")
    (given / "broken.jpg").write_bytes(b"no picture")
    assert upscale(checkpoint, given, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "1 of 21 pictures cannot be used and are left out:" in said
    assert "broken.jpg: not a picture that can be read" in said
    assert len(results(tmp_path / "out")) == 20
    shutil.copy(given / "broken.jpg", given / "another.png")
    assert upscale(checkpoint, given, tmp_path / "more") == 2
    assert "2 or more of 22 pictures cannot be used, over 5%: " in only_line(capsys)
    assert not (tmp_path / "more").exists()


def test_nothing_is_overwritten_unless_asked(
    checkpoint: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "p2").mkdir(parents=True)
    for name in ("p2/2.png", "compare.png", "mine.txt"):
        (out / name).write_bytes(b"mine")
    assert upscale(checkpoint, small, out, "--compare") == 2
    assert f"{out / 'p2' / '2.png'}: is there already, and 1 more; --overwrite" in only_line(capsys)
    assert {path.read_bytes() for path in out.rglob("*.*")} == {b"mine"}
    assert upscale(checkpoint, small, out, "--compare", "--overwrite") == 0
    assert len(results(out)) == COUNT + 1
    assert (out / "mine.txt").read_bytes() == b"mine"
    assert upscale(checkpoint, small / "p0" / "0.png", out) == 0
    assert upscale(checkpoint, small / "p0" / "0.png", out) == 2
    assert "0.png: is there already; --overwrite" in only_line(capsys)


@pytest.mark.parametrize(
    ("names", "extra", "message"),
    [
        (["a.png", "a.jpg"], [], "would become OUT/a.png, as would"),
        (["b/a.png", "b/A.png"], [], "rename one of them"),
        (["compare.jpg"], ["--compare"], "as would the image grid of --compare"),
    ],
)
def test_two_pictures_never_become_one_file(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: Sequence[str],
    extra: list[str],
    message: str,
) -> None:
    given, out = tmp_path / "given", tmp_path / "out"
    for name in names:
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_picture(0, 16, 14)).save(given / name)
    if len({path.name for path in given.rglob("*.*")}) < len(names):
        pytest.skip("this file system takes A.png for a.png")
    assert upscale(checkpoint, given, out, *extra) == 2
    assert message.replace("OUT", str(out)) in only_line(capsys)
    assert not out.exists()


def test_pictures_that_are_read_are_never_replaced(
    checkpoint: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in small.rglob("*.png")}
    for given, out, message in (
        (small, small / "out", "lies in --input"),
        (small, small, "lies in --input"),
        (small / "p0" / "0.png", small / "p0", "is one of the pictures that are read"),
    ):
        assert upscale(checkpoint, given, out, "--overwrite") == 2
        assert message in only_line(capsys)
    assert {path: path.read_bytes() for path in small.rglob("*.png")} == before


def test_weights_that_are_not_finite_are_one_line(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = saved(tmp_path / "broken.ckpt", "14x16", float("nan"))
    assert upscale(broken, small, tmp_path / "out") == 2
    assert "pixels that are not finite: its weights are damaged" in only_line(capsys)
    assert results(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--input", ""], "--input: give a picture or a folder of faces"),
        (["--out", ""], "--out: give a folder"),
        (["--input", "{here}/nowhere"], "nowhere: no such file or folder"),
        (["--input", "{here}/empty"], "empty: holds no pictures"),
        (["--input", "{here}/notes.txt"], "notes.txt: neither a picture"),
        (["--out", "{here}/notes.txt"], "notes.txt is a file; give a folder"),
        (["--out", "{here}/notes.txt/below"], "notes.txt is a file; give a folder"),
        (["--checkpoint", "{here}/none.ckpt"], "none.ckpt: no such checkpoint"),
        (["--checkpoint", "{here}/notes.txt"], "notes.txt: not a readable checkpoint"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--precision", "8"], "--precision 8: choose one of 32, 16, bf16"),
        (["--device", "cuda"], "--device cuda: PyTorch sees no GPU here"),
        (["--frobnicate", "1"], "frobnicate"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    checkpoint: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    given = [word.format(here=tmp_path) for word in extra]
    assert upscale(checkpoint, small, tmp_path / "out", *given) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()
