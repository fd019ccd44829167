"""Embeddings of aligned faces: `earface faces embed`, or `python -m facial_rec.embed`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import check_npz_name, refuse_to_replace, require_checkpoint, require_path
from earface.core.first_imports import first_imports
from earface.core.progress import progress
from facial_rec.options import EmbedOptions

if TYPE_CHECKING:
    from rich.console import Console

    from earface.nn.embedding import Embedded, PictureFile
    from facial_rec.model import EdgeFace


def print_line(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def embed(
    model: EdgeFace, faces: Sequence[PictureFile], options: EmbedOptions, device: str, console: Console
) -> Embedded:
    """The embeddings; prints the speed and what could not be read."""
    from facial_rec.contract import FaceContract
    from facial_rec.embedding import embed_pictures

    start = time.perf_counter()
    with progress("embedding faces", len(faces)) as state:
        found = embed_pictures(
            model,
            faces,
            FaceContract(options.crop),
            flip=options.flip,
            batch_size=options.batch_size,
            device=device,
            workers=options.num_workers,
            progress=state.update,
        )
    seconds = time.perf_counter() - start
    speed = len(found.kept) / seconds
    print_line(console, f"{len(found.kept)} faces in {seconds:.1f} s, {speed:.0f} a second on {device}")
    if found.skipped:
        print_line(console, f"{len(found.skipped)} of {len(faces)} pictures cannot be used and are left out:")
        for name, reason in found.skipped:
            print_line(console, f"  {name}: {reason}")
    return found


def check_variant(model: EdgeFace, options: EmbedOptions) -> None:
    """Raise InputError if the option `variant` names another network."""
    from earface.nn.edgeface_weights import VARIANTS, variant_named

    wanted = options.variant
    if wanted is not None and not VARIANTS[model.variant].same_network(variant_named(wanted)):
        raise InputError(f"{options.recognizer}: holds {model.variant}, not {wanted}; leave `variant` out")


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EmbedOptions, argv, prog="earface faces embed")
    out = Path(options.out)
    check_npz_name(out)
    refuse_to_replace([out], options.overwrite)
    require_path(options.input)
    if options.recognizer.endswith(".ckpt"):
        require_checkpoint(options.recognizer)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from earface.core.notices import warn, warnings_given
        from earface.data.identity_embeddings import IdentityEmbeddings, write_embeddings
        from earface.nn.embedding import pictures_of
        from earface.nn.inference import choose_device, weights_digest
        from facial_rec.contract import FaceContract
        from facial_rec.recognizer import is_finetuned, load_edgeface, load_finetuned

    console = Console()
    device = choose_device(options.device)
    name = options.variant if options.variant and options.recognizer == "pretrained" else options.recognizer
    model = load_finetuned(name, options.crop) if is_finetuned(name) else load_edgeface(name)
    check_variant(model, options)
    digest = weights_digest(model)
    faces = pictures_of(options.input)
    found = embed(model.to(device), faces, options, device, console)
    identities = [faces[index].identity for index in found.kept]
    if found.skipped:
        warn(f"{len(found.skipped)} of {len(faces)} pictures are left out, such as {found.skipped[0][0]}")
    table = IdentityEmbeddings(
        embeddings=found.embeddings,
        paths=[str(faces[index].path) for index in found.kept],
        identities=identities,
        contract=FaceContract(options.crop).id,
        digest=digest,
        metadata={
            "variant": model.variant,
            "weights": options.recognizer,
            "flip": options.flip,
            "skipped": [list(entry) for entry in found.skipped],
            "warnings": warnings_given(),
        },
    )
    write_embeddings(out, table)
    people = len(set(identities) - {""})
    known = f"{people} identities" if people else "no identities known (give each a folder)"
    print_line(console, f"{len(table)} embeddings of {model.variant}, {known}: {out}")
    if people == 1 and len(table) > 1:
        folder = Path(options.input) / identities[0]
        print_line(console, f"note: all pictures are in {folder}: if these are several people, give it as --input")
    return 0


if __name__ == "__main__":
    sys.exit(main())
