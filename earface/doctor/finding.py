"""What an examination of the machine finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line: `note` costs time or limits what can be done, `problem` stops a training."""

    group: str
    name: str
    value: str
    status: Status = "ok"
    advice: str = ""  # what to do about it
