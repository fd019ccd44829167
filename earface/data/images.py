"""Pictures in and out: safe decoding to uint8 RGB, the project's resize, writing a file.

Pillow decodes 8-bit pictures and OpenCV 16-bit ones: Pillow keeps only the high byte of 16-bit colour, and OpenCV
before version 5 fills the missing part of a truncated JPEG with grey.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.core.limits import MAX_PICTURE_BYTES, MAX_PIXELS
from earface.data.picture_formats import WRITTEN, open_picture, reason_unreadable

ORIENTATION = 0x0112  # the EXIF tag
NUM_THREADS = min(16, os.cpu_count() or 1)  # decoding releases the interpreter lock
READ_AHEAD = 4  # items per thread, bounds the memory of decoded pictures

Pixels = NDArray[np.uint8]
Header = tuple[tuple[int, int], int]  # width and height of the upright picture, EXIF orientation
Item = TypeVar("Item")
Result = TypeVar("Result")


def read_image(
    path: str | os.PathLike[str],
    channels: int = 3,
    *,
    max_pixels: int = MAX_PIXELS,
    max_file_bytes: int = MAX_PICTURE_BYTES,
) -> Pixels:
    """(H, W, 3) uint8 RGB of the file, upright; (H, W, 1) grey (ITU-R 601) with channels=1.

    Grey and palette pictures become RGB, transparent ones stand on white, 16 bits are divided by 257 and rounded, CMYK
    is converted without its colour profile, EXIF orientation is applied, of an animation the first frame is taken.
    The limits are checked on the header, before anything is decoded.
    Raises InputError, naming the file and the reason, for everything that prevents this; a truncated file is refused.
    """
    if channels not in (1, 3):
        raise InputError(f"{channels} channels: expected 1 (grey) or 3 (RGB)")
    try:
        content = _read_bounded(Path(path), max_file_bytes)
        pixels = _decode(content, max_pixels)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: {reason_unreadable(content)}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # decoders raise SyntaxError, struct.error, cv2.error and more on broken files
        raise InputError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from None
    return pixels if channels == 3 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]  # type: ignore[return-value]


def _read_bounded(path: Path, max_file_bytes: int) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file")
    if status.st_size == 0:
        raise InputError("empty file")
    if status.st_size > max_file_bytes:
        raise InputError(f"{status.st_size:,} bytes, more than the limit of {max_file_bytes:,}")
    with path.open("rb") as stream:
        return stream.read(max_file_bytes)


def _decode(content: bytes, max_pixels: int) -> Pixels:
    try:
        picture = open_picture(io.BytesIO(content))  # reads the header only
    except Image.DecompressionBombError:
        raise InputError(f"more than the limit of {max_pixels:,} pixels") from None
    with picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise InputError(f"{width}x{height} is more than the limit of {max_pixels:,} pixels")
        if width == 0 or height == 0:
            raise InputError(f"{width}x{height} holds no pixels")
        if _bits_per_channel(picture, content) == 16:
            return _decode_16_bit(content, picture)
        return pixels_of(picture)


def pixels_of(picture: Image.Image) -> Pixels:
    """(H, W, 3) uint8 RGB of Pillow's picture, by the rules of `read_image`. Raises InputError, and Pillow's errors."""
    if picture.mode == "I;16" or (picture.mode == "I" and picture.format == "PPM"):  # of 65535, as Pillow scales it
        grey = np.rint(np.asarray(picture) / np.float32(257.0)).astype(np.uint8)
        return _upright(np.repeat(grey[..., None], 3, axis=2), _orientation(picture))
    if picture.mode in ("I", "F"):
        raise InputError("32-bit pixels have no stated range: convert it to 8 or 16 bits")
    picture.load()  # raises OSError where the data ends early
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        pixels = _on_white(np.asarray(picture.convert("RGBA")))
    else:
        pixels = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return _upright(pixels, _orientation(picture))


def _bits_per_channel(picture: Image.Image, content: bytes) -> int:
    if picture.format == "PNG":
        return content[24]  # IHDR: length, type, width, height, bit depth
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(258, (1,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _decode_16_bit(content: bytes, picture: Image.Image) -> Pixels:
    picture.load()  # only to refuse a truncated file
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise InputError("16-bit pixels of a kind that cannot be decoded")
    eight = np.rint(pixels / np.float32(257.0)).astype(np.uint8)
    if eight.ndim == 2:
        rgb = np.repeat(eight[..., None], 3, axis=2)
    elif eight.shape[2] == 3:
        rgb = eight[..., ::-1]
    else:
        rgb = _on_white(eight[..., [2, 1, 0, 3]])
    # OpenCV turns a TIFF upright by itself
    return _upright(rgb, 1 if picture.format == "TIFF" else _orientation(picture))


def _on_white(rgba: Pixels) -> Pixels:
    alpha = rgba[..., 3:].astype(np.float32) / 255.0
    return np.rint(rgba[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    try:
        orientation = int(picture.getexif().get(ORIENTATION, 1))
        return orientation if 1 <= orientation <= 8 else 1
    except Exception:  # broken EXIF says nothing about the pixels
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.array(pixels, order="C")  # a copy: what Pillow hands out is read-only


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of the upright picture, from its header. Raises InputError where there is none."""
    return image_header(path)[0]


