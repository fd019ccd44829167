"""Which files are pictures: those that are read, and those that only look like one."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError, features

from earface.core.files import LFS_ADVICE, is_lfs_pointer
from earface.core.limits import MAX_PIXELS

HEIF = (".heic", ".heif", ".hif")
_HAS_HEIF = find_spec("pi_heif") is not None
_HAS_AVIF = bool(features.check_module("avif"))
_DECODED = ".bmp .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif .tiff .webp"
EXTENSIONS = tuple(sorted((*_DECODED.split(), *((".avif",) if _HAS_AVIF else ()), *(HEIF if _HAS_HEIF else ()))))
SHOWN_EXTENSIONS = ".jpg, .png, .tif, .bmp, .webp and others"  # in messages
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", *(("AVIF",) if _HAS_AVIF else ()))
# never EPS: Pillow would start Ghostscript for it
WRITTEN = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_UNDECODED = ".avif .heic .heif .hif .jxl .psd .svg .eps .tga .exr .hdr .xcf .pcx .ico .j2k .jpx .pfm .dcm .fits"
_RAW = ".dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .pef .srw"
UNREAD_EXTENSIONS = frozenset((*_UNDECODED.split(), *_RAW.split())) - {*EXTENSIONS}  # pictures, but not read
_OTHER = (  # beside pictures, and none: not opened to look
    ".csv .tsv .txt .json .jsonl .xml .yaml .yml .toml .ini .md .rst .html .pts .npy .npz .mat .pkl .h5 .hdf5 .db "
    ".parquet .xls .xlsx .doc .docx .pdf .zip .tar .gz .7z .rar .py .m .sh .log .lnk .mp4 .mov .avi .mkv .onnx .ckpt "
    ".pt .pth .safetensors .tmp .part .aae .xmp .thm"
)
OTHER_EXTENSIONS = frozenset(_OTHER.split())
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P2\n",
    b"P3\n",
    b"P5\n",
    b"P6\n",
    b"8BPS",
)
_HEIF_ADVICE = "which needs a decoder: pip install pi-heif"

if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's limit, half of this, is for programs that have none of their own
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS)


def open_picture(source: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """Pillow's picture, of which no more than the header is read. Raises what Pillow raises."""
    try:
        return Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        if not _HAS_HEIF:
            raise
    _register_heif()
    return Image.open(source, formats=("HEIF",))


@cache
def _register_heif() -> None:
    import pi_heif

    pi_heif.register_heif_opener()


def looks_like_picture(path: Path) -> bool:
    """Whether a file that has no picture's extension begins like one."""
    if path.suffix.lower() in OTHER_EXTENSIONS:
        return False
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or _is_heif(start)


def reason_unread(extension: str) -> str:
    """Why a listing leaves out a file of this extension, in lower case, that `looks_like_picture` or is known to be."""
    if extension in HEIF:
        return _HEIF_ADVICE
    if extension in UNREAD_EXTENSIONS:
        return f"{extension}, which is not read"
    return "with a picture's content and no picture's extension: rename it"


def reason_unreadable(content: bytes) -> str:
    """Why a file that begins so is not read."""
    if is_lfs_pointer(content):
        return LFS_ADVICE
    if _is_heif(content) and not _HAS_HEIF:
        return f"HEIC, {_HEIF_ADVICE}"
    return f"not a picture that can be read ({', '.join(FORMATS)})"


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS
