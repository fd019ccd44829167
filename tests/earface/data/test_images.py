"""Reading, resizing, listing and writing pictures."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from earface.core.errors import InputError
from earface.data.images import Pixels, image_header, read_ahead, read_image, resize_image, write_image

ORIENTATION = 0x0112
Draw = Callable[..., Pixels]


def opencv_rgb(path: Path) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def forged_png(path: Path, width: int, height: int) -> None:
    """A valid PNG header that declares any size, and next to no data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "webp"])
def test_lossless_formats_give_the_written_pixels(tmp_path: Path, draw: Draw, extension: str) -> None:
    options = {"lossless": True} if extension == "webp" else {}
    Image.fromarray(draw(1)).save(tmp_path / f"a.{extension}", **options)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{extension}"), draw(1))


def test_a_jpeg_decodes_as_opencv_decodes_it(tmp_path: Path, draw: Draw) -> None:
    Image.fromarray(draw(2, 333, 217)).save(tmp_path / "a.jpg", quality=80)
    difference = read_image(tmp_path / "a.jpg").astype(int) - opencv_rgb(tmp_path / "a.jpg")
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, draw: Draw, orientation: int, extension: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(draw(3, 40, 64)).save(tmp_path / f"a.{extension}", exif=exif)
    with Image.open(tmp_path / f"a.{extension}") as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    assert upright.shape == ((64, 40, 3) if orientation > 4 else (40, 64, 3))
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{extension}"), upright)


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_and_rounded(tmp_path: Path, extension: str, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    values[..., 3:] = 65535
    cv2.imwrite(str(tmp_path / f"a.{extension}"), values.squeeze())
    expected = np.rint(values[..., :3] / 257.0).astype(np.uint8)
    expected = np.repeat(expected, 3, axis=2) if channels == 1 else expected[..., ::-1]
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{extension}"), expected)


def test_16_bits_are_turned_upright_too(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={ORIENTATION: 6})
    upright = np.rot90(np.rint(values / 257.0).astype(np.uint8), -1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 1)[..., 0], upright)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 1)[..., 0], upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
def test_a_tiff_is_turned_once_and_its_size_is_that_of_what_is_read(
    tmp_path: Path, orientation: int, compression: str | None, mode: str
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    stored = (
        Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    )
    plain = np.asarray(levels if mode == "I;16" else stored.convert("L"))
    stored.save(tmp_path / "a.tif", tiffinfo={ORIENTATION: orientation}, compression=compression)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = Image.fromarray(plain)
    turned.info["exif"] = exif.tobytes()
    upright = np.asarray(ImageOps.exif_transpose(turned))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 1)[..., 0], upright)
    assert image_header(tmp_path / "a.tif") == (upright.shape[::-1], orientation)


def test_transparency_stands_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0], rgba[:2, :, 3], rgba[2:, :, 3] = 200, 0, 51
    Image.fromarray(rgba).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert (picture[0, 0] == 255).all()
    np.testing.assert_array_equal(picture[3, 3], [244, 204, 204])  # a fifth of the colour, four fifths white


def test_a_transparent_palette_stands_on_white(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[255, 255, 255], [40, 50, 60]])


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA"])
def test_grey_and_palette_pictures_become_rgb(tmp_path: Path, draw: Draw, mode: str) -> None:
    picture = Image.fromarray(draw(4)).convert(mode)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(picture.convert("RGB")))


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    colours = (
        np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8).repeat(16, 0).repeat(16, 1)
    )
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - colours).max() < 12


def test_one_channel_is_the_luma(tmp_path: Path, draw: Draw) -> None:
    Image.fromarray(draw(5)).save(tmp_path / "a.png")
    grey = read_image(tmp_path / "a.png", 1)
    luma = draw(5) @ np.array([0.299, 0.587, 0.114])
    assert grey.shape == (60, 50, 1)
    assert np.abs(grey[..., 0] - luma).max() <= 1


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("part", [0.4, 0.8, 0.97])
def test_a_truncated_file_is_refused(tmp_path: Path, draw: Draw, extension: str, part: float) -> None:
    buffer = io.BytesIO()
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noisy).save(buffer, {"jpg": "jpeg", "tif": "tiff"}.get(extension, extension))
    content = buffer.getvalue()
    path = tmp_path / f"cut.{extension}"
    path.write_bytes(content)
    read_image(path)
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError, match=f"cut.{extension}"):
        read_image(path)


