"""A run as one page that needs no other file: `earface report RUN`.

Every training writes it at its end; this writes it again, also of a run that still goes on or that ended before there
were pages.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.errors import OneLineParser, entry_point
from earface.core.files import refuse_to_replace, require_path
from earface.core.first_imports import first_imports
from earface.core.tool_options import add_overwrite


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and say where it is; 0, or 2 with one line on stderr."""
    parser = OneLineParser("earface report", description=__doc__)
    parser.add_argument("run", help="a run's folder, its logs, or its checkpoints")
    parser.add_argument("--out", help="the page; by default report.html in the run's log folder")
    parser.add_argument("--no-pictures", action="store_true", help="leave out pictures of the data")
    add_overwrite(parser)
    given = parser.parse_args(argv)
    require_path(given.run, "give a run's folder, its logs, or its checkpoints")
    out = None if given.out is None else Path(given.out)
    if out is not None:
        refuse_to_replace([out], given.overwrite)
    with first_imports():
        from earface.reports.run_folder import RunFolder
        from earface.reports.run_page import write_run_page

    print(f"report: {write_run_page(RunFolder.read(given.run), out, not given.no_pictures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
