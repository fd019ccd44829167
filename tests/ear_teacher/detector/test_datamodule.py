"""Boxes and landmarks follow the pixels into scenes and crops, and files that do not fit are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from ear_teacher.detector.annotated_photographs import AnnotatedPhotographs
from ear_teacher.detector.config import EarDetectorTrainingConfig
from ear_teacher.detector.datamodule import (
    MIN_CROPPED,
    EarDetectorDataModule,
    PhotographDataset,
    collate_photographs,
)
from ear_teacher.detector.train import main
from earface.core.errors import InputError
from earface.core.notices import DataWarning
from earface.data.affine import PAD
from earface.data.annotations import Annotations, Floats, Photograph
from earface.data.coco import write_coco
from earface.data.images import Pixels, write_image

ELLIPSE, DOTS = 235, (0, 130)  # grey levels; the ground is that of the padding, so that nothing else has an edge
SHAPE: dict[str, Any] = {"image_size": 160, "crop_size": 96, "channels": 3, "landmarks": True}


def drawn_ear(image: Pixels, box: Floats) -> Floats:
    """Paint an ellipse that fills the box, with a dark dot left above and a less dark one right below; (2, 3)."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    cx, cy, rx, ry = box[0] + box[2] / 2, box[1] + box[3] / 2, box[2] / 2, box[3] / 2
    image[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1] = ELLIPSE
    points = []
    for grey, (dx, dy) in zip(DOTS, ((-0.4, -0.4), (0.35, 0.45)), strict=True):
        px, py = cx + dx * rx, cy + dy * ry
        image[(x - px) ** 2 + (y - py) ** 2 <= (0.13 * rx) ** 2] = grey
        points.append((px - 0.5, py - 0.5, 2))  # from corners to pixel centres
    return np.array(points, np.float32)


def photograph_of(path: Path, size: tuple[int, int], boxes: list[tuple[float, ...]], **options: Any) -> Photograph:
    image = np.full((size[1], size[0], 3), PAD, np.uint8)
    table = np.array(boxes, np.float32).reshape(-1, 4)
    points = np.zeros((len(table), 2, 3), np.float32)
    for ear, box in enumerate(table):
        points[ear] = drawn_ear(image, box)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image)
    return Photograph(path, size, table, points, **options)


def coco(path: Path, photographs: list[Photograph], names: tuple[str, ...] = ("upper", "lower")) -> str:
    write_coco(path, Annotations(path, photographs, names))
    return str(path)


