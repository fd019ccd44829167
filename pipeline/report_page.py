"""The evaluation's page: one HTML file with everything in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from earface.core.files import atomic_write
from earface.data.face_sizes import FACE_SIZE
from earface.data.images import Pixels, read_image
from earface.data.pixels import to_uint8
from earface.nn.upsampler import NONE, UPSAMPLER_NAMES
from pipeline.configuration_metrics import MEASURES
from pipeline.configurations import FaceLoader
from pipeline.evaluation import COMPARED, ConditionResult, Failure
from pipeline.report_data import CONVENTION, INSUFFICIENT, JPEG_QUALITY, About, Plots, _shown_differences

# -- the page ----------------------------------------------------------------------------------------------------------


def write_page(
    path: Path,
    about: About,
    results: Sequence[ConditionResult],
    plots: Plots,
    answers: Sequence[str],
    faces: FaceLoader,
) -> None:
    """HTML that needs no other file. faces: as the probes of the failures are read again."""
    drawn = {
        condition: {name: _data_uri(plot.svg, "svg+xml") for name, plot in own.items()}
        for condition, own in plots.items()
    }
    shown = {
        result.condition: [_failure_shown(failure, result, faces) for failure in result.failures] for result in results
    }
    html = _environment().get_template("report.html.jinja").render(
        about=about, results=results, plots=drawn, failures=shown, answers=answers, measures=MEASURES,
        convention=CONVENTION, differences=_shown_differences,
        row_names=list(dict.fromkeys(row.name for result in results for row in result.rows)),
    )  # fmt: skip
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(percent=lambda value: f"{value:.1%}", points=lambda value: f"{value * 100:+.1f}")
    environment.filters["rate"] = lambda value: f"{value:.1%}" if value >= 0.001 else f"{value * 100:.2g}%"
    environment.globals.update(INSUFFICIENT=INSUFFICIENT, COMPARED=COMPARED)
    return environment


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _picture(pixels: Pixels) -> str:
    """PNG of a VLR face, whose pixels are shown one by one; of others JPEG, a fifth of the bytes."""
    kind = "png" if max(pixels.shape[:2]) < FACE_SIZE else "jpeg"
    options = [] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return _data_uri(cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes(), kind)


@torch.no_grad()
def _failure_shown(failure: Failure, result: ConditionResult, faces: FaceLoader) -> dict[str, Any]:
    """The probe as each upsampler shows it, and the two people it was compared with."""
    batch = next(iter(faces.batches([failure.probe], result.condition)))
    vlr = faces.ready(batch, result.condition)["vlr"]
    upsamplers = {row.upsampler.name: row.upsampler for row in result.grid if row.upsampler.name != NONE}
    pictures = {f"probe, {result.condition.vlr_size} px": to_uint8(vlr[0]).cpu().numpy()}
    pictures |= {
        UPSAMPLER_NAMES[name]: to_uint8(upsampler.enlarge(vlr)[0]).cpu().numpy()
        for name, upsampler in upsamplers.items()
    }
    pictures["HR"] = read_image(failure.probe.path)
    pictures[f"taken for {failure.wrong.identity}"] = read_image(failure.wrong.path)
    pictures[f"is {failure.right.identity}"] = read_image(failure.right.path)
    return {"failure": failure, "pictures": {name: _picture(pixels) for name, pixels in pictures.items()}}
