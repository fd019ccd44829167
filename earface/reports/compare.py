"""Runs side by side, in the terminal and, with --out, as one page: `earface compare RUN RUN ...`.

What differs in their settings and data, their metrics with differences from the first, and their curves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.errors import InputError, OneLineParser, entry_point
from earface.core.files import refuse_to_replace, require_path
from earface.core.first_imports import first_imports
from earface.core.tool_options import add_overwrite


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, write the page and say where it is; 0, or 2 with one line on stderr."""
    parser = OneLineParser("earface compare", description=__doc__)
    parser.add_argument("runs", nargs="+", help="folders of runs, their logs, or their checkpoints; two or more")
    parser.add_argument("--out", help="a page with the tables and the curves, such as comparison.html; by default none")
    add_overwrite(parser)
    given = parser.parse_args(argv)
    if len(given.runs) < 2:
        raise InputError(f"{given.runs[0]}: is one run; give two or more to compare")
    for run in given.runs:
        require_path(run, "give a run's folder, its logs, or its checkpoints")
    if given.out is not None:
        refuse_to_replace([Path(given.out)], given.overwrite)
    with first_imports():
        from rich.console import Console
        from rich.table import Table

        from earface.reports.comparison import compare, write_comparison
        from earface.reports.run_folder import RunFolder

    comparison = compare([RunFolder.read(run) for run in given.runs])
    console = Console()
    metrics = [
        (name, [f"{each.text} ({each.difference})" if each.difference else each.text for each in cells])
        for name, cells in comparison.metrics
    ]
    for title, rows in (("metric", metrics), ("setting", comparison.settings), ("run", comparison.facts)):
        table = Table(title, *comparison.names, box=None, header_style="bold")
        for name, cells in rows:
            table.add_row(name, *cells)
        if rows:
            console.print(table, "")
    if given.out is not None:
        write_comparison(comparison, Path(given.out))
        print(f"page: {given.out}")
    else:
        print("--out comparison.html also writes a page, with the curves")
    return 0


if __name__ == "__main__":
    sys.exit(main())
