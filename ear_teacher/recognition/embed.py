"""Embeddings of ears: `earface ears recognize embed`, or `python -m ear_teacher.recognition.embed`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ear_teacher.recognition.options import EarEmbedOptions
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import check_npz_name, refuse_to_replace, require_path, require_trained
from earface.core.first_imports import first_imports


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EarEmbedOptions, argv, prog="earface ears recognize embed")
    out = Path(options.out)
    check_npz_name(out)
    refuse_to_replace([out], options.overwrite)
    for path in filter(None, (options.input, *options.networks)):
        require_path(path)
    require_trained(options.recognizer)
    # after parsing: help, a mistyped flag and a missing file answer without PyTorch
    with first_imports():
        from rich.console import Console

        from ear_teacher.ear_reader import EarReader, sources_of
        from ear_teacher.encoding import encode_aloud, say
        from ear_teacher.recognition.loading import load_recognizer
        from earface.core.notices import warn, warnings_given
        from earface.data.identity_embeddings import IdentityEmbeddings, write_embeddings
        from earface.nn.inference import choose_device

    console, device = Console(), choose_device(options.device)
    trained = load_recognizer(options.recognizer, device)
    config = trained.model.config
    reader = EarReader(config, *options.networks)
    ears = sources_of(options.input, data_root=options.data_root, crop_to_bbox=False, folder_subjects=True)
    found = encode_aloud(
        lambda images: (trained(images),), ears, reader, batch_size=options.batch_size, device=device, console=console
    )
    kept = [ears[index] for index in found.kept]
    if found.skipped:
        warn(f"{len(found.skipped)} of {len(ears)} pictures are left out, such as {found.skipped[0][0]}")
    table = IdentityEmbeddings(
        embeddings=found.values[0],
        paths=[ear.name for ear in kept],
        identities=[ear.subject for ear in kept],
        contract=trained.contract.id,
        digest=trained.digest,
        metadata={
            "weights": options.recognizer,
            "backbone": config.backbone,
            "skipped": [list(entry) for entry in found.skipped],
            "warnings": warnings_given(),
        },
        sides=found.sides,
    )
    write_embeddings(out, table)
    people = len(set(table.identities) - {""})
    known = f"{people} identities" if people else "no identities known (give each a folder)"
    left, right = (found.sides.count(side) for side in ("l", "r"))
    say(console, f"{len(table)} embeddings, {left} left and {right} right ears, {known}: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
