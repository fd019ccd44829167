"""Real runs of the detector's trainer: what it learns, writes, and how it goes on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from ear_teacher.detector.config import ALIASES, EarDetectorTrainingConfig
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.module import EarDetectorLightning
from ear_teacher.detector.train import main
from earface.core.command_line import parse_options
from earface.core.stopping import EXIT_PAUSED
from earface.data.coco import read_coco
from earface.data.images import read_image
from earface.nn.checkpoint import model_state, read_checkpoint
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_set import EAR_SKELETON
from earface.synthetic.scene_set import SceneSet, write_scene_set
from tests.support.training import assert_same, metric_rows, outcome

pytestmark = pytest.mark.runs

TINY = (
    *("--encoder", "conv", "--base-channels", "4", "--image-size", "64", "--crop-size", "32", "--pyramid-width", "16"),
    *("--batch-size", "4", "--precision", "32", "--num-workers", "0", "--progress", "none", "--grid-images", "2"),
    *("--log-every-n-steps", "1", "--warmup-epochs", "0"),
)
EPOCHS = ("--epochs", "2", "--ema-decay", "0.9")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/annotations.json of 8 photographs and val/annotations.json of 4, of 96x72 pixels."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scene_set(folder / "train", SceneSet(8, 96, 72, seed=1))
    write_scene_set(folder / "val", SceneSet(4, 96, 72, seed=2))
    return folder


def arguments(scenes: Path, folder: Path, *extra: str) -> list[str]:
    return [
        *("--train-json", str(scenes / "train" / "annotations.json")),
        *("--val-json", str(scenes / "val" / "annotations.json")),
        *("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")),
        *TINY,
        *extra,
    ]


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs with landmarks, full augmentation and the moving average of the weights."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(arguments(scenes, folder, *EPOCHS)) == 0
    return folder


def changed(scenes: Path, change: Any) -> Path:
    """`change` in place each ear and the category of both annotation files."""
    for path in scenes.glob("*/annotations.json"):
        content = json.loads(path.read_text())
        for each in (*content["annotations"], *content["categories"]):
            change(each)
        path.write_text(json.dumps(content))
    return scenes


@pytest.fixture
def boxes_only(scenes: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(scenes, tmp_path / "boxes_only"))
    return changed(copied, lambda each: [each.pop(name, None) for name in ("keypoints", "num_keypoints", "skeleton")])


@pytest.fixture
def landmarks_only(scenes: Path, tmp_path: Path) -> Path:
    """Photographs of which no ear has a box, and others without ears."""
    copied = Path(shutil.copytree(scenes, tmp_path / "landmarks_only"))
    return changed(copied, lambda each: each.pop("bbox", None))


# What it learns


def test_it_overfits_eight_photographs(tmp_path: Path) -> None:
    """AP50 over .95, measured by torchmetrics on what a model loaded from the checkpoint finds."""
    train = write_scene_set(tmp_path / "train", SceneSet(8, 128, 96, seed=6))
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    copy = tmp_path / "val" / "annotations.json"
    copy.write_text(copy.read_text() + "\n")  # byte for byte it would be refused
    names = [str(tmp_path / "train" / "annotations.json")] * 7  # an epoch of 14 steps
    plan = ("--epochs", "6", "--schedule", "cosine", "--lr", "4e-3", "--ema-decay", "0", "--augment", "none")
    shape = ("--image-size", "128", "--base-channels", "8", "--pyramid-width", "24", "--batch-size", "4")
    assert main([*arguments(tmp_path, tmp_path, *plan, *shape, "--num-landmarks", "0"), "--train-json", *names]) == 0
    model = EarDetector.load_from_checkpoint(str(last(tmp_path)))
    metric = MeanAveragePrecision()
    found = model.predict([read_image(each.path) for each in train.photographs])
    boxes = [torch.from_numpy(each.boxes) for each in train.photographs]
    truth = [{"boxes": torch.cat([each[:, :2], each[:, :2] + each[:, 2:]], 1)} for each in boxes]
    metric.update(found, [each | {"labels": torch.ones(len(each["boxes"]), dtype=torch.int64)} for each in truth])
    assert train.num_ears == 5
    assert float(metric.compute()["map_50"]) > 0.95
    assert metric_rows(tmp_path)[-2]["val/ap50"] > 0.95


def test_the_total_is_the_weighted_sum_of_its_terms(finished: Path) -> None:
    weights = {"score": 1.0, "box": 2.0, "heatmap": 0.5, "landmark": 10.0, "visibility": 0.2}
    for row in metric_rows(finished):
        for loss, term in (("train/loss_step", "train/{}_step"), ("train/loss", "train/{}"), ("val/loss", "val/{}")):
            if loss in row:
                total = sum(weight * row[term.format(name)] for name, weight in weights.items())
                assert row[loss] == pytest.approx(total, rel=1e-5)


# What it writes


def test_a_run_leaves_checkpoints_metrics_and_pictures(finished: Path) -> None:
    version = finished / "logs" / "ear_detector" / "version_0"
    names = {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()}
    assert names >= {"detections/epoch_000.png", "detections/epoch_001.png", "metrics.csv", "config.yaml"}
    assert sum(name.startswith("events.out.tfevents") for name in names) == 1
    grids = [read_image(version / "detections" / f"epoch_00{epoch}.png") for epoch in range(2)]
    assert min(min(each.shape[:2]) for each in grids) >= 360
    saved = sorted(path.name for path in (finished / "checkpoints").rglob("*.ckpt"))
    kinds = ("best-ap-epoch=", "best-nme-epoch=", "ear_detector-epoch=", "ear_detector-epoch=", "last.ckpt")
    assert len(saved) == 5
    assert all(name.startswith(kind) for name, kind in zip(saved, kinds, strict=True))


def test_metrics_are_finite_and_complete(finished: Path) -> None:
    rows = metric_rows(finished)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    terms = ("loss", "score", "box", "heatmap", "landmark", "visibility")
    rates = {f"lr/{net}{part}" for net in ("boxes", "landmarks") for part in ("", ".backbone")}
    metrics = {f"val/{name}" for name in (*terms, "ap", "ap50", "nme")} | {f"train/{name}" for name in terms}
    assert metrics | rates <= set().union(*rows)
    assert sum("val/loss" in row for row in rows) == sum("train/loss" in row for row in rows) == 2


def test_the_best_checkpoints_are_the_best_epochs(finished: Path) -> None:
    rows = [row for row in metric_rows(finished) if "val/loss" in row]
    for name, best in (("ap", max), ("nme", min)):
        (path,) = (finished / "checkpoints").glob(f"best-{name}-*.ckpt")
        assert path.stem.split(f"val_{name}=")[1] == f"{best(row[f'val/{name}'] for row in rows):.4f}"


def test_a_trained_model_is_rebuilt_from_its_checkpoint_bit_for_bit(finished: Path) -> None:
    states = {}
    for weights in ("averaged", "raw"):
        model = EarDetector.load_from_checkpoint(str(last(finished)), weights=weights)
        stored = model_state(read_checkpoint(last(finished)), weights)
        states[weights] = model.state_dict()
        assert {f"model.{name}" for name in states[weights]} == stored.keys()
        for name, value in states[weights].items():
            assert torch.equal(value, stored[f"model.{name}"]), name
        assert not model.training
    assert not torch.equal(states["raw"]["boxes.score.weight"], states["averaged"]["boxes.score.weight"])
    assert model.config.landmark_names == EAR_LANDMARKS
    assert model.config.skeleton == tuple(EAR_SKELETON)


# How it goes on


def test_a_run_that_was_stopped_ends_as_one_that_was_not(scenes: Path, tmp_path: Path, finished: Path) -> None:
    """Weights, their average, optimiser, schedule, scores and rows, with other workers too."""
    stop = ("--stop-after-epoch", "1", "--num-workers", "1")
    assert main(arguments(scenes, tmp_path, *EPOCHS, *stop)) == EXIT_PAUSED
    assert read_checkpoint(last(tmp_path))["run"]["epochs_done"] == 1
    assert main(arguments(scenes, tmp_path, *EPOCHS)) == 0
    first, second = outcome(tmp_path), outcome(finished)
    assert first[1] == second[1]
    assert {"state_dict", "current_model_state", "optimizer_states", "lr_schedulers"} <= second[0].keys()
    assert_same(first[0], second[0])


def test_a_finished_run_says_so(scenes: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = last(finished).read_bytes()
    assert main(arguments(scenes, finished, *EPOCHS)) == 0
    assert "finished: " in capsys.readouterr().out
    assert last(finished).read_bytes() == before


def test_weights_of_another_run_are_a_start(scenes: Path, tmp_path: Path, finished: Path, boxes_only: Path) -> None:
    """A checkpoint with landmarks, continued with boxes only, at a rate that moves nothing."""
    start = ("--init-from", str(last(finished)), "--lr", "1e-9", "--epochs", "1", "--ema-decay", "0")
    assert main(arguments(boxes_only, tmp_path, *start)) == 0
    given, kept = read_checkpoint(last(finished)), read_checkpoint(last(tmp_path))
    assert kept["global_step"] == 2
    assert not any(name.startswith("model.landmarks") for name in kept["state_dict"])
    for name in ("model.boxes.tower.0.pointwise.weight", "model.boxes.backbone.stages.0.residual.body.0.weight"):
        torch.testing.assert_close(kept["state_dict"][name], given["state_dict"][name], atol=1e-6, rtol=0)


# Data of one kind


def test_boxes_alone_train_a_detector_without_landmarks(boxes_only: Path, tmp_path: Path) -> None:
    assert main(arguments(boxes_only, tmp_path, "--epochs", "1")) == 0
    assert EarDetector.load_from_checkpoint(str(last(tmp_path))).landmarks is None
    row = next(row for row in metric_rows(tmp_path) if "val/loss" in row)
    assert {"val/ap", "val/box"} <= row.keys()
    assert {"val/nme", "val/landmark"}.isdisjoint(row)
    assert sum(path.name.startswith("best-") for path in (tmp_path / "checkpoints").iterdir()) == 1


def test_landmarks_alone_train_both(landmarks_only: Path, tmp_path: Path) -> None:
    """There is no AP where not all ears are marked. Batches of one: some have no crop, most no background."""
    assert any(not len(each.boxes) for each in read_coco(landmarks_only / "val" / "annotations.json").photographs)
    assert main(arguments(landmarks_only, tmp_path, "--epochs", "1", "--batch-size", "1")) == 0
    row = next(row for row in metric_rows(tmp_path) if "val/loss" in row)
    assert {"val/nme", "val/box", "val/heatmap"} <= row.keys()
    assert {"val/ap", "val/ap50"}.isdisjoint(row)
    assert all(math.isfinite(value) for row in metric_rows(tmp_path) for value in row.values())


# What stays as it is


def test_a_frozen_encoder_is_after_training_what_it_was_before(scenes: Path, tmp_path: Path, finished: Path) -> None:
    start = ("--init-from", str(last(finished)), "--freeze-encoder", "--epochs", "1")
    assert main(arguments(scenes, tmp_path, *start)) == 0
    given, kept = (read_checkpoint(last(folder))["state_dict"] for folder in (finished, tmp_path))
    same = {name for name in kept if torch.equal(kept[name], given[name])}
    assert {name for name in kept if ".backbone." in name} <= same
    assert "model.boxes.score.weight" not in same
    assert "model.landmarks.heat.weight" not in same


def test_the_boxes_can_be_kept_while_landmarks_are_learnt(scenes: Path, tmp_path: Path, finished: Path) -> None:
    start = ("--init-from", str(last(finished)), "--train-boxes", "false", "--epochs", "1")
    assert main(arguments(scenes, tmp_path, *start)) == 0
    given, kept = (read_checkpoint(last(folder))["state_dict"] for folder in (finished, tmp_path))
    moved = {name.split(".")[1] for name in kept if not torch.equal(kept[name], given[name])}
    assert moved == {"landmarks"}


def module_of(*extra: str) -> EarDetectorLightning:
    flags = [*TINY, "--encoder-weights", "none", *extra]
    config = parse_options(EarDetectorTrainingConfig, flags, prog="detector", aliases=ALIASES)
    config = config.resolved(17)
    return EarDetectorLightning(config, EarDetector(config.model_config((), ())))


def test_a_loaded_module_finds_what_its_model_finds(finished: Path) -> None:
    path = str(last(finished))
    images = [torch.rand(3, 70, 90) * 2 - 1]
    module = EarDetectorLightning.load_from_checkpoint(path)
    assert not module.training
    assert module.config.epochs == 2
    module.model.score_threshold = 0.0
    model = EarDetector.load_from_checkpoint(path)
    model.score_threshold = 0.0
    found, wanted = module(images)[0], model(images)[0]
    assert len(wanted["boxes"])
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("frozen", [(), ("--freeze-layers", "2"), ("--freeze-encoder",), ("--train-boxes", "false")])
@pytest.mark.parametrize("layer_decay", ["1", "0.5"])
def test_every_parameter_is_in_one_named_group_with_its_rate(frozen: tuple[str, ...], layer_decay: str) -> None:
    rates = ("--lr", "2e-3", "--backbone-lr-scale", "0.1", "--layer-decay", layer_decay)
    module = module_of(*rates, *frozen)
    groups = module.parameter_groups()
    assert len({group["name"] for group in groups}) == len(groups)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    listed = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(name for name, each in module.named_parameters() if each.requires_grad)
    for group in groups:
        title = group["name"].removesuffix(".no_decay")
        net, _, rest = title.partition(".")
        layer = rest.removeprefix("backbone").removeprefix(".")
        wanted = 2e-3 * (0.1 if rest else 1) * (0.5 ** (3 - int(layer)) if layer else 1)
        assert group["lr"] == pytest.approx(wanted)
        for parameter in group["params"]:
            assert names[id(parameter)].startswith(f"model.{net}." + ("backbone." if rest else ""))
            assert (parameter.ndim < 2) == group["name"].endswith(".no_decay")


def test_compiled_networks_keep_their_names_and_their_results() -> None:
    module = module_of("--compile").eval()
    images = torch.rand(1, 3, 64, 64)
    names, wanted = list(module.state_dict()), module.model.boxes(images)[1]
    module.compile_networks()
    assert list(module.state_dict()) == names
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(module.model.boxes(images)[1], wanted)
