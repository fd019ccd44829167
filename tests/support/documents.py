"""The documents of this project, and what stands in their blocks."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PATTERNS = ("README.md", "docs/**/*.md", "ear_teacher/**/*.md", "dsr/*.md", "facial_rec/*.md", "pipeline/*.md")
DOCUMENTS = sorted(path for pattern in PATTERNS for path in PROJECT.glob(pattern) if "_build" not in path.parts)
COMMANDS_PAGE = PROJECT / "docs" / "COMMANDS.md"
TUTORIALS = tuple(path for path in DOCUMENTS if path.parent.name == "tutorials")


def fenced(text: str, *languages: str) -> list[str]:
    return re.findall(rf"^ *```(?:{'|'.join(languages)})\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """The code in backticks outside of fenced blocks."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()).replace(r"\|", "|") for span in re.findall(r"`([^`]+)`", prose)]


def lines(block: str) -> list[str]:
    """The commands of a shell block, each on one line, without comments and what stands before the program."""
    joined = re.sub(r"\\\n\s*", "", block)
    stripped = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in joined.splitlines()]
    return [re.sub(r"^(\w+=\S+ |\.venv/bin/|srun )+", "", line) for line in stripped if line]


def table(page: Path) -> list[tuple[str, str]]:
    """The two cells of each row of the table of a document that has one."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.read_text().splitlines() if line.startswith("|")]
    return [(typed.strip(), here.strip()) for typed, here in rows[2:]]
