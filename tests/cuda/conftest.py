"""The small sets that the fake and the real steps run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cuda.cases import Files


@pytest.fixture(scope="session")
def files(ear_set: Path, face_set: Path, edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    from earface.synthetic.scene_set import SceneSet, write_scene_set

    folder = tmp_path_factory.mktemp("cuda")
    for seed, split in enumerate(("train", "val"), 1):
        write_scene_set(folder / "scenes" / split, SceneSet(4, 96, 72, seed=seed))
    return Files(ear_set, face_set, folder / "scenes", edgeface, folder)
