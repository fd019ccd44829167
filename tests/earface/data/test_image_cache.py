"""The memory map of decoded pictures."""

from __future__ import annotations

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from earface.core.errors import InputError, entry_point
from earface.core.notices import DataWarning
from earface.data.folders import list_images
from earface.data.image_cache import ImageCache, crop_to_box, open_image_cache
from earface.data.images import Pixels, read_image, resize_image
from earface.data.npy import TeacherData, read_teacher_npy, write_teacher_npy
from tests.support.disk import files_of_at_most, run_with_small_disk

Draw = Callable[..., Pixels]


@pytest.fixture
def data(picture_folder: Path) -> TeacherData:
    """24 pictures with a box each."""
    paths = list_images(picture_folder)
    boxes = np.array([[row % 5, 3, 20, 25] for row in range(len(paths))])
    write_teacher_npy(picture_folder / "t.npy", image_paths=paths, bboxes=boxes)
    return read_teacher_npy(picture_folder / "t.npy")


def open_cache(data: TeacherData, folder: Path, **changes: int) -> ImageCache:
    return open_image_cache(data, **{"image_size": 32, "channels": 3, "cache_dir": folder, **changes})  # type: ignore[arg-type]


def paths_of(data: TeacherData) -> list[Path]:
    assert data.image_paths is not None
    return data.image_paths


@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_is_decoded_and_resized_by_the_rule(data: TeacherData, tmp_path: Path, channels: int) -> None:
    cache = open_cache(data, tmp_path / "cache", channels=channels)
    expected = np.stack([resize_image(read_image(path, channels), 32) for path in paths_of(data)])
    assert isinstance(cache.images, np.memmap)
    assert not cache.images.flags.writeable
    np.testing.assert_array_equal(cache.images, expected)
    np.testing.assert_array_equal(cache.kept, np.arange(24))
    assert cache.skipped == []


def test_the_second_opening_decodes_nothing(data: TeacherData, tmp_path: Path) -> None:
    first = open_cache(data, tmp_path / "cache")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    calls: list[int] = []
    second = open_image_cache(
        data, image_size=32, channels=3, cache_dir=tmp_path / "cache", progress=lambda done, _: calls.append(done)
    )
    np.testing.assert_array_equal(first.images, second.images)
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == written


