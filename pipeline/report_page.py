"""The evaluation's report as one HTML file with everything in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2

from earface.core.notices import lists_of_warnings, warnings_given
from earface.data.face_sizes import FACE_SIZE, NONE
from earface.data.images import Pixels, read_image
from earface.reports.page_parts import data_uri, write_page
from pipeline.configuration_metrics import METRICS
from pipeline.evaluation import COMPARED, AnyCondition, ConditionResult, Failure
from pipeline.picture_quality import ERRORS
from pipeline.protocol import Enrolment
from pipeline.quality import MEASURES
from pipeline.recommendations import ENOUGH, FNIR, RATE, RULE, Recommendation
from pipeline.rejected import Rejected, rejected
from pipeline.report_data import INSUFFICIENT, JPEG_QUALITY, About, Plot, Plots, shown_differences
from pipeline.stages import StagedFace, hardest, staged_faces

STAGES = {NONE: "VLR", "bicubic": "interpolated", "dsr": "DSR"}  # by upsampler
FILTERS = {
    "percent": lambda value: f"{value:.1%}",
    "points": lambda value: f"{value * 100:+.1f}",
    "rate": lambda value: f"{value:.1%}" if value >= 0.001 else f"{value * 100:.2g}%",
}


class ReportPictures(Protocol):
    """Reads pictures of probes again: a FaceLoader, or EarEmbeddings."""

    def enlarged(self, rows: Sequence[Any], result: ConditionResult) -> list[dict[str, Pixels]]:
        """Of each probe the picture by upsampler; under NONE as it came."""

    def pictures_of(self, failures: Sequence[Failure], result: ConditionResult) -> list[dict[str, Pixels]]:
        """Of each failure caption -> picture, the probe first."""


class Score(NamedTuple):
    """Of a probe and its mate, by one recogniser."""

    recognizer: str  # pretrained or fine-tuned
    cosine: float
    rank: int


class Stage(NamedTuple):
    """A picture of a probe, and the scores of all recognisers that saw it."""

    name: str
    uri: str
    scores: list[Score]


class ShownFace(NamedTuple):
    """A probe as it is enrolled, HR, and at each stage under each condition."""

    face: StagedFace
    whole: list[Stage]
    conditions: dict[AnyCondition, list[Stage]]


class ShownProbe(NamedTuple):
    """A probe of low quality."""

    uri: str
    taken_for: str  # empty where it was found


class ShownRejects(NamedTuple):
    """What quality rejects under a condition; None where too few errors were made."""

    result: ConditionResult
    rejected: Rejected | None
    probes: list[ShownProbe]


def write_report_page(
    path: Path,
    about: About,
    results: Sequence[ConditionResult],
    plots: Plots,
    over: Mapping[str, Plot],
    answers: Sequence[str],
    recommendations: Sequence[Recommendation],
    pictures: ReportPictures | None,
) -> None:
    """HTML that needs no other file. over: plots that compare conditions. pictures: None: no face is shown."""
    test = about.protocol.test
    write_page(
        path,
        "report.html.jinja",
        "pipeline",
        FILTERS,
        about=about, results=results, answers=answers, recommendations=recommendations,
        plots={condition: _embedded(own) for condition, own in plots.items()}, over=_embedded(over),
        failures={result.condition: _failures(result, pictures) for result in results},
        faces=[] if pictures is None else _faces(results, test, pictures), hardest=hardest, stages=STAGES,
        rejects=_rejects(results, test, pictures), rule=RULE, rate=RATE, fnir=FNIR, enough=ENOUGH,
        titles={name: title for name, (title, _) in METRICS.items()},
        higher_is_better={name: higher for name, (_, higher) in METRICS.items()},
        warnings=warnings_given(), listed=lists_of_warnings(), wording=about.wording, differences=shown_differences,
        moved=lambda condition: getattr(condition, "movement", None) is not None,  # of faces
        measures=MEASURES, kinds=ERRORS, INSUFFICIENT=INSUFFICIENT, COMPARED=COMPARED,
        names=list(dict.fromkeys(each.name for result in results for each in result.results)),
    )  # fmt: skip


def _embedded(plots: Mapping[str, Plot]) -> dict[str, str]:
    return {name: data_uri(plot.svg, "svg+xml") for name, plot in plots.items()}


def _picture(pixels: Pixels) -> str:
    """PNG of a VLR face, whose single pixels are shown; JPEG of others, a fifth of the bytes."""
    kind = "png" if max(pixels.shape[:2]) < FACE_SIZE else "jpeg"
    options = [] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return data_uri(cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes(), kind)


def _failures(result: ConditionResult, pictures: ReportPictures | None) -> list[tuple[Failure, dict[str, str]]]:
    """Each with its pictures, by caption."""
    found = [{}] * len(result.failures) if pictures is None else pictures.pictures_of(result.failures, result)
    shown = [{name: _picture(pixels) for name, pixels in own.items()} for own in found]
    return list(zip(result.failures, shown, strict=True))


def _faces(results: Sequence[ConditionResult], test: Enrolment, pictures: ReportPictures) -> list[ShownFace]:
    chosen = staged_faces(results, test)
    shown = []
    for face in chosen:
        enrolled, whole = (_picture(read_image(row.path)) for row in (face.enrolled, face.probe))
        hr = Stage("HR original", whole, _scores(results[0], face.place, NONE))
        shown.append(ShownFace(face, [Stage("enrolled", enrolled, []), hr], {}))
    for result in results if chosen else ():
        found = pictures.enlarged([face.probe for face in chosen], result)
        for own, made in zip(shown, found, strict=True):
            own.conditions[result.condition] = [
                Stage(STAGES[name], _picture(made[name]), [] if name == NONE else _scores(result, own.face.place, name))
                for name in STAGES
                if name in made
            ]
    return shown


def _scores(result: ConditionResult, place: int, upsampler: str) -> list[Score]:
    """Of one probe, by the configurations that have this upsampler."""
    return [
        Score(each.name.rpartition(" + ")[2], float(each.searches.mated[place]), int(each.searches.rank[place]))
        for own, each in zip(result.configurations, result.results, strict=True)
        if own.plain().get("upsampler") == upsampler and each.searches is not None
    ]


def _rejects(
    results: Sequence[ConditionResult], test: Enrolment, pictures: ReportPictures | None
) -> list[ShownRejects]:
    """Nothing where quality was not measured. Pictures only where a measure predicts errors."""
    names = list(dict.fromkeys(row.identity for row in test.gallery))
    shown = []
    for result in results:
        last, probes = result.results[-1], []
        found = rejected(last)
        if found is not None and found.predicts and pictures is not None and last.searches is not None:
            made = pictures.enlarged([test.probes[place] for place in found.lowest], result)
            seen = result.configurations[-1].plain().get("upsampler", NONE)
            for place, own in zip(found.lowest, made, strict=True):
                right = last.searches.rank[place] == 1
                probes.append(ShownProbe(_picture(own[seen]), "" if right else names[last.searches.best_row[place]]))
        if last.error_rejects:
            shown.append(ShownRejects(result, found, probes))
    return shown
