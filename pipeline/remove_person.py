"""People out of a gallery, with every embedding of theirs: `earface gallery remove`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import require_file
from earface.core.first_imports import first_imports
from pipeline.options import RemovePersonOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Write the gallery without them, and say what else there may be; 0, or 2 with one line on stderr."""
    options = parse_options(RemovePersonOptions, argv, prog="earface gallery remove")
    path = Path(options.gallery)
    require_file(path)
    with first_imports():
        from earface.data.identity_embeddings import read_embeddings, write_embeddings
        from pipeline.gallery_people import without

    left, removed = without(read_embeddings(path), options.name, path)
    if left is None:
        path.unlink()
        print(f"{path}: removed: nobody else was in it")
    else:
        write_embeddings(path, left)
        people = ", ".join(options.name)
        print(f"{path}: {len(removed)} pictures of {people} removed, {len(set(left.identities))} people left")
    print("not touched, and yours to delete:")
    for folder in sorted({str(Path(picture).parent) for picture in removed}):
        print(f"  the pictures that were enrolled, in {folder}")
    print("  results of earface identify and evaluate, and other galleries and tables that these people are in")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
