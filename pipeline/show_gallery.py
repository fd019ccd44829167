"""Who is in a gallery: `earface gallery show`, or `python -m pipeline.show_gallery`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import require_file
from earface.core.first_imports import first_imports
from pipeline.options import ShowGalleryOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each person; 0, or 2 with one line on stderr."""
    options = parse_options(ShowGalleryOptions, argv, prog="earface gallery show")
    path = Path(options.gallery)
    require_file(path)
    with first_imports():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from earface.data.identity_embeddings import read_embeddings
        from pipeline.gallery_people import people_of

    table = read_embeddings(path)
    people = people_of(table)
    columns = ("person", "pictures", *(("left", "right") if table.sides is not None else ()))
    shown = Table(*columns, box=None)
    for each in people:
        counts = (each.pictures, *((each.left, each.right) if table.sides is not None else ()))
        shown.add_row(Text(each.name), *map(str, counts))
    console = Console(highlight=False)
    console.print(shown)
    made_by = str(table.metadata.get("weights", "unknown"))
    console.print(f"{len(people)} people by {len(table)} pictures, embedded by {made_by}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
