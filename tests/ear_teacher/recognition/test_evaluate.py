"""A recogniser's evaluation: against metrics computed from all pairs by a loop, and its files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ear_teacher.recognition.evaluate import main as evaluate
from ear_teacher.recognition.evaluation import TestEars, failure_grid, recognise
from earface.data.npy import read_teacher_npy, write_teacher_npy
from earface.metrics.verification import equal_error_rate
from tests.conftest import only_line
from tests.ear_teacher.recognition.test_training import run


def test_the_metrics_are_those_of_a_loop_over_all_pairs() -> None:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((12, 8))
    subjects = [f"s{number // 6}" for number in range(72)]
    embeddings = centres[np.arange(72) // 6] + 0.9 * rng.standard_normal((72, 8))
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    genuine, impostor, hits = [], [], []
    for first in range(72):
        scores = [(units[first] @ units[second], second) for second in range(72) if second != first]
        hits.append(subjects[max(scores)[1]] == subjects[first])
        for score, second in scores:
            if second > first:
                (genuine if subjects[second] == subjects[first] else impostor).append(score)
    found = recognise(embeddings, subjects, 200)
    assert found.rank1.value == pytest.approx(np.mean(hits))
    assert found.eer.value == pytest.approx(equal_error_rate(np.array(genuine), np.array(impostor)), abs=1e-6)
    assert found.tar.value is None  # 2,376 impostor pairs: a thousandth is 2
    assert "fewer than" in found.tar.reason
    low, high = found.rank1.interval() or (2, 2)
    assert low <= found.rank1.value <= high
    assert low < high


def test_failures_show_the_probe_the_wrong_ear_and_the_best_right_one() -> None:
    images = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (10, 60, 110, 160)])
    ears = TestEars("a.npy", images, list("abcd"), ["x", "x", "y", "y"], [""] * 4)
    embeddings = np.array([[1, 0], [0, 1], [0.9, 0.1], [0.1, 0.9]], np.float32)
    grid = failure_grid(ears, recognise(embeddings, ears.subjects, 100))
    assert grid is not None
    tiles = [grid[40, 64 + 128 * column, 0] for column in range(3)]
    probe, wrong, right = tiles
    assert (int(probe), int(wrong), int(right)) in {(10, 110, 60), (110, 10, 160), (60, 160, 10), (160, 60, 110)}


@pytest.mark.runs
def test_the_command_writes_its_results(ear_set: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(ear_set, tmp_path, "--epochs", 1) == 0
    out = tmp_path / "results"
    argv = ["--checkpoint", str(tmp_path / "checkpoints" / "last.ckpt"), "--out", str(out), "--replicates", "100"]
    assert evaluate(argv) == 0
    assert "rank-1" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    (found,) = metrics["files"].values()
    assert (found["ears"], found["people"]) == (10, 2)
    with (out / "per_ear.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 10
    share = np.mean([int(row["same_person"]) for row in rows])
    assert found["recognizer"]["rank1"]["value"] == pytest.approx(share)
    assert evaluate(argv) == 2  # is there already
    capsys.readouterr()
    for name in ("failures.png", "failures_2.png"):  # of an earlier evaluation, also of more files
        (out / name).write_text("an ear")
    assert evaluate([*argv, "--overwrite", "--per-subject", "3", "--no-pictures"]) == 0
    assert {path.name for path in out.iterdir()} == {"metrics.json", "per_ear.csv"}
    (fewer,) = json.loads((out / "metrics.json").read_text())["files"].values()
    assert fewer["ears"] == 6


@pytest.mark.runs
def test_people_of_the_training_are_refused_where_the_set_is_known(ear_set: Path, tmp_path: Path, capsys: Any) -> None:
    """By name and set; of a set that nothing names it may be another person, and that is noted."""
    data = read_teacher_npy(ear_set / "train_teacher.npy")
    assert data.image_paths is not None
    paths = {}
    for name, collection in (("train", "set"), ("again", "set"), ("other", "another"), ("unknown", "")):
        paths[name] = tmp_path / name / "ears.npy"
        paths[name].parent.mkdir()
        write_teacher_npy(paths[name], image_paths=data.image_paths, subjects=data.subjects, collection=collection)
    noted = {"unknown": "have names"}
    for trained, messages in (("train", {"again": "were trained on", **noted}), ("unknown", noted)):
        assert run(ear_set, tmp_path / "of" / trained, "--train-npy", paths[trained], "--epochs", 1) == 0
        argv = ["--checkpoint", str(tmp_path / "of" / trained / "checkpoints" / "last.ckpt"), "--replicates", "100"]
        for name in ("again", "other", "unknown"):
            capsys.readouterr()
            code = evaluate([*argv, "--npy", str(paths[name]), "--out", str(tmp_path / trained / name / "results")])
            shown = capsys.readouterr()
            assert code == (2 if messages.get(name) == "were trained on" else 0)
            assert messages.get(name, "results") in shown.err + shown.out
            assert ("have names" in shown.out) == (messages.get(name) == "have names")


@pytest.mark.runs
def test_a_checkpoint_of_another_model_is_refused(ear_set: Path, tiny: list[str], tmp_path: Path, capsys: Any) -> None:
    from ear_teacher.train import main as train_vae

    assert train_vae([*tiny, "--epochs", "1", "--encoder-weights", "none", "--perceptual-weight", "0"]) == 0
    capsys.readouterr()
    assert evaluate(["--checkpoint", str(tmp_path / "checkpoints" / "last.ckpt"), "--out", str(tmp_path / "o")]) == 2
    assert "holds no ear recogniser" in only_line(capsys)
