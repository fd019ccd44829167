"""The formats in which people have pictures: each is read as the same picture, or refused by name."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from earface.core.errors import InputError
from earface.data import picture_formats
from earface.data.images import Pixels, image_size, read_image, writable_name, write_image
from earface.data.picture_formats import EXTENSIONS, UNREAD_EXTENSIONS

HEIC = """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA
ACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAbsAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt
AAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA
AAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5j
bHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBp
eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAcNtZGF0AAABtygBrwT43m7++6rYAfiHQJbqwDy4jyGvmfgZOH+m
iNJW0E+8X0Efuj3yylwAljUvstXjWRDm+E2ylA7tlhjo83Aqy3EAkrARfniynYgbMCzDWT0sJqjb3nCjjuF89dK4grdZX32EcTcD
E0dopla5PQ4mOcQNsFms5RQ+pqVXiBrN+iiQCRUxWtga5VHxtCJfHgzPhkVp021NnLj3u8lRUajfXtAIv634fo/hSQFs3QXOpO84
jWQ4UrNg8ChlwUDFDt7wpBUv4QykI2BlSFD1OSaMc/E8DorPLyC78skgHbJ7xcDltgrLYpYgsMK/CwV/deaTmjQxozZev2/qIRPV
3UJ3trIuf7TZjylZ3j6F/ziyd/CC3w4+v40DRQ+IVLSefansS9TjW25O3Lbvy2/mke+A1AHV9a+2vyjifk5MYZXNMnpL2jx7dMbY
S4WekHeun7/r4a3kfyFs/4UMBERny2GxXh/1Wzvz2IU6dxrkdnIVD9tkE2tJNUGB0QOJshaJPyEzbzly2aA8raB//oTc8rpf/GnX
9h/6iz1lkaWo4Bwb7lvmJaA8j+QXm/GsLDHBMHg4ebcSLWA=
"""  # `picture`, written by pillow-heif at quality 80
TOLERANCE = 12  # grey levels on average, of lossy compression


def picture() -> Pixels:
    """(48, 64, 3): a slope of red across, of green down, and a blue corner, which tells how it is turned."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, np.where((x < 20) & (y < 12), 255, 40)], -1).astype(np.uint8)


SAVED = {
    **dict.fromkeys(("a.jfif", "a.jpe", "a.mpo", "a.JPG", "wrong.png"), "JPEG"),
    **dict.fromkeys(("a.ppm", "a.pnm"), "PPM"),
    **{"a.jp2": "JPEG2000", "a.tif": "TIFF", "a.bmp": "BMP", "a.webp": "WEBP"},
}


@pytest.mark.parametrize("name", SAVED)
def test_what_pillow_reads_is_read(tmp_path: Path, name: str) -> None:
    Image.fromarray(picture()).save(tmp_path / name, SAVED[name])
    assert Path(name).suffix.lower() in EXTENSIONS
    assert np.abs(read_image(tmp_path / name).astype(int) - picture()).mean() < TOLERANCE
    assert image_size(tmp_path / name) == (64, 48)


@pytest.mark.skipif(not features.check_module("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.avif")
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - picture()).mean() < TOLERANCE


def test_heic_is_read_where_its_decoder_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    for name in ("IMG_0001.HEIC", "renamed.jpg"):
        (tmp_path / name).write_bytes(base64.b64decode(HEIC))
        assert np.abs(read_image(tmp_path / name).astype(int) - picture()).mean() < TOLERANCE
        assert image_size(tmp_path / name) == (64, 48)


def test_heic_without_its_decoder_is_a_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_formats, "_HAS_HEIF", False)
    (tmp_path / "a.heic").write_bytes(base64.b64decode(HEIC))
    with pytest.raises(InputError, match=r"a\.heic: HEIC, which needs a decoder: pip install pi-heif"):
        read_image(tmp_path / "a.heic")


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (30, 200)]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        np.testing.assert_array_equal(read_image(tmp_path / name), np.asarray(frames[0]))


def test_grey_maps_of_8_and_16_bits_are_the_same_picture(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    (tmp_path / "8.pgm").write_bytes(b"P5 64 48 255\n" + grey.tobytes())
    (tmp_path / "16.pgm").write_bytes(b"P5 64 48 65535\n" + (grey.astype(">u2") * 257).tobytes())
    (tmp_path / "plain.pgm").write_text("P2 64 48 255\n" + " ".join(map(str, grey.ravel())))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.tif")
    for name in ("8.pgm", "16.pgm", "plain.pgm", "16.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name), np.repeat(grey[..., None], 3, axis=2))


def test_a_phone_of_108_megapixels_is_read(tmp_path: Path) -> None:
    Image.new("L", (12_000, 9_000), 77).save(tmp_path / "phone.jpg", quality=30)
    pixels = read_image(tmp_path / "phone.jpg", 1)
    assert pixels.shape == (9_000, 12_000, 1)
    assert pixels[4_000, 4_000] == 77


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_picture_made_of_any_that_is_read_can_be_written(tmp_path: Path, extension: str) -> None:
    name = writable_name(tmp_path / f"a.B{extension.upper()}")
    write_image(name, picture())
    assert name.name.startswith(f"a.B{extension.upper()}")
    assert read_image(name).shape == picture().shape


def test_no_extension_is_both_read_and_left_out() -> None:
    assert not UNREAD_EXTENSIONS & {*EXTENSIONS}
    assert not picture_formats.OTHER_EXTENSIONS & {*EXTENSIONS, *UNREAD_EXTENSIONS}
