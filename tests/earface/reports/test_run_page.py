"""A run's page: what it says, that it needs nothing else, and runs that are not as they should be."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from ear_teacher.train import main as train
from earface.commands import main
from earface.core.errors import InputError
from earface.data.npy import read_teacher_npy
from earface.metrics.image_quality import psnr
from earface.reports.metric_names import metric
from earface.reports.run_folder import RunFolder, best_row, by_step, read_rows
from earface.reports.run_page import headlines
from tests.conftest import TINY, only_line
from tests.support.training import metric_rows

pytestmark = pytest.mark.runs


def training(ear_set: Path, folder: Path, *more: str) -> int:
    files = ("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy"))
    places = ("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs"))
    usual = ("--perceptual-weight", "0", "--cache-dir", str(folder / "cache"), "--epochs", "3")
    return train([*files, *places, *TINY, *usual, *more])


@pytest.fixture(scope="module")
def finished(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces and letters beyond ASCII, as people have."""
    folder = tmp_path_factory.mktemp("my ears éß") / "run"
    assert training(ear_set, folder, "--backbone-lr-scale", "0.5") == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def logs(folder: Path) -> Path:
    return folder / "logs" / "ear_vae" / "version_0"


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_training_ends_with_a_page_that_needs_no_other_file(finished: Path) -> None:
    page = logs(finished) / "report.html"
    assert page.stat().st_size < 5_000_000
    found = Elements(page)
    sources = [attributes.get("src") or attributes.get("href") for tag, attributes in found.tags if tag != "a"]
    assert all(source.startswith("data:image/") for source in sources if source)
    assert "http" not in re.sub(r"data:[^\"]*", "", page.read_text()).replace("http-equiv", "")
    shown = [each for tag, each in found.tags if tag == "img" and "data-epoch" in each]
    assert {each["data-epoch"] for each in shown} == {"1", "2", "3"}
    # without scripts the last epoch's is what one sees
    assert {each["data-epoch"] for each in shown if "hidden" not in each} == {"3"}
    for fact in ("complete, 3 of 3 epochs", "backbone_lr_scale", "pixel PCA, 8 components", "EarVAE.load("):
        assert fact in found.text
    assert f"earface ears evaluate --checkpoint '{finished / 'checkpoints'}'" in found.text


def test_the_headline_is_the_best_epochs_beside_pca_of_the_training_ears(finished: Path, ear_set: Path) -> None:
    """PCA by scikit-learn on the same pixels."""
    run = RunFolder.read(finished)
    rows = [row for row in metric_rows(finished) if "val/loss" in row]
    best = min(rows, key=lambda row: row["val/loss"])
    assert run.best == best
    shown = {each.metric.title: each for each in headlines(run)}
    assert list(shown) == ["PSNR", "SSIM", "active latents"]
    assert shown["PSNR"].value == f"{best['val/psnr']:.2f} dB"

    train_pixels, val_pixels = (pixels_of(ear_set / f"{name}_teacher.npy") for name in ("train", "val"))
    pca = PCA(8, svd_solver="full").fit(train_pixels.reshape(len(train_pixels), -1) / 127.5 - 1)
    decoded = pca.inverse_transform(pca.transform(val_pixels.reshape(len(val_pixels), -1) / 127.5 - 1))
    unit, target = (
        torch.from_numpy(pixels.reshape(val_pixels.shape)).permute(0, 3, 1, 2).float()
        for pixels in ((decoded.clip(-1, 1) + 1) / 2, val_pixels / 255.0)
    )
    wanted = float(psnr(unit, target).mean())
    found = run.record["baselines"]["pixel PCA, 8 components"]["val/psnr"]
    assert found == pytest.approx(wanted, abs=0.01)
    difference = best["val/psnr"] - found
    assert shown["PSNR"].baselines == [
        ("pixel PCA, 8 components", f"{found:.2f} dB", f"{difference:+.2f} dB", difference > 0)
    ]


def pixels_of(file: Path) -> NDArray[np.uint8]:
    """(N, S, S, 3), read by OpenCV."""
    paths = read_teacher_npy(file).image_paths or []
    return np.stack([cv2.imread(str(path))[..., ::-1] for path in paths])