@pytest.fixture(scope="module")
def two_ears(tmp_path_factory: pytest.TempPathFactory) -> Photograph:
    path = tmp_path_factory.mktemp("ears") / "two.png"
    return photograph_of(path, (400, 300), [(40, 60, 90, 130), (250, 110, 70, 84)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.json and val.json of six and three photographs, with one ear, two, or none."""
    folder = tmp_path_factory.mktemp("files")
    ears: list[list[tuple[float, ...]]] = [[(20, 30, 40, 60)], [(20, 30, 40, 60), (100, 20, 50, 70)], []]
    for name, count in (("train", 6), ("val", 3)):
        photographs = [photograph_of(folder / name / f"{n}.png", (180, 130), ears[n % 3]) for n in range(count)]
        coco(folder / f"{name}.json", photographs)
    return folder


def module_of(train: str | tuple[str, ...], val: str, **options: Any) -> EarDetectorDataModule:
    """As training makes it."""
    small = {"image_size": 64, "crop_size": 32, "encoder": "conv", "batch_size": 2, "num_workers": 0}
    paths = {"train_json": (train,) if isinstance(train, str) else train, "val_json": (val,)}
    config = EarDetectorTrainingConfig(**{**small, **paths, **options})
    annotated = AnnotatedPhotographs.read(config)
    datamodule = EarDetectorDataModule(config.resolved(annotated.num_landmarks), annotated)
    datamodule.setup("fit")
    return datamodule


# Pixels


def bright_regions(image: Tensor) -> list[tuple[float, float, float, float]]:
    """Corners of each bright region, where brightness is halfway from the ground to the brightest."""
    grey = cv2.GaussianBlur(image.numpy().mean(axis=2), (0, 0), 1.0)
    ground = float(np.median(grey))
    bright = (grey > (ground + np.percentile(grey, 99.8)) / 2).astype(np.uint8)
    whole = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))  # over the dots
    _, _, table, _ = cv2.connectedComponentsWithStats(whole)
    return [(x, y, x + w, y + h) for x, y, w, h, area in table[1:].tolist() if area >= 12]


@pytest.mark.parametrize("augment", ["none", "light", "full"])
def test_the_box_of_a_scene_encloses_the_ear(two_ears: Photograph, augment: Any) -> None:
    dataset = PhotographDataset([two_ears], augment=augment, seed=1, **SHAPE)
    ears = 0
    for epoch in range(1 if augment == "none" else 40):
        item = dataset[epoch, 0]
        regions = bright_regions(item["pixels"]) if len(item["boxes"]) else []
        for box in item["boxes"].tolist():
            if min(box) < 6 or max(box) > 154 or min(box[2] - box[0], box[3] - box[1]) < 16:
                continue  # the border cuts an ellipse narrower than its box
            ears += 1
            assert min(np.abs(np.subtract(region, box)).max() for region in regions) <= 1.0
    assert ears >= (2 if augment == "none" else 30)


def test_no_pixel_of_an_ear_is_background(two_ears: Photograph) -> None:
    """It lies in a box or in an unclear region, however the scene is cut."""
    dataset = PhotographDataset([two_ears], augment="full", seed=2, **SHAPE)
    unclear = 0
    for epoch in range(60):
        item = dataset[epoch, 0]
        regions = torch.cat([item["boxes"], item["unclear"]]).tolist()
        unclear += len(item["unclear"])
        placed = dataset.scenes(two_ears, white_ears(two_ears), (2, epoch, 0)).placement
        white = np.argwhere(placed.image(white_ears(two_ears))[..., 0] > 200)[:, ::-1] + 0.5
        inside = np.zeros(len(white), bool)
        for x1, y1, x2, y2 in regions:
            inside |= ((white > [x1 - 1.5, y1 - 1.5]) & (white < [x2 + 1.5, y2 + 1.5])).all(axis=1)
        assert inside.all()
    assert unclear >= 3


def white_ears(photograph: Photograph) -> Pixels:
    image = np.full((photograph.size[1], photograph.size[0], 3), PAD, np.uint8)  # type: ignore[index]
    for x, y, w, h in photograph.boxes.tolist():
        centre = (round(x + w / 2), round(y + h / 2))
        cv2.ellipse(image, centre, (round(w / 2), round(h / 2)), 0, 0, 360, (255, 255, 255), -1)
    return image


@pytest.mark.parametrize("augment", ["none", "light", "full"])
def test_the_dots_of_a_crop_are_where_its_landmarks_say(two_ears: Photograph, augment: Any) -> None:
    """Which is which, too: mirrored ones keep their order."""
    dataset = PhotographDataset([two_ears], augment=augment, seed=1, **SHAPE)
    mirrored = seen = 0
    for epoch in range(1 if augment == "none" else 40):
        item = dataset[epoch, 0]
        assert item["crop_pixels"].shape == (2, 96, 96, 3)
        for crop, points in zip(item["crop_pixels"].numpy(), item["keypoints"].tolist(), strict=True):
            grey = cv2.GaussianBlur(crop.mean(axis=2), (0, 0), 1.0)
            depths = []
            for x, y, visible in points:
                assert visible == 2
                near = grey[round(y) - 7 : round(y) + 8, round(x) - 7 : round(x) + 8]
                dark = np.clip((near.min() + near.max()) / 2 - near, 0, None)
                rows, columns = np.mgrid[: near.shape[0], : near.shape[1]]
                offset = [(dark * columns).sum() / dark.sum() - 7, (dark * rows).sum() / dark.sum() - 7]
                place = np.array([round(x), round(y)]) + offset
                assert place == pytest.approx([x, y], abs=1.5)
                depths.append(near.max() - near.min())
            assert depths[0] > depths[1] > 20
            mirrored += points[0][0] > points[1][0]
            seen += 1
    assert (mirrored == 0) if augment == "none" else (0.2 < mirrored / seen < 0.8)


def test_a_view_follows_from_seed_epoch_and_index_alone(files: Path) -> None:
    """Whatever the workers; another epoch and another seed are other views."""

    def views(workers: int, seed: int, epoch: int) -> list[dict[str, Any]]:
        train, val = str(files / "train.json"), str(files / "val.json")
        loader = module_of(train, val, num_workers=workers, seed=seed).train_dataloader()
        loader.set_epoch(epoch)
        return list(loader)

    wanted = views(0, 7, 3)
    assert len(wanted) == 3
    for first, second in zip(wanted, views(2, 7, 3), strict=True):
        assert torch.equal(first["index"], second["index"])
        for name in ("pixels", "crop_pixels", "keypoints", "complete"):
            assert torch.equal(first[name], second[name])
        for name in ("boxes", "unclear"):
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, equal_nan=True)
    crops = {tuple(batch["crop_pixels"].flatten().tolist()) for batch in wanted}
    for others in (views(0, 7, 4), views(0, 8, 3)):
        assert not crops & {tuple(batch["crop_pixels"].flatten().tolist()) for batch in others}


def test_an_epoch_has_so_many_different_views_of_each_photograph(files: Path) -> None:
    datamodule = module_of(str(files / "train.json"), str(files / "val.json"), views=5)
    loader = datamodule.train_dataloader()
    loader.set_epoch(0)
    samples = [
        (int(index), pixels) for batch in loader for index, pixels in zip(batch["index"], batch["pixels"], strict=True)
    ]
    names = [Path(datamodule.train_name(index)).stem for index, _ in samples]
    assert sorted(names) == sorted(f"{number}" for number in range(6) for _ in range(5))
    assert len({pixels.numpy().tobytes() for _, pixels in samples}) == 30
    assert len(datamodule.val_set) == 3


def test_batches_are_in_the_models_range_on_the_device(files: Path) -> None:
    datamodule = module_of(str(files / "train.json"), str(files / "val.json"))
    batch = collate_photographs([datamodule.val_set[index] for index in range(3)])
    moved = datamodule.on_after_batch_transfer(batch, 0)
    for name, source, shape in (("image", "pixels", (3, 3, 64, 64)), ("crops", "crop_pixels", (3, 3, 32, 32))):
        assert moved[name].shape == shape
        torch.testing.assert_close(moved[name], batch[source].permute(0, 3, 1, 2) / 127.5 - 1)


def test_the_crops_of_a_batch_are_those_of_its_photographs_in_a_row(files: Path) -> None:
    dataset = module_of(str(files / "train.json"), str(files / "val.json")).val_set
    items = [dataset[index] for index in (2, 1, 0)]
    batch = collate_photographs(items)
    assert [len(item["crop_pixels"]) for item in items] == [0, 2, 1]
    assert torch.equal(batch["crop_pixels"], torch.cat([items[1]["crop_pixels"], items[2]["crop_pixels"]]))
    assert batch["index"].tolist() == [2, 1, 0]


def test_the_boxes_of_a_batch_are_those_of_its_photographs_and_nan(files: Path) -> None:
    dataset = module_of(str(files / "train.json"), str(files / "val.json")).val_set
    items = [dataset[index] for index in (2, 1, 0)]
    batch = collate_photographs(items)
    assert batch["boxes"].shape == (3, 2, 4)
    assert batch["unclear"].shape == (3, 1, 4)  # none, in one row all the same
    for name in ("boxes", "unclear"):
        for item, rows in zip(items, batch[name], strict=True):
            assert torch.equal(rows[: len(item[name])], item[name])
            assert rows[len(item[name]) :].isnan().all()


# Files of several kinds


def test_files_of_boxes_only_and_of_landmarks_only_are_trained_together(files: Path, tmp_path: Path) -> None:
    boxed = [photograph_of(tmp_path / f"boxes_{n}.png", (90, 90), [(20, 20, 40, 50)]) for n in range(2)]
    boxed = [Photograph(each.path, each.size, each.boxes, np.zeros((1, 0, 3), np.float32)) for each in boxed]
    pointed = [
        photograph_of(tmp_path / f"points_{n}.png", (90, 90), [(20, 20, 40, 50)], has_boxes=False) for n in range(2)
    ]
    first, second = coco(tmp_path / "boxes.json", boxed, ()), coco(tmp_path / "points.json", pointed)
    datamodule = module_of((first, second), str(files / "val.json"))
    assert datamodule.annotated.landmarks == (("upper", "lower"), ())
    items = [datamodule.train_set[0, index] for index in range(4)]
    assert [(item["complete"], len(item["crop_pixels"])) for item in items] == [(True, 0)] * 2 + [(False, 1)] * 2
    batch = collate_photographs(items[:2])
    assert batch["crop_pixels"].shape == (0, 32, 32, 3)
    assert batch["keypoints"].shape == (0, 2, 3)
    assert datamodule.on_after_batch_transfer(batch, 0)["crops"].shape == (0, 3, 32, 32)
    assert not collate_photographs(items[2:])["complete"].any()


def test_ears_too_small_for_landmarks_have_no_crop(tmp_path: Path) -> None:
    side = MIN_CROPPED
    photograph = photograph_of(tmp_path / "a.png", (90, 90), [(5, 5, side, side), (40, 40, side - 1, side - 1)])
    assert len(PhotographDataset([photograph], **SHAPE)[0, 0]["crop_pixels"]) == 1


def test_landmarks_of_validation_alone_are_none(files: Path, tmp_path: Path) -> None:
    """Without any in training, a landmarker would learn nothing."""
    each = photograph_of(tmp_path / "a.png", (90, 90), [(20, 20, 40, 50)])
    bare = Photograph(each.path, each.size, each.boxes, np.zeros((1, 0, 3), np.float32))
    datamodule = module_of(coco(tmp_path / "boxes.json", [bare], ()), str(files / "val.json"))
    assert datamodule.annotated.num_landmarks == 0
    assert "crop_pixels" not in datamodule.val_set[0]
    assert datamodule.best() == {"ap": "max"}


def test_only_metrics_that_validation_can_measure_select_a_checkpoint(files: Path, tmp_path: Path) -> None:
    train = str(files / "train.json")
    pointed = [
        photograph_of(tmp_path / "a.png", (90, 90), [(20, 20, 40, 50)], has_boxes=False),
        photograph_of(tmp_path / "b.png", (90, 90), []),  # all of its ears are marked: it has none
    ]
    assert module_of(train, coco(tmp_path / "points.json", pointed)).best() == {"nme": "min"}
    single = photograph_of(tmp_path / "c.png", (90, 90), [(20, 20, 40, 50)])
    single.keypoints[:, 1] = 0  # a single landmark has no extent to measure by
    assert module_of(train, coco(tmp_path / "single.json", [single])).best() == {"ap": "max"}
    assert module_of(train, str(files / "val.json")).best() == {"ap": "max", "nme": "min"}
    assert module_of(train, str(files / "val.json"), num_landmarks=0).best() == {"ap": "max"}


# Files that cannot be used


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(("count", "refused"), [(21, False), (19, True)])
def test_one_unreadable_photograph_is_left_out_unless_that_is_over_5_percent(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, refused: bool
) -> None:
    photographs = [photograph_of(tmp_path / f"{n:02d}.png", (64, 64), [(10, 10, 30, 40)]) for n in range(count)]
    train = coco(tmp_path / "train.json", photographs)
    truncate(photographs[3].path)
    if refused:
        with pytest.raises(InputError, match=rf"train\.json: 1 of {count} photographs cannot be read, over 5%.*03\.p"):
            module_of(train, str(files / "val.json"))
        return
    with pytest.warns(DataWarning, match="1 photographs cannot be read and are left out"):
        datamodule = module_of(train, str(files / "val.json"))
    assert [each.path for each in datamodule.train_set.photographs] == [
        each.path for each in photographs if each.path.name != "03.png"
    ]


@pytest.mark.parametrize("way", ["plain", "link", "other spelling"])
def test_a_photograph_may_not_be_trained_on_and_validated_on(files: Path, tmp_path: Path, way: str) -> None:
    (tmp_path / "sub").mkdir()
    photograph = photograph_of(tmp_path / "sub" / "a.png", (64, 64), [(10, 10, 30, 40)])
    train, val = (Path(coco(tmp_path / f"{name}.json", [photograph])) for name in ("train", "val"))
    (tmp_path / "b.png").symlink_to(photograph.path)
    for changed, name in {"plain": [], "link": [(train, "b.png")], "other spelling": [(val, "sub/../sub/a.png")]}[way]:
        content = json.loads(changed.read_text())
        content["images"][0]["file_name"] = name
        changed.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"val\.json: 1 photographs are also trained on"):
        module_of(str(train), str(val))


def content_of(files: Path) -> dict[str, Any]:
    return json.loads((files / "train.json").read_text())


def with_more_landmarks(content: dict[str, Any]) -> None:
    content["categories"][0]["keypoints"] = ["a", "b", "c"]
    for ear in content["annotations"]:
        ear["keypoints"] += [30, 40, 2]


def damage_field(entry: str, name: str) -> Any:
    return lambda content: content[entry][0].pop(name)


DAMAGES: dict[str, tuple[Any, str]] = {
    "other landmarks": (with_more_landmarks, "train.json has 3 landmarks and "),
    "no ears": (lambda content: content["annotations"].clear(), "6 photographs and no ears"),
    "a missing photograph": (
        lambda content: content["images"][0].update(file_name="train/absent.png"),
        "1 of 6 photographs are missing",
    ),
    "no file name": (damage_field("images", "file_name"), "has no file_name"),
    "no image id": (damage_field("annotations", "image_id"), "annotations entry 1: image_id"),
    "no images": (lambda content: content.pop("images"), "the file has no images"),
    "a box beside the picture": (
        lambda content: content["annotations"][0].update(bbox=[500, 30, 40, 60]),
        "leaves the 180x130 picture",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_file_is_one_line_and_exit_code_2(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    change, reason = DAMAGES[damage]
    content = content_of(files)
    change(content)
    (tmp_path / "train.json").write_text(json.dumps(content))
    flags = ("--train-json", tmp_path / "train.json", "--val-json", files / "val.json", "--images", files)
    assert main([*map(str, flags), "--encoder-weights", "none"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert str(tmp_path / "train.json") in error
    assert reason in error


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--train-json", "absent.json"), "absent.json: no such file"),
        (("--num-landmarks", "5"), "--num-landmarks 5: "),
        (("--images", "absent"), "absent: no such folder"),
        (("--train-json",), "no annotations: give one or more COCO files"),
        (("--image-size", "100"), "--image-size 100: must be a multiple of 32"),
        (("--encoder", "resnet51"), "--encoder resnet51: choose one of"),
        (("--train-boxes", "false", "--num-landmarks", "0"), "--train-boxes false: with --num-landmarks 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], reason: str
) -> None:
    given = ["--train-json", str(files / "train.json"), "--val-json", str(files / "val.json")]
    places = ["--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")]
    assert main([*given, *places, "--encoder-weights", "none", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert reason in error