def test_a_truncated_16_bit_file_is_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (40, 40, 3), dtype=np.uint16)
    content = cv2.imencode(".png", values)[1].tobytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="image file is truncated"):
        read_image(tmp_path / "cut.png")


def test_what_cannot_be_a_picture_is_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture\n" * 9)
    os.mkfifo(tmp_path / "fifo.png")
    expected = {"missing.png": "No such file", "empty.png": "empty file", "text.png": "not a picture that can be read"}
    expected |= {".": "not a regular file", "fifo.png": "not a regular file", "a\0b.png": "null"}
    for name, reason in expected.items():
        with pytest.raises(InputError, match=reason) as caught:
            read_image(tmp_path / name)
        assert name.strip(".\0ab") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_32_bit_picture_has_no_known_range(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="32-bit"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("width", "height"), [(25_001, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path, width: int, height: int) -> None:
    forged_png(tmp_path / "bomb.png", width, height)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, above 89 megapixels
        with pytest.raises(InputError, match="more than the limit"):
            read_image(tmp_path / "bomb.png")


def test_the_limits_can_be_set(tmp_path: Path, draw: Draw) -> None:
    Image.fromarray(draw(0)).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png", max_pixels=3000)
    with pytest.raises(InputError, match="60 is more than the limit of 2,999 pixels"):
        read_image(tmp_path / "a.png", max_pixels=2999)
    with pytest.raises(InputError, match="bytes, more than the limit of 100"):
        read_image(tmp_path / "a.png", max_file_bytes=100)


def test_postscript_is_never_interpreted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="not a picture that can be read"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(122, 63), (300, 400), (60, 200), (200, 60), (128, 300), (128, 40)])
def test_each_axis_is_resized_by_its_own_rule(draw: Draw, height: int, width: int, channels: int) -> None:
    image = np.ascontiguousarray(draw(6, height, width)[..., :channels])

    def along(pixels: Pixels, new_width: int, new_height: int) -> Pixels:
        shrinks = new_width < pixels.shape[1] or new_height < pixels.shape[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(pixels, (new_width, new_height), interpolation=method), np.uint8)

    one_axis_at_a_time = along(along(image, 128, height), 128, 128).reshape(128, 128, channels)
    resized = resize_image(image, 128)
    assert resized.shape == (128, 128, channels)
    assert resized.dtype == np.uint8
    assert np.abs(resized.astype(int) - one_axis_at_a_time).max() <= 2  # rounded once more between the axes


def test_resizing_to_the_same_size_changes_nothing(draw: Draw) -> None:
    np.testing.assert_array_equal(resize_image(draw(7, 32, 32), 32), draw(7, 32, 32))


@pytest.mark.parametrize("extension", ["png", "bmp", "tiff"])
def test_writing_and_reading_give_the_same_pixels(tmp_path: Path, draw: Draw, extension: str) -> None:
    write_image(tmp_path / "new" / f"a.{extension}", draw(8))
    np.testing.assert_array_equal(read_image(tmp_path / "new" / f"a.{extension}"), draw(8))
    write_image(tmp_path / f"grey.{extension}", draw(8)[..., :1])
    np.testing.assert_array_equal(read_image(tmp_path / f"grey.{extension}", 1), draw(8)[..., :1])
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_format_that_cannot_be_written_is_refused(tmp_path: Path, draw: Draw) -> None:
    for name, image in (("a.gif", draw(0)), ("a", draw(0)), ("a.png", draw(0).astype(np.float32))):
        with pytest.raises(InputError, match=name):
            write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_reading_ahead_keeps_the_order_and_passes_errors_on() -> None:
    assert list(read_ahead(lambda item: item * item, range(500))) == [item * item for item in range(500)]
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda item: 1 // item, [1, 2, 0, 3]))
