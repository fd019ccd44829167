"""Pictures of people to a gallery: `earface enroll`, or `python -m pipeline.enroll`."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import require_file, require_path, require_trained
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from pipeline.options import FPIRS, EnrollOptions, Fusion

if TYPE_CHECKING:
    from rich.console import Console

    from earface.data.face_rows import FaceRow
    from earface.data.identity_embeddings import IdentityEmbeddings
    from earface.nn.embedding import PictureFile
    from pipeline.calibration import Calibration
    from pipeline.ears import EarEmbedder
    from pipeline.embedding import Embedder, FaceEmbedder
    from pipeline.gallery import Gallery


def pictures_with_names(rows: Sequence[FaceRow]) -> list[PictureFile]:
    """Raises InputError for a picture whose person's name is blank, or what people are called who are not enrolled."""
    from earface.nn.embedding import PictureFile
    from pipeline.gallery import NOT_A_NAME
    from pipeline.identified import UNKNOWN

    pictures = [PictureFile(row.path.resolve(), row.identity) for row in rows]
    if blank := next((each.path for each in pictures if not each.identity), None):
        raise InputError(f"{blank}: the name of its person is blank")
    if namesake := next((each for each in pictures if each.identity.casefold() == UNKNOWN), None):
        raise InputError(f"{namesake.path}: its person is called {namesake.identity!r}, {NOT_A_NAME}: rename them")
    return pictures


def face_embedder(options: EnrollOptions, device: str) -> FaceEmbedder:
    """Raises InputError, of all that is not available at once."""
    from dsr.upsampler import build_upsampler
    from earface.data.aligned_faces import FaceReader
    from facial_rec.recognizer import load_recognizer
    from pipeline.embedding import FaceEmbedder, face_finder

    options.refuse_for_faces()
    with Needed() as needed:
        recognizer = needed(
            lambda: load_recognizer(options.recognizer, options.crop, device, options.precision),
            f"--recognizer FILE (the authors' {options.recognizer}.pt)",
        )
        upsampler = needed(
            lambda: build_upsampler(options.upsampler, options.dsr_checkpoint, device, options.precision)
        )
        read = needed(lambda: FaceReader(face_finder(options)))
    return FaceEmbedder(recognizer, upsampler, read, {}, mirrored=options.fusion == "quality")


def ear_embedder(options: EnrollOptions, device: str) -> EarEmbedder:
    from ear_teacher.recognition.loading import load_recognizer
    from pipeline.ears import EarEmbedder, ear_pictures, sides_in_index

    options.refuse_for_ears()
    recognizer = load_recognizer(options.recognizer, device, precision=options.precision)
    given = sides_in_index(Path(options.input)) if Path(options.input).is_file() else {}
    return EarEmbedder(recognizer, ear_pictures(recognizer, options, given), {})


def enrolled(
    faces: Sequence[PictureFile], options: EnrollOptions, embedder: Embedder, console: Console
) -> IdentityEmbeddings:
    """The pictures as rows of a gallery. Raises InputError if none can be used."""
    from earface.data.identity_embeddings import IdentityEmbeddings
    from earface.data.names import warn_of_lost_people
    from pipeline.embedding import FaceEmbedder, embed_with_progress, print_skipped
    from pipeline.gallery import TEMPLATE_RULE, WEIGHTED_RULE

    fusion = options.fusion or "mean"

    found = embed_with_progress(embedder, options, faces)
    print_skipped(found.skipped, len(faces), console)
    kept = [faces[index] for index in found.kept]
    lost = sorted({face.identity for face in faces} - {face.identity for face in kept})
    for identity in lost:
        console.print(f"{identity} is not enrolled: no picture can be used", markup=False, highlight=False)
    warn_of_lost_people((face.identity for face in faces), (face.identity for face in kept), options.input)
    about = faces_metadata if isinstance(embedder, FaceEmbedder) else ears_metadata
    return IdentityEmbeddings(
        embeddings=found.embeddings,
        paths=[str(face.path) for face in kept],
        identities=[face.identity for face in kept],
        contract=embedder.recognizer.contract.id,
        digest=embedder.recognizer.digest,
        metadata={
            **about(embedder, options),  # type: ignore[arg-type]
            "weights": _written(embedder.recognizer.name),
            "aligned": options.aligned,
            "detector": options.detector and _written(options.detector),
            "skipped": [list(entry) for entry in found.skipped],
            "template": TEMPLATE_RULE if fusion == "mean" else WEIGHTED_RULE,
            "fusion": fusion,
        },
        quality=found.quality,
        sides=embedder.sides_of([face.path for face in kept]),
    )


