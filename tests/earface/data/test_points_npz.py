"""Landmarks of many crops in one NPZ, as annotations and as the files of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earface.core.errors import InputError
from earface.data.coco import read_coco
from earface.data.convert_annotations import main as convert
from earface.data.images import write_image
from earface.data.points_npz import read_points_npz
from tests.conftest import only_line

FILES = [f"p{person}/{number}.png" for person in range(6) for number in range(3)]


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """18 crops of 6 people, 40 to 57 px wide, with 4 points each; the last point of the first lies outside."""
    rng = np.random.default_rng(0)
    points = rng.uniform(5, 35, (18, 4, 2)).astype(np.float16)
    points[0, 3] = (200, 10)
    for number, file in enumerate(FILES):
        write_image(tmp_path / "crops" / file, rng.integers(0, 256, (60, 40 + number, 3), dtype=np.uint8))
    np.savez(tmp_path / "points.npz", files=np.array(FILES), points=points)
    return tmp_path / "points.npz"


def test_points_become_annotations_with_boxes_and_subjects(npz: Path) -> None:
    found = read_points_npz(npz, npz.parent / "crops")
    points = np.load(npz)["points"].astype(np.float32)
    assert len(found) == found.num_ears == 18
    for number, photograph in enumerate(found.photographs):
        kept = 4 - (number == 0)
        np.testing.assert_allclose(photograph.keypoints[0, :kept, :2], points[number, :kept])
        assert photograph.keypoints[0, :, 2].tolist() == [2] * kept + [0] * (4 - kept)
        x, y, width, height = photograph.boxes[0]
        np.testing.assert_allclose([x, y], points[number, :kept].min(0), atol=1e-3)
        np.testing.assert_allclose([width, height], np.ptp(points[number, :kept], axis=0) + 1, atol=1e-3)
        assert photograph.subject == FILES[number].split("/")[0]
        assert not photograph.has_boxes
    assert found.landmark_names == ("point_01", "point_02", "point_03", "point_04")


def test_the_command_splits_them_by_subject(npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels" / "points.json"
    argv = ["--points", npz, "--images", tmp_path / "crops", "--out", out, "--split-by", "subject"]
    assert convert([*map(str, argv)]) == 0
    train, val = (read_coco(out.with_name(f"points_{part}.json")) for part in ("train", "val"))
    people = [{photograph.subject for photograph in part.photographs} for part in (train, val)]
    assert people[0] | people[1] == {f"p{person}" for person in range(6)}
    assert not people[0] & people[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"files": np.array(FILES)}, "holds no arrays"),
        ({"files": np.array(FILES), "points": np.zeros((18, 4))}, "not (18, K, 2)"),
        ({"files": np.array(FILES), "points": np.zeros((17, 4, 2))}, "not (18, K, 2)"),
        ({"files": np.array(FILES), "points": np.full((18, 4, 2), np.nan)}, "NaN or infinity"),
        ({"files": np.arange(18), "points": np.zeros((18, 4, 2))}, "not N names"),
        ({"files": np.array(["../x.png"]), "points": np.zeros((1, 4, 2))}, "x.png"),
        ({"files": np.array(["none.png"]), "points": np.zeros((1, 4, 2))}, "1 of 1 photographs are missing"),
        ({"files": np.array(FILES, object), "points": np.zeros((18, 4, 2))}, "holds no arrays"),
    ],
)
def test_other_content_is_refused(content: dict[str, Any], message: str, npz: Path) -> None:
    np.savez(npz, **content)
    with pytest.raises(InputError) as caught:
        read_points_npz(npz, npz.parent / "crops")
    assert message in str(caught.value)


def test_one_source_at_a_time(npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--points", str(npz), "--pts", str(tmp_path), "--out", str(tmp_path / "a.json")]
    assert convert(argv) == 2
    assert "give only one of" in only_line(capsys)
