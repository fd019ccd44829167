"""Who is in these pictures? `earface identify`, or `python -m pipeline.identify`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import output_folder, require_path, require_trained
from earface.core.first_imports import first_imports
from earface.core.needed import MissingWeightsError, Needed
from pipeline.options import CANDIDATES, CANDIDATES_GRID, IdentifyOptions

if TYPE_CHECKING:
    from rich.console import Console

    from earface.nn.embedding import PictureFile
    from facial_rec.contract import Crop
    from facial_rec.recognizer import FaceRecognizer
    from pipeline.embedding import Reader
    from pipeline.gallery import Gallery, Identified

SHOWN_ON_CONSOLE = 50
TABLE_WIDTH = 120


def probes_of(given: str) -> list[PictureFile]:
    """The pictures of a folder, or the one. Raises InputError."""
    from earface.data.images import EXTENSIONS, list_images
    from earface.nn.embedding import PictureFile

    path = Path(given)
    if path.is_dir():
        paths = list_images(path)
    elif path.is_file() and path.suffix.lower() in EXTENSIONS:
        paths = [path]
    else:
        raise InputError(f"`input` {path}: {'neither a folder nor a picture' if path.exists() else 'no such file'}")
    if not paths:
        raise InputError(f"`input` {path}: holds no pictures ({', '.join(EXTENSIONS)})")
    return [PictureFile(each, "") for each in paths]


def recognizer_of(gallery: Gallery, options: IdentifyOptions, device: str) -> FaceRecognizer:
    """The recogniser that embedded the gallery. Raises InputError if it is not available, or the given one differs."""
    from facial_rec.contract import FaceContract
    from facial_rec.recognizer import load_recognizer

    name = options.recognizer or str(gallery.metadata.get("weights", ""))
    crop: Crop = "center" if gallery.contract == FaceContract("center").id else "arcface"
    try:
        found = load_recognizer(name, crop, device, options.precision)
    except MissingWeightsError:
        raise
    except InputError as error:
        if options.recognizer:
            raise
        raise InputError(f"{error}: `gallery` {options.gallery} was enrolled with it: give `recognizer`") from None
    gallery.check_key(found.key, Path(options.gallery))
    return found


def write_candidates(path: Path, found: Sequence[Identified]) -> None:
    """CSV: one row for each picture and candidate."""
    from earface.data.tables import write_csv

    rows = [
        (each.path, each.decision, rank, candidate.identity, f"{candidate.score:.4f}", candidate.picture)
        for each in found
        for rank, candidate in enumerate(each.candidates, start=1)
    ]
    write_csv(path, ("file", "decision", "rank", "identity", "score", "enrolled_picture"), rows)


def print_candidates(found: Sequence[Identified], console: Console) -> None:
    """One line for each picture: its two best candidates; all of them are in candidates.csv."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("picture", "decision", "best", "score", "next", "score", box=None, header_style="bold")
    for each in found[:SHOWN_ON_CONSOLE]:
        two = [(candidate.identity, f"{candidate.score:.3f}") for candidate in each.candidates[:2]]
        cells = [text for pair in two for text in pair]
        table.add_row(escape(each.path.name), escape(each.decision), *map(escape, cells))
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table)
    if len(found) > SHOWN_ON_CONSOLE:
        console.print(f"and {len(found) - SHOWN_ON_CONSOLE} more pictures, see candidates.csv", highlight=False)


def enrolled_reader(gallery: Gallery, options: IdentifyOptions) -> Reader:
    """Reads the enrolled pictures again, with the detector they were enrolled with unless `detector` names one.

    Raises InputError if the detector is not available.
    """
    from pipeline.embedding import face_finder, face_reader

    aligned = bool(gallery.metadata.get("aligned", True))  # tables of earface faces embed are of aligned faces
    detector = options.detector or gallery.metadata.get("detector")
    try:
        return face_reader(face_finder(replace(options, aligned=aligned, detector=detector)))
    except InputError as error:
        if not options.aligned:
            raise
        raise InputError(f"{error}, to show the photographs that were enrolled, or give `pictures` 0") from None


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(IdentifyOptions, argv, prog="earface identify")
    for path in (options.input, options.gallery):
        require_path(path)
    out = output_folder(Path(options.out), (CANDIDATES, CANDIDATES_GRID), options.overwrite)
    if options.upsampler == "dsr":
        require_trained(options.dsr_checkpoint)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        import torch
        from rich.console import Console

        from dsr.upsampler import build_upsampler
        from earface.nn.inference import choose_device
        from pipeline.candidate_grid import save_candidates
        from pipeline.embedding import embed_with_progress, face_finder, face_reader, print_skipped
        from pipeline.gallery import UNKNOWN, Gallery, Identified

    console, device = Console(), choose_device(options.device)
    gallery = Gallery.load(Path(options.gallery))
    with Needed() as needed:
        recognizer = needed(
            lambda: recognizer_of(gallery, options, device),
            "`recognizer` FILE, the one that the gallery was enrolled with",
        )
        upsampler = needed(
            lambda: build_upsampler(options.upsampler, options.dsr_checkpoint, device, options.precision)
        )
        read = needed(lambda: face_reader(face_finder(options)))
        read_enrolled = needed(lambda: enrolled_reader(gallery, options)) if options.pictures else read
    faces = probes_of(options.input)
    embedded = embed_with_progress(recognizer, upsampler, read, options, faces, console)
    print_skipped(embedded.skipped, len(faces), console)
    candidates = gallery.search(torch.from_numpy(embedded.embeddings), options.top_k, options.search)
    found = [
        Identified(faces[index].path, own, options.threshold)
        for index, own in zip(embedded.kept, candidates, strict=True)
    ]
    write_candidates(out / CANDIDATES, found)
    if options.pictures:
        save_candidates(out / CANDIDATES_GRID, found[: options.pictures], read, read_enrolled, upsampler, device)
    print_candidates(found, console)
    known = sum(each.decision != UNKNOWN for each in found)
    console.print(
        f"{known} of {len(found)} recognised among {len(gallery)} people at {options.threshold:g} or above: "
        f"candidates.csv{' and candidates.png' if options.pictures else ''} in {out}",
        soft_wrap=True,
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
