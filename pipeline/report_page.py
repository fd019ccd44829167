"""The evaluation's report as one HTML file with everything in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined

from earface.core.files import atomic_write
from earface.core.notices import lists_of_warnings, warnings_given
from earface.data.face_sizes import FACE_SIZE
from earface.data.images import Pixels
from pipeline.configuration_metrics import METRICS
from pipeline.evaluation import COMPARED, ConditionResult, Failure
from pipeline.picture_quality import ERRORS
from pipeline.quality import MEASURES
from pipeline.report_data import INSUFFICIENT, JPEG_QUALITY, About, Plots, shown_differences


class FailurePictures(Protocol):
    """Reads the pictures of a failure again: a FaceLoader, or EarEmbeddings."""

    def pictures_of(self, failure: Failure, result: ConditionResult) -> dict[str, Pixels]:
        """Caption -> picture, the probe first."""


class ShownFailure(NamedTuple):
    """A failure with its pictures, by caption, as data URIs."""

    failure: Failure
    pictures: dict[str, str]


def write_page(
    path: Path,
    about: About,
    results: Sequence[ConditionResult],
    plots: Plots,
    answers: Sequence[str],
    pictures: FailurePictures | None,
) -> None:
    """HTML that needs no other file."""
    embedded = {
        condition: {name: _data_uri(plot.svg, "svg+xml") for name, plot in own.items()}
        for condition, own in plots.items()
    }
    shown = {
        result.condition: [_failure_shown(failure, result, pictures) for failure in result.failures]
        for result in results
    }
    html = _environment().get_template("report.html.jinja").render(
        about=about, results=results, plots=embedded, failures=shown, answers=answers,
        titles={name: title for name, (title, _) in METRICS.items()},
        higher_is_better={name: higher for name, (_, higher) in METRICS.items()},
        warnings=warnings_given(), listed=lists_of_warnings(), wording=about.wording, differences=shown_differences,
        measures=MEASURES, kinds=ERRORS,
        names=list(dict.fromkeys(each.name for result in results for each in result.results)),
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
    """PNG of a VLR face, whose single pixels are shown; JPEG of others, a fifth of the bytes."""
    kind = "png" if max(pixels.shape[:2]) < FACE_SIZE else "jpeg"
    options = [] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return _data_uri(cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes(), kind)


def _failure_shown(failure: Failure, result: ConditionResult, pictures: FailurePictures | None) -> ShownFailure:
    shown = {} if pictures is None else pictures.pictures_of(failure, result)
    return ShownFailure(failure, {name: _picture(pixels) for name, pixels in shown.items()})