def test_a_page_without_pictures_has_none_of_anybody(copied: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(copied), "--out", str(page), "--no-pictures"]) == 0
    sources = [each["src"] or "" for tag, each in Elements(page).tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/svg+xml") for source in sources)


def test_a_run_without_pictures_draws_and_shows_none(ear_set: Path, tmp_path: Path) -> None:
    assert training(ear_set, tmp_path, "--epochs", "1", "--no-pictures") == 0
    assert not [each for kind in ("*.png", "metadata.tsv") for each in logs(tmp_path).rglob(kind)]
    events = EventAccumulator(str(logs(tmp_path)), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == []
    assert "data:image/jpeg" not in (logs(tmp_path) / "report.html").read_text()


def test_a_run_that_goes_on_is_one_run_on_its_page(ear_set: Path, tmp_path: Path) -> None:
    assert training(ear_set, tmp_path, "--stop-after-epoch", "1") == 75
    first = json.loads((logs(tmp_path) / "run.json").read_text())
    assert (first["state"], len(first["speed"])) == ("paused", 1)
    assert "paused, 1 of 3 epochs" in Elements(logs(tmp_path) / "report.html").text
    killed = first["speed"] + [{**first["speed"][0], "epoch": 2}]  # after the record, before the checkpoint
    (logs(tmp_path) / "run.json").write_text(json.dumps({**first, "speed": killed}))
    assert training(ear_set, tmp_path) == 0
    whole = json.loads((logs(tmp_path) / "run.json").read_text())
    assert [each["epoch"] for each in whole["speed"]] == [1, 2, 3]
    assert whole["started"] == first["started"]
    assert whole["seconds"] > first["seconds"]
    text = Elements(logs(tmp_path) / "report.html").text
    assert "complete, 3 of 3 epochs" in text
    assert "by `stop_after_epoch`" not in text


def test_a_damaged_record_stops_no_training(ear_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert training(ear_set, tmp_path, "--stop-after-epoch", "2") == 75
    record = logs(tmp_path) / "run.json"
    record.write_bytes(record.read_bytes()[:50])
    assert training(ear_set, tmp_path) == 0
    assert "it is written anew" in capsys.readouterr().err
    assert [each["epoch"] for each in json.loads(record.read_text())["speed"]] == [3]


@pytest.mark.parametrize("given", ["", "logs", "logs/ear_vae", "logs/ear_vae/version_0", "checkpoints"])
def test_a_run_that_was_moved_is_found_by_any_of_its_folders(given: str, copied: Path) -> None:
    run = RunFolder.read(copied / given)
    assert run.path == logs(copied)


def test_a_run_of_before_there_were_records_has_a_page(copied: Path) -> None:
    (logs(copied) / "run.json").unlink()
    (logs(copied) / "config.yaml").unlink()
    assert main(["report", str(copied)]) == 0
    text = Elements(logs(copied) / "report.html").text
    assert "3 epochs" in text
    assert "config.yaml is not there" in text


def test_a_run_without_checkpoints_says_so(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = logs(copied) / "config.yaml"
    config.write_text(re.sub("checkpoint_dir: .*", "checkpoint_dir: nowhere", config.read_text()))
    shutil.rmtree(copied / "checkpoints")
    assert main(["report", str(copied)]) == 0
    text = Elements(logs(copied) / "report.html").text
    assert "There is no last.ckpt in nowhere" in text
    assert "earface ears evaluate" not in text


def test_a_picture_cut_short_by_a_kill_is_left_out_with_a_warning(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = logs(copied) / "samples" / "epoch_001.png"
    picture.write_bytes(picture.read_bytes()[:100])
    assert main(["report", str(copied)]) == 0
    assert "epoch_001.png" in capsys.readouterr().err
    shown = [each for tag, each in Elements(logs(copied) / "report.html").tags if tag == "img" and "data-epoch" in each]
    assert len(shown) == 5


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("run.json", '{"format": 99}', "newer version"),
        ("run.json", "[]", "no record of a run"),
        ("run.json", '{"format": 1, "sta', "run.json"),
        ("config.yaml", "a: [", "not readable as YAML"),
        ("metrics.csv", "step,step\n1,2\n", "metrics.csv"),
    ],
)
def test_what_is_damaged_is_named_in_one_line(
    file: str, content: str, reason: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (logs(copied) / "report.html").read_bytes()
    (logs(copied) / file).write_text(content)
    assert main(["report", str(copied)]) == 2
    assert reason in only_line(capsys)
    assert (logs(copied) / "report.html").read_bytes() == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no run (metrics.csv)" in only_line(capsys)


def test_rows_that_are_no_numbers_count_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/loss\n0,1,nan\n1,2,0.5\n2,3,0.25\n3,4,0.25\n4,5,inf\n")
    rows = read_rows(path)
    assert [len(row) for row in rows] == [2, 3, 3, 3, 2]
    assert best_row(rows) == {"epoch": 2, "step": 3, "val/loss": 0.25}
    path.write_text("epoch,step\n")
    assert read_rows(path) == []


def test_rates_stand_where_their_steps_are_in_the_epochs() -> None:
    rows = [
        *({"epoch": 0, "step": step, "lr/dsr": step / 100} for step in (5, 10)),
        {"epoch": 0, "step": 10, "val/loss": 1.0},
        {"epoch": 1, "step": 15, "lr/dsr": 0.15},
        {"epoch": 1, "step": 20, "val/loss": 0.5},
    ]
    assert by_step(rows, "lr/dsr") == [(0.5, 0.05), (1.0, 0.1), (1.5, 0.15)]
    assert by_step(rows[:2], "lr/dsr") == [(1, 0.05), (1, 0.1)]  # before the first validation


def test_shares_are_shown_in_percent_and_their_differences_in_points() -> None:
    shown = metric("val/rank1_bicubic")
    assert (shown.title, shown.text(0.9234), shown.difference(-0.051)) == ("rank-1, bicubic", "92.3 %", "-5.1 points")
    assert metric("val/eer_2").title == "EER, file 2"
    assert metric("val/a_new_term").title == "a new term"


# TensorBoard


def test_tensorboard_has_groups_and_a_curve_for_each_distinct_rate(finished: Path) -> None:
    events = EventAccumulator(str(logs(finished)), size_guidance={"scalars": 0}).Reload()
    tags = set(events.Tags()["scalars"])
    assert {tag for tag in tags if "/lr" in tag} == {"train/lr_backbone", "train/lr_encoder+decoder"}
    assert {tag.split("/")[0] for tag in tags} == {"train", "val", "val_best", "within_epoch"}
    assert not [tag for tag in tags if "epoch" in tag.split("/")[1:]]
    rates = {row["step"]: row["lr/decoder"] for row in metric_rows(finished) if "lr/decoder" in row}  # a step once
    drawn = events.Scalars("train/lr_encoder+decoder")
    assert [each.step for each in drawn] == [*rates]
    assert [each.value for each in drawn] == [pytest.approx(rate, rel=1e-5) for rate in rates.values()]


def test_tensorboards_table_has_the_settings_and_the_best_epochs_metrics(finished: Path) -> None:
    events = EventAccumulator(str(logs(finished))).Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["backbone_lr_scale"].number_value == 0.5
    assert start.hparams["epochs"].number_value == 3
    assert not {"checkpoint_dir", "ema_decay"} & set(start.hparams)  # a place, and one at its default
    best = RunFolder.read(finished).best or {}
    assert events.Scalars("val_best/psnr")[-1].value == pytest.approx(best["val/psnr"], rel=1e-5)


def test_tensorboards_projector_has_the_validation_ears_with_their_people(finished: Path) -> None:
    (table,) = logs(finished).rglob("tensors.tsv")
    latents = np.loadtxt(table, delimiter="\t")
    people = table.with_name("metadata.tsv").read_text().splitlines()
    assert latents.shape == (10, 8)
    assert len(people) == 10
    assert len(set(people)) == 2
    assert cv2.imread(str(table.with_name("sprite.png"))) is not None


def test_a_run_that_is_read_by_a_wrong_name_is_no_run(finished: Path) -> None:
    with pytest.raises(InputError, match="no such run"):
        RunFolder.read(finished / "elsewhere")
