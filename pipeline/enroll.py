"""Pictures of people to a gallery: `earface enroll`, or `python -m pipeline.enroll`."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import require_path, require_trained
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from pipeline.options import EnrollOptions

if TYPE_CHECKING:
    from rich.console import Console

    from earface.data.identity_embeddings import IdentityEmbeddings
    from earface.nn.embedding import PictureFile
    from earface.nn.upsampler import Upsampler
    from facial_rec.recognizer import FaceRecognizer
    from pipeline.embedding import Reader
    from pipeline.gallery import Gallery


def enrolled(
    faces: Sequence[PictureFile],
    options: EnrollOptions,
    recognizer: FaceRecognizer,
    upsampler: Upsampler,
    read: Reader,
    console: Console,
) -> IdentityEmbeddings:
    """The pictures as rows of a gallery. Raises InputError if none can be used."""
    from earface.data.identity_embeddings import IdentityEmbeddings
    from pipeline.embedding import embed_with_progress, print_skipped
    from pipeline.gallery import TEMPLATE_RULE

    found = embed_with_progress(recognizer, upsampler, read, options, faces, console)
    print_skipped(found.skipped, len(faces), console)
    kept = [faces[index] for index in found.kept]
    for identity in sorted({face.identity for face in faces} - {face.identity for face in kept}):
        console.print(f"{identity} is not enrolled: no picture can be used", markup=False, highlight=False)
    return IdentityEmbeddings(
        embeddings=found.embeddings,
        paths=[str(face.path) for face in kept],
        identities=[face.identity for face in kept],
        contract=recognizer.contract.id,
        digest=recognizer.digest,
        metadata={
            "variant": recognizer.model.variant,
            "weights": _written(recognizer.name),
            "crop": recognizer.contract.crop,
            "flip": False,
            "aligned": options.aligned,
            "detector": options.detector and _written(options.detector),
            "upsampler": options.upsampler,
            "skipped": [list(entry) for entry in found.skipped],
            "template": TEMPLATE_RULE,
        },
    )


def refuse_enrolled(gallery: Gallery, faces: Sequence[PictureFile], path: Path) -> None:
    """Raise InputError if a picture is enrolled already."""
    there = {Path(picture).resolve() for own in gallery.pictures for picture in own}
    if again := [face.path for face in faces if face.path in there]:
        raise InputError(f"{path}: {len(again)} of the pictures are enrolled in it already ({again[0]})")


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

    return dataclasses.replace(
        old,
        embeddings=np.concatenate([old.embeddings, new.embeddings]),
        paths=old.paths + new.paths,
        identities=old.identities + new.identities,
    )


def _written(name: str) -> str:
    """A file's absolute path, valid in any working directory; a variant's name as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EnrollOptions, argv, prog="earface enroll")
    require_path(options.input)
    if options.upsampler == "dsr":
        require_trained(options.dsr_checkpoint)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from dsr.upsampler import build_upsampler
        from earface.data.face_rows import read_faces
        from earface.data.identity_embeddings import read_embeddings, write_embeddings
        from earface.nn.embedding import PictureFile
        from earface.nn.inference import choose_device
        from facial_rec.recognizer import load_recognizer
        from pipeline.embedding import face_finder, face_reader
        from pipeline.gallery import Gallery

    console, out = Console(), Path(options.out)
    device = choose_device(options.device)
    earlier = Gallery.load(out) if options.add else None
    with Needed() as needed:
        recognizer = needed(
            lambda: load_recognizer(options.recognizer, options.crop, device, options.precision),
            f"--recognizer FILE (the authors' {options.recognizer}.pt)",
        )
        upsampler = needed(
            lambda: build_upsampler(options.upsampler, options.dsr_checkpoint, device, options.precision)
        )
        read = needed(lambda: face_reader(face_finder(options)))
    faces = [PictureFile(row.path.resolve(), row.identity) for row in read_faces(options.input)]
    if earlier is not None:
        earlier.check_key(recognizer.key, out)
        refuse_enrolled(earlier, faces, out)
    table = enrolled(faces, options, recognizer, upsampler, read, console)
    table = joined(read_embeddings(out), table) if options.add else table
    gallery = Gallery.of(table)  # before anything is written: pictures without a mean direction are an error
    refuse_two_names(table, out)
    write_embeddings(out, table)
    pictures = Counter(len(own) for own in gallery.pictures)
    several = sum(count for number, count in pictures.items() if number > 1)
    console.print(
        f"{len(gallery)} people enrolled by {len(table)} pictures, {several} of them by several: {out}",
        soft_wrap=True,
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
