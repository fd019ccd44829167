"""A super-resolver of a range of sizes: trained with more faces, and used with any size of the range."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from dsr import DSR, DSRConfig
from dsr.config import DSRTrainingConfig
from dsr.datamodule import DSRDataModule
from dsr.evaluate import main as evaluate
from dsr.inference import model_input, super_resolve
from dsr.onnx_export import write_onnx
from dsr.train_dsr import main, parsed
from dsr.upsampler import bicubic_upsample, build_dsr_upsampler
from dsr.upscale import main as upscale
from earface.core.errors import InputError
from earface.core.stopping import EXIT_PAUSED
from earface.data.augmentation import FaceAugmentation
from earface.data.degradation import bicubic, picture_key
from earface.data.face_sizes import VLRRange, parse_vlr_size
from earface.data.images import read_image
from earface.data.padded_faces import pad_batch, padded
from earface.data.pixels import interpolate, to_model_range, to_uint8
from earface.data.vlr_rule import VLRRule, misaligned, on_grid
from earface.nn.checkpoint import read_checkpoint
from earface.synthetic.face_set import FaceSet, write_face_set
from tests.conftest import only_line
from tests.dsr.conftest import ALONE, Arguments
from tests.earface.data.conftest import draw_picture
from tests.support.documents import PROJECT
from tests.support.training import assert_same, metric_rows, outcome

pytestmark = pytest.mark.runs

BLIND = {"vlr_size": "12-16", "degradation": "mixed", "misalignment": 0.5}
FLAGS = ("--vlr-size", "12-16", "--degradation", "mixed", "--misalignment", ".5")
SIZES = ((12, 12), (16, 16), (12, 16), (15, 13))  # height, width


def blind(vlr_size: str = "12-16") -> DSR:
    torch.manual_seed(0)
    model = DSR(DSRConfig(base_channels=8, residual_blocks=1, vlr_size=vlr_size)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    write_face_set(folder, FaceSet(5, 1, 128, seed=77))
    return folder


# The model


@torch.no_grad()
@pytest.mark.parametrize("vlr_size", ["12-16", "9-13"])  # of the second the grid lies outside
def test_faces_of_several_sizes_in_a_batch_are_each_as_if_the_network_saw_nothing_else(vlr_size: str) -> None:
    model = blind(vlr_size)
    assert model.config.grid == 16
    sizes = ((9, 13), (13, 12), (10, 10)) if vlr_size == "9-13" else SIZES
    faces = [torch.from_numpy(draw_picture(seed, *size)) for seed, size in enumerate(sizes)]
    together = model(torch.stack([padded(each, 16) for each in faces]))
    for face, found in zip(faces, together, strict=True):
        alone = to_model_range(face[None])
        maps = shallow = model.head(alone)
        for block in model.body:
            maps = block(maps)
        wanted = interpolate(alone, 128) + interpolate(model.tail(shallow + maps), 128)
        torch.testing.assert_close(found[None], wanted.clamp(-1, 1), rtol=0, atol=2e-6)
        torch.testing.assert_close(model(alone), found[None], rtol=0, atol=2e-6)
    assert (together[0] - model(pad_batch(to_model_range(faces[1][None]), 16))[0]).abs().max() > 0.1


@torch.no_grad()
def test_a_pixel_that_is_no_number_is_found_in_the_result() -> None:
    faces = torch.stack([padded(torch.from_numpy(draw_picture(seed, 14, 12)), 16) for seed in range(2)])
    faces[1, :, 5, 5] = torch.nan
    assert blind()(faces).isfinite().flatten(1).all(1).tolist() == [True, False]


@torch.no_grad()
def test_sizes_outside_the_range_raise_and_a_fixed_size_means_what_it_did() -> None:
    for height, width in ((11, 16), (16, 17), (32, 32)):
        with pytest.raises(ValueError, match=r"\(B, 3, h, w\), h and w in 12-16, or padded to 16, in \[-1, 1\] wanted"):
            blind()(torch.zeros(1, 3, height, width))
    fixed = blind("14x16")
    with pytest.raises(ValueError, match=r"\(B, 3, 16, 14\) in \[-1, 1\] wanted, not"):
        fixed(torch.zeros(1, 3, 16, 16))
    faces = to_model_range(torch.from_numpy(draw_picture(1, 16, 14)[None]))
    shallow = fixed.head(interpolate(faces, 16))
    wanted = interpolate(faces, 128) + fixed.tail(shallow + fixed.body(shallow))
    assert torch.equal(fixed(faces), wanted.clamp(-1, 1))  # from the face itself, not from the grid


def test_a_network_of_a_range_that_saw_faces_of_one_size_is_refused(
    face_set: Path, strangers: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    """As checkpoints of the time say nothing of what the blocks saw: to load, to start from and to go on with."""
    assert main(arguments(tmp_path, *FLAGS, "--stop-after-epoch", "1")) == EXIT_PAUSED
    path = tmp_path / "checkpoints" / "last.ckpt"
    DSR.load(path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["own_pixels"]
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=r"last\.ckpt: was trained on faces of several sizes interpolated to one"):
        DSR.load(path)
    for given in ((tmp_path, *FLAGS), (tmp_path / "new", *FLAGS, "--init-from", str(path))):
        capsys.readouterr()
        assert main(arguments(*given)) == 2
        assert "was trained on faces of several sizes interpolated to one" in only_line(capsys)


def test_a_folder_of_a_range_comes_back_and_names_its_rule(tmp_path: Path) -> None:
    model = blind()
    model.save_pretrained(tmp_path)
    loaded = DSR.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert isinstance(loaded.config.vlr, VLRRange)
    image = json.loads((tmp_path / "config.json").read_text())["image"]
    assert (image["sizes"], image["width"], image["height"]) == ([12, 16], 16, 16)
    assert "top left corner" in image["padding"]


# Training


def module_of(root: Path, **changes: object) -> DSRDataModule:
    options = {"dataset_root": str(root), "batch_size": 8, "num_workers": 0, "seed": 5, "augment": "full"} | BLIND
    datamodule = DSRDataModule(DSRTrainingConfig(**{**options, **changes}))  # type: ignore[arg-type]
    datamodule.setup("fit")
    return datamodule


def test_views_of_every_face_are_made_by_its_key_with_any_workers(face_set: Path, strangers: Path) -> None:
    """Extra faces too; the augmented HR face, moved, is the target, and VLR is made of it."""
    views = {}
    for workers in (0, 2):
        datamodule = module_of(face_set, extra_hr=(str(strangers),), num_workers=workers, batch_size=6 + workers)
        rows, loader = datamodule.train_set.rows, datamodule.train_dataloader()
        assert len(rows) == 19 + 5
        assert [row.identity for row in rows[19:]] == [""] * 5
        assert len(datamodule.trained_on) == len({row.identity for row in rows[:19]})
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            for batch in loader:
                made = datamodule.on_after_batch_transfer(batch, 0)
                for index, hr, vlr in zip(made["index"].tolist(), made["hr"], made["vlr"], strict=True):
                    views.setdefault((epoch, index), []).append((hr, vlr))
    assert len(views) == 2 * 24
    rule, augmentation = VLRRule("mixed", VLRRange(12, 16), 0.5), FaceAugmentation("full")
    for (epoch, index), found in views.items():
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0, equal_nan=True)
        (picture,) = augmentation([read_image(rows[index].path)], (5, epoch, index))
        key = (5, epoch + 1, index)
        moved = misaligned(picture, rule.size_of(key), 0.5, key)
        assert torch.equal(found[0][0], to_model_range(torch.from_numpy(moved[None]))[0])
        torch.testing.assert_close(found[0][1], padded(rule(picture, key), 16), rtol=0, atol=0, equal_nan=True)


def test_validation_faces_are_the_same_in_every_epoch(face_set: Path) -> None:
    datamodule = module_of(face_set)
    (batch,) = datamodule.val_dataloader()
    rule = VLRRule("mixed", VLRRange(12, 16))  # aligned
    for row, vlr in zip(datamodule.val_set.rows, batch["vlr"], strict=True):
        wanted = padded(rule(read_image(row.path), picture_key(5, row.path.stem)), 16)
        torch.testing.assert_close(vlr, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_a_blind_run_resumes_exactly_measures_single_sizes_and_refuses_other_extra_faces(
    face_set: Path, strangers: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (*FLAGS, "--extra-hr", str(strangers))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(arguments(whole, *given)) == 0
    assert main(arguments(parts, *given, "--stop-after-epoch", "1")) == EXIT_PAUSED
    extra = strangers / "another.png"
    Image.fromarray(draw_picture(3, 128, 128)).save(extra)
    capsys.readouterr()
    assert main(arguments(parts, *given)) == 2
    assert "the faces of --extra-hr are not those that the run began with (5 then, 6 now, 5 the same)" in only_line(
        capsys
    )
    extra.unlink()
    assert main(arguments(parts, *given, "--num-workers", "1")) == 0
    for one, other in zip(outcome(whole), outcome(parts), strict=True):
        assert_same(one, other)
    (*_, row) = [row for row in metric_rows(whole) if "val/loss" in row]
    assert {"val/psnr_16", "val/cosine_16", "val/psnr", "val/cosine"} <= row.keys()
    model = DSR.load(whole / "checkpoints" / "last.ckpt")
    faces = [read_image(path)[None] for path in sorted((face_set / "val_processed" / "hr_images").iterdir())]
    hr = to_model_range(torch.from_numpy(np.concatenate(faces)))
    with torch.no_grad():
        errors = (model(bicubic(hr, parse_vlr_size("16"))) - hr).square().mean(dim=(1, 2, 3)) / 4
    assert row["val/psnr_16"] == pytest.approx(float((-10 * errors.log10()).mean()), abs=1e-3)
    assert read_checkpoint(whole / "checkpoints" / "last.ckpt")["data"]["extra"].shape == (5, 2)
    assert model.provenance.degradation == "mixed"


# Use


def test_faces_of_any_size_are_upscaled_as_alone(tmp_path: Path) -> None:
    """Inside the range as they are; others, if square, at the nearest size in it."""
    model, small = blind(), tmp_path / "small"
    model.save_pretrained(tmp_path / "model")
    small.mkdir()
    for number, (height, width) in enumerate(SIZES):
        Image.fromarray(draw_picture(number, height, width)).save(small / f"{height}x{width}.png")
    for side in (8, 60):
        Image.fromarray(draw_picture(side, side, side)).save(small / f"{side}.png")
    options = ["--checkpoint", str(tmp_path / "model"), "--input", str(small), "--out", str(tmp_path / "out")]
    assert upscale([*options, "--device", "cpu", "--compare"]) == 0
    faces = sorted(small.iterdir())
    for path in faces:
        picture = read_image(path)
        if path.stem.isdecimal():
            side = 12 if path.stem == "8" else 16
            resized = bicubic(to_model_range(torch.from_numpy(picture[None])), parse_vlr_size(str(side)))
            picture = to_uint8(resized[0]).numpy()
        given = to_model_range(torch.from_numpy(picture[None]))
        wanted = to_uint8(super_resolve(model, given)[0]).numpy()
        assert np.array_equal(read_image(tmp_path / "out" / path.name), wanted), path.name
    together = model.upscale([read_image(path) for path in faces])
    assert all(
        np.array_equal(read_image(tmp_path / "out" / path.name), own) for path, own in zip(faces, together, strict=True)
    )
    with pytest.raises(InputError, match="9x12 is not square"):
        model.upscale([draw_picture(1, 12, 9)])


def test_an_upsampler_of_a_range_takes_what_lies_in_it(tmp_path: Path) -> None:
    blind().save_pretrained(tmp_path)
    for given in ("12", "14x16", "12-16", "13-14", None):
        upsampler = build_dsr_upsampler(str(tmp_path), vlr_size=given)
        assert upsampler.vlr == VLRRange(12, 16)
    for given in ("11", "24", "12-17"):
        with pytest.raises(InputError, match=f"takes 12-16 px, not {given}: give `vlr_size` 12-16"):
            build_dsr_upsampler(str(tmp_path), vlr_size=given)
    faces = [draw_picture(number, *size) for number, size in enumerate(SIZES)]
    together = upsampler.enlarge(model_input(faces, blind().config))
    for face, enlarged in zip(faces, together, strict=True):
        assert torch.equal(upsampler.enlarge(to_model_range(torch.from_numpy(face[None])))[0], enlarged)
        pixels = torch.from_numpy(face)
        assert torch.equal(on_grid(pixels, 128), bicubic_upsample(to_model_range(pixels[None]))[0])


def test_a_blind_model_is_evaluated_at_any_size_of_its_range(
    face_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("blind", "12-16"), ("fixed", "16")):
        blind(size).save_pretrained(tmp_path / name)
    capsys.readouterr()

    def run(*given: str) -> int:
        options = ["--dataset-root", str(face_set), "--recognizer", "none", "--second-recognizer", "none"]
        options += ["--device", "cpu", "--num-workers", "0", "--out", str(tmp_path / "out"), "--overwrite"]
        return evaluate([*options, "--checkpoint", *given])

    both = [str(tmp_path / "blind"), str(tmp_path / "fixed")]
    found = {}
    for size in ("12", "14x16", "16", None):
        assert run(both[0], *(["--vlr-size", size] if size else [])) == 0
        report = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert report["vlr_size"] == (size or "12-16")
        found[size] = report["figures"]["blind"]["psnr"]
    assert len(set(found.values())) == 4
    assert run(*both, "--vlr-size", "16") == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["figures"]["blind"]["psnr"] == found["16"]
    model, errors = DSR.load(both[0]), []
    for path in sorted((face_set / "test_processed" / "hr_images").iterdir()):
        hr = to_model_range(torch.from_numpy(read_image(path)[None]))
        with torch.no_grad():
            errors.append(float((model(bicubic(hr, parse_vlr_size("14x16"))) - hr).square().mean() / 4))
    assert found["14x16"] == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-4)
    capsys.readouterr()
    for given, message in (
        ((both[0], "--vlr-size", "24"), "takes 12-16 px, not 24"),
        ((*both,), f"{both[1]}: takes 16 px and {both[0]} 12-16; give one size at a time"),
        ((both[0], "--vlr-size", "16-12"), "--vlr-size: VLR sizes '16-12': from the smaller to the larger"),
        ((both[0], "--degradation", "files"), "--vlr-size 12-16: a set's own VLR pictures (--degradation files)"),
    ):
        assert run(*given) == 2
        assert message in only_line(capsys)


def test_onnx_takes_padded_faces_and_says_so(tmp_path: Path) -> None:
    model = blind("9-13")
    write_onnx(tmp_path, model, tolerance=1e-4)
    session = onnxruntime.InferenceSession(str(tmp_path / "dsr.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 16, 16]
    about = {each.key: each.value for each in onnx.load(str(tmp_path / "dsr.onnx")).metadata_props}
    image = json.loads(about["image"])
    assert (about["vlr_size"], image["width"], image["height"], image["sizes"]) == ("9-13", 16, 16, [9, 13])
    face = draw_picture(2, 9, 12)
    (found,) = session.run(["sr"], {"vlr": model_input([face], model.config).numpy()})
    with torch.no_grad():
        wanted = model(to_model_range(torch.from_numpy(face[None])))
    assert np.abs(found - wanted.numpy()).max() < 1e-4


# What is wrong


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--vlr-size", "32-14"), "--vlr-size: VLR sizes '32-14': from the smaller to the larger, such as 14-32"),
        (("--vlr-size", "7-32"), "--vlr-size: VLR sizes '7-32' are out of range: 8 to 64 pixels"),
        (("--vlr-size", "14-32", "--degradation", "files"), "--vlr-size 14-32: a set's own VLR pictures"),
        (("--misalignment", ".5", "--degradation", "files"), "--misalignment 0.5: VLR pictures of a set"),
        (("--misalignment", "3"), "--misalignment 3.0: must be at least 0 and at most 2"),
        (("--extra-hr", "nowhere"), "--extra-hr nowhere: no such folder"),
        (("--extra-hr", ".", "--degradation", "files"), "--extra-hr .: its faces have no VLR pictures"),
    ],
)
def test_wrong_options_are_one_line(
    given: tuple[str, ...], message: str, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, *ALONE, *given)) == 2
    assert message in only_line(capsys)


def test_an_empty_folder_of_extra_faces_is_one_line(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(arguments(tmp_path, *ALONE, "--extra-hr", str(tmp_path / "empty"))) == 2
    assert "--extra-hr" in (line := only_line(capsys))
    assert "empty: holds no pictures" in line


def test_the_pair_of_configurations_fits_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one range, and with one cause of chance; the second reads the checkpoint that the first writes."""
    from facial_rec.finetune_edgeface import parsed as parsed_finetuning

    monkeypatch.chdir(PROJECT)
    first = parsed(["--config", "configs/dsr_blind.yaml"])
    second = parsed_finetuning(["--config", "configs/edgeface_blind.yaml"])
    for name in ("vlr_size", "degradation", "extra_hr", "dataset_root"):
        assert getattr(first, name) == getattr(second, name), name
    assert (str(first.vlr), first.grid, first.base_channels, first.residual_blocks) == ("14-32", 32, 64, 12)
    assert second.dsr_checkpoint == f"{first.checkpoint_dir}/last.ckpt"
