"""Models in the hub's layout: uploaded without a network, and with another config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest


def edit_config(folder: Path, part: str | None, **fields: Any) -> None:
    """Set fields of config.json, or of one of its parts."""
    content = json.loads((folder / "config.json").read_text())
    (content if part is None else content[part]).update(fields)
    (folder / "config.json").write_text(json.dumps(content))


def record_uploads(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of every folder that `push_to_hub` uploads from now on, which says `done`."""
    uploaded: dict[str, bytes] = {}

    class Hub:
        def __init__(self, **options: Any) -> None: ...

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            return type("Repository", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path: Path, **options: Any) -> str:
            uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
            return "done"

    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Hub)
    return uploaded
