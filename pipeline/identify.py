"""Who is in these pictures? `earface identify`, or `python -m pipeline.identify`."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import output_folder, remove_results, require_path, require_trained
from earface.core.first_imports import first_imports
from earface.core.needed import MissingWeightsError, Needed
from earface.core.notices import as_flags
from pipeline.options import CANDIDATES, CANDIDATES_GRIDS, IdentifyOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from earface.nn.embedding import PictureFile
    from facial_rec.contract import Crop
    from pipeline.ears import EarEmbedder
    from pipeline.embedding import Embedder, FaceEmbedder, Reader
    from pipeline.gallery import Gallery
    from pipeline.identified import Identified, Rule
    from pipeline.recognizers import Recognizer

SHOWN_ON_CONSOLE = 50
TABLE_WIDTH = 120
DECISION_COLUMNS = ("threshold", "operating_point", "likelihood_ratio", "runner_up", "runner_up_score", "pictures")
QUALITY_DIGITS = {"mirror": 3, "norm": 2, "sharpness": 4, "size": 0}
SIZE_TOLERANCE = 1.25  # times the size that a gallery is calibrated for


def probes_of(options: IdentifyOptions, frames: Path) -> list[PictureFile]:
    """The pictures of a folder, or the one; or those of a track. Raises InputError."""
    from earface.data.folders import pictures_at
    from earface.nn.embedding import PictureFile
    from pipeline.track import pictures_of_track

    if options.track is not None:
        return pictures_of_track(Path(options.track), frames, options.every_frame)
    return [PictureFile(each, "") for each in pictures_at(options.input)]


def recognizer_of(gallery: Gallery, options: IdentifyOptions, device: str) -> Recognizer:
    """The recogniser that embedded the gallery. Raises InputError if it is not available, or the given one differs."""
    from facial_rec.contract import FaceContract
    from pipeline.recognizers import load_any

    name = options.recognizer or str(gallery.metadata.get("weights", ""))
    crop: Crop = "center" if gallery.contract == FaceContract("center").id else "arcface"
    try:
        found = load_any(name, crop, device, options.precision)
    except MissingWeightsError:
        raise
    except InputError as error:
        if options.recognizer:
            raise
        raise InputError(f"{error}: `gallery` {options.gallery} was enrolled with it: give `recognizer`") from None
    gallery.check_recognizer(found, Path(options.gallery))
    return found


def write_candidates(path: Path, found: Sequence[Identified], *, ears: bool) -> None:
    """CSV: one row for each picture and candidate. ears: with the sides of both."""
    from earface.data.tables import write_csv

    columns = ["file", "decision", "rank", "identity", "score", "enrolled_picture"]
    columns += ["enrolled_side", "side"] if ears else []
    rows = [
        [each.path, each.decision, rank, candidate.identity, f"{candidate.score:.4f}", candidate.picture]
        + ([candidate.side, each.side] if ears else [])
        + [f"{each.threshold:.4f}", each.rule.origin, _written(each.likelihood_ratio(rank - 1))]
        + ([each.runner_up.identity, f"{each.runner_up.score:.4f}"] if each.runner_up else ["", ""])
        + [each.pictures, *(_measure(each, name) for name in QUALITY_DIGITS), each.found]
        for each in found
        for rank, candidate in enumerate(each.candidates, start=1)
    ]
    write_csv(path, [*columns, *DECISION_COLUMNS, *QUALITY_DIGITS, "found"], rows)


def _measure(found: Identified, name: str) -> str:
    value = found.quality.get(name, math.nan)
    return f"{value:.{QUALITY_DIGITS[name]}f}" if math.isfinite(value) else ""


def _written(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3g}"


def print_candidates(found: Sequence[Identified], console: Console) -> None:
    """One line for each picture: its two best candidates; all of them are in candidates.csv."""
    from rich.markup import escape
    from rich.table import Column, Table

    ratios = any(each.likelihood_ratio() is not None for each in found)
    columns = ["picture", "decision", "best", "score", "next", "score", "threshold", "quality"]
    columns += ["ratio"] if ratios else []
    table = Table(*[Column(name, overflow="fold") for name in columns], box=None, header_style="bold")
    for each in found[:SHOWN_ON_CONSOLE]:
        two = [(candidate.identity, f"{candidate.score:.3f}") for candidate in each.candidates[:2]]
        cells = [text for pair in (*two, *[("", "")] * (2 - len(two))) for text in pair]
        cells += [each.rule.origin, _measure(each, "mirror"), *([_written(each.likelihood_ratio())] if ratios else [])]
        table.add_row(escape(each.path.name), escape(each.decision), *map(escape, cells))
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table)
    if len(found) > SHOWN_ON_CONSOLE:
        console.print(f"and {len(found) - SHOWN_ON_CONSOLE} more pictures, see candidates.csv", highlight=False)


def faces_of(gallery: Gallery, options: IdentifyOptions, device: str) -> tuple[FaceEmbedder, Reader, Reader]:
    """What embeds probes, and readers of the faces in probes and in enrolled pictures. Raises InputError."""
    from dsr.upsampler import build_upsampler
    from earface.data.aligned_faces import FaceReader
    from pipeline.embedding import FaceEmbedder, face_finder

    options.refuse_for_faces()
    with Needed() as needed:
        recognizer = needed(
            lambda: recognizer_of(gallery, options, device),
            "`recognizer` FILE, the one that the gallery was enrolled with",
        )
        upsampler = needed(
            lambda: build_upsampler(options.upsampler, options.dsr_checkpoint, device, options.precision)
        )
        read = needed(lambda: FaceReader(face_finder(options)))
        read_enrolled = needed(lambda: enrolled_reader(gallery, options)) if options.pictures else read
    return FaceEmbedder(recognizer, upsampler, read), read, read_enrolled  # type: ignore[arg-type]  # of faces


def ears_of(
    gallery: Gallery, options: IdentifyOptions, probes: Sequence[PictureFile], device: str
) -> tuple[EarEmbedder, Reader, Reader]:
    """The same of ears."""
    from pipeline.ears import EarEmbedder, ear_pictures, refuse_preparation

    options.refuse_for_ears()
    refuse_preparation(options.track or options.input)
    stored = gallery.metadata
    recognizer: Any = recognizer_of(gallery, options, device)
    options = replace(options, landmarker=options.landmarker or stored.get("landmarker"))
    pictures = ear_pictures(recognizer, options)
    pictures.check(probe.path for probe in probes)
    if not options.pictures:
        return EarEmbedder(recognizer, pictures), pictures.ear, pictures.ear
    aligned, detector = bool(stored.get("aligned", False)), options.detector or stored.get("detector")
    shown = replace(options, aligned=aligned, detector=detector)
    sides = {Path(own[0]).resolve(): side for own, side in zip(gallery.pictures, gallery.sides or [], strict=True)}
    try:
        enrolled = ear_pictures(recognizer, shown, sides)
    except InputError as error:
        raise InputError(f"{error}, to show the pictures that were enrolled, or give `pictures` 0") from None
    return EarEmbedder(recognizer, pictures), pictures.ear, enrolled.ear


def enrolled_reader(gallery: Gallery, options: IdentifyOptions) -> Reader:
    """Reads the enrolled pictures again, with the detector they were enrolled with unless `detector` names one.

    Raises InputError if the detector is not available.
    """
    from earface.data.aligned_faces import FaceReader
    from pipeline.embedding import face_finder

    aligned = bool(gallery.metadata.get("aligned", True))  # tables of earface faces embed are of aligned faces
    detector = options.detector or gallery.metadata.get("detector")
    try:
        enrolled = replace(options, aligned=aligned, detector=detector, centred_crops=True)
        return FaceReader(face_finder(enrolled))
    except InputError as error:
        if not options.aligned:
            raise
        raise InputError(f"{error}, to show the photographs that were enrolled, or give `pictures` 0") from None


def warn_of_other_sizes(rule: Rule, sizes: NDArray[np.floating]) -> None:
    """Where pictures are of another size than those that the gallery was calibrated on."""
    from earface.core.notices import warn
    from earface.data.face_sizes import parse_vlr_size

    if rule.calibration is None or not rule.calibration.vlr_size:
        return
    wanted = min(parse_vlr_size(rule.calibration.vlr_size))
    other = [size for size in sizes.tolist() if not 1 / SIZE_TOLERANCE <= size / wanted <= SIZE_TOLERANCE]
    if other:
        warn(
            f"{len(other)} of {len(sizes)} faces are not of {wanted} pixels, as those of the gallery's calibration "
            f"({rule.calibration.name}), but of {min(other):.0f} to {max(other):.0f}: its rates may not hold"
        )


def warn_of_other_numbers(rule: Rule, gallery: Gallery, probes: int) -> None:
    """Where templates or the probe are made of more pictures than those that the gallery was calibrated on.

    probes: how many pictures make a probe. Means of several pictures have higher scores, between two people as well.
    """
    from earface.core.notices import warn

    if rule.calibration is None:
        return
    own, name = rule.calibration.template_pictures, rule.calibration.name
    larger = sum(len(pictures) > own for pictures in gallery.pictures)
    if larger or probes > 1:
        many = f"{larger} of {len(gallery.pictures)} templates are of more than {own} picture{'s' * (own > 1)}"
        both = " and ".join([many] * bool(larger) + [f"the track is of {probes} pictures, not one"] * (probes > 1))
        warn(f"{both}: the rates of the gallery's calibration ({name}) may not hold")


def identify_people(options: IdentifyOptions, gallery: Gallery, frames: Path, console: Console) -> int:
    """Search, and write and print who was found. frames: a folder for those of a video."""
    import torch

    from earface.nn.inference import choose_device
    from earface.nn.upsampler import NO_UPSAMPLER
    from pipeline.candidate_grid import save_candidates
    from pipeline.embedding import embed_with_progress, print_skipped
    from pipeline.gallery import fusion_of
    from pipeline.identified import UNCALIBRATED, UNKNOWN, Identified
    from pipeline.quality import of_row
    from pipeline.track import identify_track

    out, track, device = Path(options.out), options.track, choose_device(options.device)
    ears = gallery.modality == "ear"
    embedder: Embedder
    if ears:
        probes, upsampler = probes_of(options, frames), NO_UPSAMPLER
        embedder, read, read_enrolled = ears_of(gallery, options, probes, device)
    else:
        embedder, read, read_enrolled = faces_of(gallery, options, device)
        probes, upsampler = probes_of(options, frames), embedder.upsampler
    conditions = {"upsampler": upsampler.name, "upsampler_digest": upsampler.origin}
    rule = gallery.rule(conditions, options.threshold, options.operating_point)
    try:
        embedded = embed_with_progress(embedder, options, probes)
    except InputError as error:  # frames are nobody's files
        raise InputError(str(error).replace(f"{frames}{os.sep}", "")) from None
    kept = [probes[index].path for index in embedded.kept]
    sides, how = embedder.sides_of(kept), embedder.found_of(kept)
    warn_of_other_sizes(rule, embedded.quality["size"])
    warn_of_other_numbers(rule, gallery, 1 if track is None else len(kept))
    if track is not None:
        left_out = Counter(reason for _, reason in embedded.skipped)
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        console.print(
            f"{len(kept)} of {len(probes)} pictures of the track are used{why and f'; left out: {why}'}",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
        fusion = options.fusion or fusion_of(gallery.metadata)
        decided = identify_track(gallery, Path(track), embedded, kept, sides, fusion, rule, options.top_k)
        found = [replace(decided, found=" and ".join(sorted(set(filter(None, how)))))]
    else:
        print_skipped(embedded.skipped, len(probes), console)
        candidates = gallery.search(torch.from_numpy(embedded.embeddings), options.top_k, options.search, sides)
        found = [
            Identified(path, own, rule, side, of_row(embedded.quality, row), found=how[row])
            for row, (path, own, side) in enumerate(zip(kept, candidates, sides or [""] * len(kept), strict=True))
        ]
    write_candidates(out / CANDIDATES, found, ears=ears)
    remove_results(out, CANDIDATES_GRIDS)
    files = [CANDIDATES]
    if options.pictures:
        files += save_candidates(out, found[: options.pictures], read, read_enrolled, upsampler, device)
    print_candidates(found, console)
    if ears and rule.origin == UNCALIBRATED:
        console.print(
            f"note: a threshold of {rule.threshold:g} is a guess: give one that earface evaluate fits to this "
            "recogniser",
            soft_wrap=True,
            highlight=False,
        )
    if 0 < options.pictures < len(found):
        hidden = len(found) - options.pictures
        console.print(
            as_flags(f"{hidden} of {len(found)} pictures are not shown: give a larger `pictures`"), highlight=False
        )
    known = sum(each.decision != UNKNOWN for each in found)
    console.print(
        f"{known} of {len(found)} recognised among {len(gallery)} people at {rule.threshold:.4g} or above: "
        f"{' and '.join(filter(None, (', '.join(files[:-1]), files[-1])))} in {out}",
        soft_wrap=True,
        highlight=False,
    )
    return 0


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(IdentifyOptions, argv, prog="earface identify")
    for path in (options.track or options.input, options.gallery):
        require_path(path)
    output_folder(Path(options.out), (CANDIDATES, *CANDIDATES_GRIDS), options.overwrite)
    if options.upsampler == "dsr":
        require_trained(options.dsr_checkpoint)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from earface.data.names import warn_of_odd_names
        from pipeline.gallery import Gallery

    gallery = Gallery.load(Path(options.gallery), options.sides)
    warn_of_odd_names(gallery.identities, options.gallery)
    with tempfile.TemporaryDirectory(prefix="earface_frames_") as frames:
        return identify_people(options, gallery, Path(frames), Console())


if __name__ == "__main__":
    sys.exit(main())