def faces_metadata(embedder: FaceEmbedder, options: EnrollOptions) -> dict[str, Any]:
    recognizer = embedder.recognizer
    return {
        "variant": recognizer.model.variant,
        "crop": recognizer.contract.crop,
        "flip": False,
        "upsampler": options.upsampler,
    }


def ears_metadata(embedder: EarEmbedder, options: EnrollOptions) -> dict[str, Any]:
    landmarker = options.landmarker and _written(options.landmarker)
    return {"backbone": embedder.recognizer.model.config.backbone, "flip": True, "landmarker": landmarker}


def notes_on(table: IdentityEmbeddings, faces: Sequence[PictureFile], embedder: Embedder) -> list[str]:
    """What whoever enrols these pictures should know.

    table: of the whole gallery. A side is doubted where landmarks or embeddings contradict it.
    """
    from earface.data.ear_writing import collection_of_folder
    from earface.data.identity_split import identity_digests, person
    from pipeline.ears import EarEmbedder, contradicted_sides, nearer_to_the_other_side

    trained_on = embedder.recognizer.trained_on
    names = {face.identity: person(collection_of_folder(face.path.parent), face.identity) for face in faces}
    people = sorted(names)
    known = [name for name in people if trained_on.intersection(identity_digests([names[name]]))]
    notes = []
    if known:
        notes.append(
            f"{len(known)} of {len(people)} people have names that the recogniser was trained on ({known[0]}): if they "
            "are the same people, they are found more easily than strangers"
        )
    if isinstance(embedder, EarEmbedder):
        read = [face for face in faces if face.path in embedder.sides]
        own = [face.identity for face in read], [face.path for face in read]
        notes += contradicted_sides(*own, embedder.contradicted)
        notes += nearer_to_the_other_side(table, people)
    return notes


def refuse_enrolled(gallery: Gallery, faces: Sequence[PictureFile], path: Path) -> None:
    """Raise InputError if a picture is enrolled already."""
    there = {Path(picture).resolve() for own in gallery.pictures for picture in own}
    if again := [face.path for face in faces if face.path in there]:
        raise InputError(f"{path}: {len(again)} of the pictures are enrolled in it already ({again[0]})")


def same_fusion(gallery: Gallery, given: Fusion | None, path: Path) -> Fusion:
    """How the gallery's pictures are fused. Raises InputError if another way is given."""
    from pipeline.gallery import fusion_of

    own = fusion_of(gallery.metadata)
    if given not in (None, own):
        raise InputError(f"`fusion` {given}: {path} was enrolled with {own}: leave `fusion` out, or enrol again")
    return own


def refuse_two_names(table: IdentityEmbeddings, path: Path) -> None:
    """Raise InputError if one picture has two identities: two embeddings are equal bit for bit."""
    first: dict[bytes, int] = {}
    for row, embedding in enumerate(table.embeddings):
        other = first.setdefault(embedding.tobytes(), row)
        if table.identities[other] != table.identities[row]:
            names = (
                f"{table.paths[other]} of {table.identities[other]} and {table.paths[row]} of {table.identities[row]}"
            )
            raise InputError(f"{path}: not written: {names} are one picture: remove one of them")


def joined(old: IdentityEmbeddings, new: IdentityEmbeddings) -> IdentityEmbeddings:
    """Both tables, the old rows first; of one contract and the same weights."""
    import numpy as np

    from pipeline.quality import joined_quality

    sides = None
    if new.sides is not None:
        sides = (old.sides or [""] * len(old)) + new.sides
    return dataclasses.replace(
        old,
        embeddings=np.concatenate([old.embeddings, new.embeddings]),
        paths=old.paths + new.paths,
        identities=old.identities + new.identities,
        metadata=old.metadata | {"skipped": [*old.metadata.get("skipped", []), *new.metadata["skipped"]]},
        quality=joined_quality([(len(old), old.quality), (len(new), new.quality)]),
        sides=sides,
    )


