"""What this machine has for a training, and what to do about the rest: `earface doctor`.

The exit code is 1 where a training as it is typed first would fail, else 0. `--json` is for programs.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace

from earface.core.errors import OneLineParser, entry_point
from earface.core.first_imports import first_imports
from earface.core.notices import as_flags
from earface.doctor.finding import Finding
from earface.doctor.software import software

EXIT_PROBLEM = 1
UNFOLDED = 1000  # columns
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Look, and print a table; 1 where something stops a training."""
    parser = OneLineParser("earface doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    as_json = parser.parse_args(argv).json
    found = software()
    if not any(each.name == "torch" and each.status == "problem" for each in found):
        with nullcontext() if as_json else first_imports():
            from earface.doctor.machine import machine
            from earface.doctor.places import places
            from earface.doctor.weights import weights
        found += [*machine(), *weights(), *places()]
    found = [replace(each, advice=as_flags(each.advice)) for each in found]
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=1))
    else:
        _show(found)
    return EXIT_PROBLEM if any(each.status == "problem" for each in found) else 0


def _show(found: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNFOLDED  # addresses and paths stay whole, to be copied
    for group in dict.fromkeys(each.group for each in found):
        table = Table(box=None, show_header=False, title=group, title_justify="left", title_style="bold")
        table.add_column(width=7)
        table.add_column(min_width=24, overflow="fold")
        table.add_column(overflow="fold")
        for each in (each for each in found if each.group == group):
            value = Text(each.value)
            if each.advice:
                value.append(f"\n-> {each.advice}", style="bold")
            table.add_row(Text(each.status, style=STYLES[each.status]), Text(each.name), value)
        console.print(table)
    counts = Counter(each.status for each in found)
    ending = "nothing stops a training" if not counts["problem"] else "these stop a training as it is typed first"
    console.print(f"{counts['problem']} problems, {counts['note']} notes: {ending}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