def image_header(path: str | os.PathLike[str]) -> Header:
    """Size of the upright picture, and the EXIF orientation, 1 to 8. Raises InputError where there is no header."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InputError(f"{path}: not a regular file")
        with open_picture(path) as picture:
            orientation, (width, height) = _orientation(picture), picture.size
            if picture.format == "TIFF":  # whose size is turned already, by some versions of Pillow
                width, height = (int(picture.tag_v2[tag]) for tag in (256, 257))  # type: ignore[attr-defined]
            return ((height, width) if orientation in (5, 6, 7, 8) else (width, height)), orientation
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: {reason_unreadable(_start(Path(path)))}") from None
    except Exception as error:  # as in read_image
        raise InputError(f"{path}: not a picture that can be read ({type(error).__name__}: {error})") from None


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(64)


def resize_image(image: Pixels, size: int) -> Pixels:
    """(H, W, C) -> (size, size, C) uint8: stretched to a square, the project's measuring convention.

    Each axis by itself: INTER_AREA where it shrinks, INTER_CUBIC where it grows. 63x122 -> 128x128 is cubic on both;
    200x60 -> 128x128 is area across and cubic down.
    """
    height, width, num_channels = image.shape
    if height == size and width == size:
        return image
    if (width > size) == (height > size) or size in (width, height):
        method = cv2.INTER_AREA if max(width, height) > size else cv2.INTER_CUBIC
        resized = cv2.resize(image, (size, size), interpolation=method)
    elif width > size:
        narrow = cv2.resize(image, (size, height), interpolation=cv2.INTER_AREA)
        resized = cv2.resize(narrow, (size, size), interpolation=cv2.INTER_CUBIC)
    else:
        low = cv2.resize(image, (width, size), interpolation=cv2.INTER_AREA)
        resized = cv2.resize(low, (size, size), interpolation=cv2.INTER_CUBIC)
    return resized.reshape(size, size, num_channels).astype(np.uint8, copy=False)


def writable_name(path: Path) -> Path:
    """The name of a picture made of one of this name: .png is added to an extension that is only read."""
    return path if path.suffix.lower() in WRITTEN else path.with_name(f"{path.name}.png")


def write_image(path: str | os.PathLike[str], image: Pixels, *, quality: int = 95) -> None:
    """Write (H, W, 3) RGB or (H, W, 1) / (H, W) grey uint8 in the format of the extension, whole or not at all.

    quality: of JPEG and WebP, 1 to 100. Raises InputError for an extension or array that cannot be written.
    """
    path = Path(path)
    extension = path.suffix.lower()
    if extension not in WRITTEN:
        raise InputError(f"{path}: cannot write {extension or 'a name without extension'}; use {', '.join(WRITTEN)}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InputError(f"{path}: expected uint8 (H, W, 3), (H, W, 1) or (H, W), not {image.dtype} {image.shape}")
    lossy = dict.fromkeys((".jpg", ".jpeg"), cv2.IMWRITE_JPEG_QUALITY) | {".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [lossy[extension], quality] if extension in lossy else []
    colour = image.ndim == 3 and image.shape[2] == 3
    encoded = cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if colour else image, options)[1]
    with atomic_write(path, sync=False) as temporary:
        temporary.write_bytes(encoded.tobytes())


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = NUM_THREADS
) -> Iterator[Result]:
    """function(item) of each item, in their order, computed by threads a bounded distance ahead."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it reads well
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= READ_AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