def test_progress_counts_to_the_end(data: TeacherData, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    open_image_cache(
        data, image_size=8, channels=1, cache_dir=tmp_path, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(row + 1, 24) for row in range(24)]


def test_whatever_changes_the_pixels_makes_another_cache(data: TeacherData, tmp_path: Path) -> None:
    cache_dir = tmp_path / "cache"

    def number_of_caches() -> int:
        return len(list(cache_dir.glob("*.bin")))

    open_cache(data, cache_dir)
    for count, changes in enumerate(({"image_size": 33}, {"channels": 1}, {"crop_to_bbox": True}), start=2):
        open_cache(data, cache_dir, **changes)
        assert number_of_caches() == count
    shifted = TeacherData(data.source, data.image_paths, None, data.bboxes + 1, None, None)  # type: ignore[operator]
    open_cache(shifted, cache_dir)
    assert number_of_caches() == 4  # boxes that are not used decide nothing
    open_cache(shifted, cache_dir, crop_to_bbox=True)
    assert number_of_caches() == 5
    changed = paths_of(data)[3]
    size = changed.stat().st_size
    Image.new("RGB", (40, 40), (1, 2, 3)).save(changed)
    changed.write_bytes(changed.read_bytes().ljust(size, b"\0"))  # only its time differs
    cache = open_cache(data, cache_dir)
    assert number_of_caches() == 6
    assert (cache.images[3] == [1, 2, 3]).all()
    fewer = TeacherData(data.source, paths_of(data)[:-1], None, None, None, None)
    assert len(open_cache(fewer, cache_dir)) == 23


def test_boxes_cut_the_picture_clipped_to_it(data: TeacherData, tmp_path: Path) -> None:
    assert data.bboxes is not None
    data.bboxes[2] = [-2, -2, 22, 22]  # a slip
    cache = open_cache(data, tmp_path / "cache", crop_to_bbox=True)
    x, y, width, height = data.bboxes[4].astype(int)
    expected = read_image(paths_of(data)[4])[y : y + height, x : x + width]
    np.testing.assert_array_equal(cache.images[4], resize_image(expected, 32))
    np.testing.assert_array_equal(cache.images[2], resize_image(read_image(paths_of(data)[2])[:20, :20], 32))


@pytest.mark.parametrize(
    "box", [[100, 100, 5, 5], [-9, 0, 9, 9], [3, 3, 0, 5], [3, 3, 5, -5], [3, 3, 0.2, 5], [1e30, 0, 5, 5]]
)
def test_a_box_without_pixels_is_refused(draw: Draw, box: list[float]) -> None:
    with pytest.raises(InputError, match="holds no pixel of the 50x60 picture"):
        crop_to_box(draw(0), np.array(box, np.float32))


def test_a_few_unreadable_pictures_are_skipped_and_reported_each_time(data: TeacherData, tmp_path: Path) -> None:
    paths_of(data)[5].write_bytes(paths_of(data)[5].read_bytes()[:500])
    for _ in range(2):
        cache = open_cache(data, tmp_path / "cache")
        assert [Path(path) for path, _ in cache.skipped] == [paths_of(data)[5]]
        assert "truncated" in cache.skipped[0][1]
        assert cache.kept.tolist() == [row for row in range(24) if row != 5]
        np.testing.assert_array_equal(cache.images[5], resize_image(read_image(paths_of(data)[6]), 32))
    listed = json.loads(next((tmp_path / "cache").glob("*.json")).read_text())["skipped"]
    assert [entry["row"] for entry in listed] == [5]


def test_a_box_outside_counts_as_unreadable(data: TeacherData, tmp_path: Path) -> None:
    assert data.bboxes is not None
    data.bboxes[7] = [500, 500, 10, 10]
    cache = open_cache(data, tmp_path / "cache", crop_to_bbox=True)
    assert 7 not in cache.kept
    assert "leaves the 44x47 picture: expected x y width height in pixels, not corners" in cache.skipped[0][1]


def as_corners(data: TeacherData, *, least: int) -> TeacherData:
    """The same with boxes of 12x14 pixels across the pictures, from `least` on, as xmin ymin xmax ymax."""
    near = np.linspace(least, 26, len(data))
    boxes = np.column_stack([near, near, near + 12, near + 14]).astype(np.float32)
    return dataclasses.replace(data, bboxes=boxes)


def test_corners_are_refused_by_name_before_anything_is_decoded(data: TeacherData, tmp_path: Path) -> None:
    decoded: list[int] = []
    with pytest.raises(
        InputError, match=r"t\.npy: the boxes look like corners, .*: as x y width height 12 of 24 leave"
    ):
        open_image_cache(
            as_corners(data, least=8),
            image_size=32,
            channels=3,
            crop_to_bbox=True,
            cache_dir=tmp_path / "cache",
            progress=lambda done, total: decoded.append(done),
        )
    assert not decoded
    open_cache(as_corners(data, least=8), tmp_path / "cache")  # boxes that are not used do no harm


def test_what_is_odd_about_boxes_is_said_again_when_the_cache_is_found(data: TeacherData, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(paths_of(data)[5]).save(paths_of(data)[5], exif=exif)
    for _ in range(2):
        with pytest.warns(DataWarning, match="EXIF turns 1 of the 24 pictures"):
            open_cache(data, tmp_path / "cache", crop_to_bbox=True)


def test_more_than_five_percent_unreadable_stops(data: TeacherData, tmp_path: Path) -> None:
    for row in (3, 8):
        paths_of(data)[row].unlink()
    with pytest.raises(InputError, match=r"2 of 24 pictures cannot be used, over 5%: .*3\.png: No such file") as caught:
        open_cache(data, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_cropping_without_boxes_is_refused(data: TeacherData, tmp_path: Path) -> None:
    without = TeacherData(data.source, data.image_paths, None, None, None, None)
    with pytest.raises(InputError, match="no bboxes"):
        open_cache(without, tmp_path, crop_to_bbox=True)
    with pytest.raises(InputError, match="image size 0"):
        open_cache(data, tmp_path, image_size=0)


def test_an_array_that_fits_is_used_without_a_copy(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "t.npy", images)
    cache = open_cache(read_teacher_npy(tmp_path / "t.npy"), tmp_path / "cache")
    np.testing.assert_array_equal(cache.images, images)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["other size", "channels first", "float", "npz", "grey"])
def test_any_other_array_is_converted(tmp_path: Path, kind: str, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    if kind == "other size":
        images = np.random.default_rng(0).integers(0, 256, (5, 40, 20, 3), dtype=np.uint8)
    if kind == "grey":
        images = images[..., :1]
    if kind == "npz":
        np.savez(tmp_path / "t.npz", images=images)
    else:
        stored = images.transpose(0, 3, 1, 2) if kind == "channels first" else images
        np.save(tmp_path / "t.npy", np.ascontiguousarray(stored / np.float32(255) if kind == "float" else stored))
    data = read_teacher_npy(tmp_path / ("t.npz" if kind == "npz" else "t.npy"))
    cache = open_cache(data, tmp_path / "cache", channels=channels)
    rgb = images if images.shape[3] == 3 else np.repeat(images, 3, axis=3)
    for row in range(5):
        grey = np.asarray(cv2.cvtColor(rgb[row], cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
        np.testing.assert_array_equal(cache.images[row], resize_image(grey if channels == 1 else rgb[row], 32))


def test_a_started_worker_maps_the_same_file(data: TeacherData, tmp_path: Path) -> None:
    cache = open_cache(data, tmp_path / "cache")
    pickled = pickle.dumps(cache)
    assert len(pickled) < cache.images.nbytes / 10
    again = pickle.loads(pickled)
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images, cache.images)
    np.save(tmp_path / "fits.npy", cache.images)
    mapped = pickle.loads(pickle.dumps(open_cache(read_teacher_npy(tmp_path / "fits.npy"), tmp_path)))
    np.testing.assert_array_equal(mapped.images, cache.images)


@pytest.mark.parametrize("damage", ["bin cut", "bin gone", "json gone", "json broken", "json empty"])
def test_a_damaged_cache_is_made_again(data: TeacherData, tmp_path: Path, damage: str) -> None:
    expected = np.array(open_cache(data, tmp_path / "cache").images)
    binary, listing = next((tmp_path / "cache").glob("*.bin")), next((tmp_path / "cache").glob("*.json"))
    if damage == "bin cut":
        binary.write_bytes(binary.read_bytes()[:-1])
    elif damage.endswith("gone"):
        (binary if "bin" in damage else listing).unlink()
    else:
        listing.write_text("{" if damage == "json broken" else "{}")
    np.testing.assert_array_equal(open_cache(data, tmp_path / "cache").images, expected)


BUILD = """
import sys, time
from earface.data.image_cache import open_image_cache
from earface.data.npy import read_teacher_npy
def slowly(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))
data = read_teacher_npy(sys.argv[1])
open_image_cache(data, image_size=32, channels=3, cache_dir=sys.argv[2], progress=slowly)
"""


def start_build(data: TeacherData, cache_dir: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(data.source), str(cache_dir), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.runs
def test_a_killed_build_does_no_harm(data: TeacherData, tmp_path: Path) -> None:
    build = start_build(data, tmp_path / "cache", 60.0)
    assert build.stdout is not None
    assert build.stdout.readline() == "1\n"  # it is in the middle of writing
    build.send_signal(signal.SIGKILL)
    build.wait()
    build.stdout.close()
    assert not list((tmp_path / "cache").glob("*.bin"))
    cache = open_cache(data, tmp_path / "cache")
    np.testing.assert_array_equal(cache.images[0], resize_image(read_image(paths_of(data)[0]), 32))


@pytest.mark.runs
def test_several_processes_may_build_it_at_once(data: TeacherData, tmp_path: Path) -> None:
    builds = [start_build(data, tmp_path / "cache", 0.001) for _ in range(3)]
    assert [build.communicate()[0].count("\n") and build.returncode for build in builds] == [0, 0, 0]
    cache = open_cache(data, tmp_path / "cache")
    np.testing.assert_array_equal(cache.images[23], resize_image(read_image(paths_of(data)[23]), 32))
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".bin", ".json"]


def test_a_disk_that_fills_up_while_writing_is_one_line(
    data: TeacherData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @entry_point
    def main(argv: object) -> None:
        open_cache(data, tmp_path / "cache", image_size=64)

    with files_of_at_most(100_000):
        assert main(None) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ".bin" in error
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.runs
def test_a_disk_without_room_is_reported_before_anything_is_decoded(data: TeacherData, tmp_path: Path) -> None:
    build = f"{sys.executable} -c '{BUILD}' {data.source} {tmp_path}/small 0; ls -A {tmp_path}/small"
    shown = run_with_small_disk(tmp_path / "small", "64k", build)
    assert "0.00 GB free: free some space or choose another cache folder" in shown.stderr
    assert shown.stdout == ""


def test_a_read_only_file_system_is_called_that(tmp_path: Path) -> None:
    """Some have no room at all, and to free some would not help."""
    program = (
        "import sys; from pathlib import Path; from earface.core.errors import entry_point; "
        "from earface.core.files import check_free_space; "
        "sys.exit(entry_point(lambda argv: check_free_space(Path(sys.argv[1]) / 'a.bin', 10**15))())"
    )
    cache = tmp_path / "cache"
    ended = run_with_small_disk(cache, "64k", f'mount -o remount,ro {cache} && {sys.executable} -c "{program}" {cache}')
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr
        == f"error: {cache}: Read-only file system: allow it, or choose another folder, then run the same command\n"
    )
