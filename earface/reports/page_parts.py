"""What the pages of runs and evaluations share: templates, their style, and pictures inside them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from earface.core.files import atomic_write
from earface.data.images import Pixels, read_image

OWN = "earface.reports"
JPEG_QUALITY = 85
LONGEST_SIDE = 1600  # px


def write_page(
    path: Path,
    template: str,
    package: str = OWN,
    filters: Mapping[str, Callable[..., str]] | None = None,
    **content: Any,
) -> None:
    """An HTML file that needs no other. template: a file of `package`, which may include those of this folder."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader(OWN, ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    html = environment.get_template(template).render(**content)
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")


def data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture_uri(path: Path) -> str:
    """A file as JPEG of at most LONGEST_SIDE. Raises InputError for what is no picture."""
    pixels: Pixels = read_image(path, 3)
    scale = LONGEST_SIDE / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return data_uri(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes(), "jpeg")
