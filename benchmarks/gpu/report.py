"""Rows of stages as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """One table a stage, one column for each name that any of its rows has."""
    parts = ["# CUDA checks\n"]
    for name, stage in results["stages"].items():
        state = "ok" if stage["exit_code"] == 0 else f"exit code {stage['exit_code']}"
        if stage["killed"]:
            state = "killed at its limit"
        failed = sum(row.get("ok") is False for row in stage["rows"])
        parts.append(f"## {name}: {state}, {stage['seconds']:.0f} s" + (f", {failed} failed" if failed else "") + "\n")
        parts += [table(stage["rows"])] if stage["rows"] else []
        if stage["exit_code"] != 0:
            parts.append("```\n" + "\n".join(stage["tail"]) + "\n```\n")
    if results["not_started"]:
        parts.append(f"Not started, for want of time: {', '.join(results['not_started'])}\n")
    return "\n".join(parts)


def table(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column), column) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any, column: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO" if column == "ok" else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value).replace("|", "/").replace("\n", " ")