def describe_calibration(found: Calibration, size: int) -> str:
    """Its thresholds for FPIRS in a gallery of `size` people, in a line."""
    parts = []
    for rate in FPIRS:
        try:
            parts.append(f"a threshold of {found.threshold(rate, size):.3f} for FPIR {rate:g}")
        except InputError:
            parts.append(f"insufficient data for FPIR {rate:g}")
    return f"calibrated by {found.name}; among {size} people {', '.join(parts)}"


def _written(name: str) -> str:
    """A file's absolute path, valid in any working directory; a variant's name as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EnrollOptions, argv, prog="earface enroll")
    require_path(options.input)
    if options.upsampler == "dsr":
        require_trained(options.dsr_checkpoint)
    if options.calibration is not None:
        require_file(Path(options.calibration))
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from earface.core.notices import warnings_given
        from earface.data.face_rows import read_faces
        from earface.data.identity_embeddings import read_embeddings, write_embeddings
        from earface.data.multipie import warn_of_profiles
        from earface.data.names import warn_of_odd_names
        from earface.nn.inference import choose_device
        from pipeline.calibration import read_calibration
        from pipeline.copies import warn_of_copies
        from pipeline.ears import EarEmbedder
        from pipeline.gallery import Gallery
        from pipeline.recognizers import modality_of

    console, out = Console(), Path(options.out)
    device = choose_device(options.device)
    earlier = Gallery.load(out) if options.add else None
    if earlier is not None:
        options = dataclasses.replace(options, fusion=same_fusion(earlier, options.fusion, out))
    build = ear_embedder if modality_of(options.recognizer) == "ear" else face_embedder
    embedder: Embedder = build(options, device)
    calibration = None
    if options.calibration is not None:
        calibration = read_calibration(
            Path(options.calibration), embedder.recognizer.key, options.configuration
        )  # before anything is embedded
        if other := calibration.differing({"fusion": options.fusion or "mean"}):
            raise InputError(f"`calibration` {options.calibration}: {calibration.name} is of {other}")
    faces = pictures_with_names(read_faces(options.input))
    if earlier is not None:
        earlier.check_recognizer(embedder.recognizer, out)
        refuse_enrolled(earlier, faces, out)
    if isinstance(embedder, EarEmbedder):
        embedder.pictures.check(face.path for face in faces)
    table = enrolled(faces, options, embedder, console)
    table = joined(read_embeddings(out), table) if options.add else table
    gallery = Gallery.of(table)  # before anything is written: pictures without a mean direction are an error
    refuse_two_names(table, out)
    if options.add:
        warn_of_odd_names(table.identities, out)
    warn_of_profiles(face.path for face in faces)
    warn_of_copies(table, embedder.signatures or {}, embedder.picture)
    given = [*table.metadata.get("warnings", []), *warnings_given()]
    about = {"warnings": given} | ({} if calibration is None else {"calibration": calibration.plain()})
    table = dataclasses.replace(table, metadata=table.metadata | about)
    write_embeddings(out, table)
    for note in notes_on(table, faces, embedder):
        console.print(f"note: {note}", soft_wrap=True, highlight=False, markup=False)
    if calibration is not None:
        console.print(describe_calibration(calibration, len(gallery)), soft_wrap=True, highlight=False, markup=False)
    several = sum(count > 1 for count in Counter(table.identities).values())
    both = sum(count > 1 for count in Counter(gallery.identities).values())  # a template a side
    by_both = f", {both} by both ears" if gallery.apart else ""
    fused = {"norm": ", weighted by their lengths", "quality": ", weighted by their quality"}
    how = fused.get(str(table.metadata.get("fusion")), "")
    console.print(f"all pictures of a person are enrolled, as the mean of their embeddings{how}", soft_wrap=True)
    console.print(
        f"{len(gallery)} people enrolled by {len(table)} pictures, {several} of them by several{by_both}: {out}",
        soft_wrap=True,
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
