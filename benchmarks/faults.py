"""Kills of tiny runs of every trainer, and what is left: `python -m benchmarks.faults --kills 100`.

A run is killed (SIGKILL) just before it opens, renames or removes a file in its folder, at a place drawn at random,
goes on, is killed again, and at last runs to its end. That end is compared with that of a run that nobody disturbed.
The processes are forked, so that torch is imported once.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.stopping import import_once
from earface.core.errors import entry_point

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MOST_KILLS = 3  # of one run
SHARED = "--precision 32 --num-workers 0 --progress none --log-every-n-steps 2 --save-every-n-steps 2 --ema-decay .9"
CONV = "--base-channels 4 --image-size 64"
PLACES = ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path")  # of ModelCheckpoint


@dataclass
class Count:
    """Of one trainer's runs."""

    runs: int = 0
    kills: int = 0
    failed: int = 0  # ends with an exit code other than 0
    corrupt: int = 0  # checkpoints that cannot be read, whenever a run was killed or has ended
    differing: int = 0  # ends whose checkpoints or metrics.csv are not those of the undisturbed run
    twice: int = 0  # ends in which TensorBoard shows a step of a curve twice
    left: int = 0  # temporary files after the end
    seen: list[str] = field(default_factory=list)


def trainers(data: Path) -> dict[str, tuple[str, list[str]]]:
    """Name -> module with `main` and its arguments, but the run's folders."""
    ears = f"--train-npy {data}/ears/train_teacher.npy --val-npy {data}/ears/val_teacher.npy {CONV} --batch-size 8"
    scenes = f"--train-json {data}/train/annotations.json --val-json {data}/val/annotations.json {CONV} --batch-size 2"
    faces = f"--dataset-root {data}/faces --vlr-size 16 --batch-size 4"
    commands = {
        "ears": f"ear_teacher.train {ears} --encoder conv --latent-dim 8 --linear-path-size 16 --epochs 4 "
        "--augment none",
        "recognizer": f"ear_teacher.recognition.train {ears} --backbone conv --backbone-weights none "
        "--embedding-dim 16 --images-per-class 4 --epochs 4",
        "detector": f"ear_teacher.detector.train {scenes} --encoder conv --crop-size 32 --pyramid-width 16 "
        "--grid-images 2 --epochs 4",
        "dsr": f"dsr.train_dsr {faces} --recognizer none --second-recognizer none --lambda-identity 0 --epochs 4 "
        "--lambda-feature-match 0 --lambda-perceptual 0 --base-channels 8 --residual-blocks 1",
        "edgeface": f"facial_rec.finetune_edgeface {faces} --upsampler bicubic --stage1-epochs 2 --stage2-epochs 2 "
        f"--recognizer {data}/edgeface.pt",
    }
    split = {name: shlex.split(f"{command} {SHARED}") for name, command in commands.items()}
    return {name: (module, argv) for name, (module, *argv) in split.items()}


def make_data(folder: Path) -> None:
    import torch

    from earface.synthetic.ear_set import EarSet, write_ear_set
    from earface.synthetic.face_set import FaceSet, write_face_set
    from earface.synthetic.scene_set import SceneSet, write_scene_set
    from facial_rec.model import EdgeFace

    write_ear_set(folder / "ears", EarSet(10, 5, 64, seed=3), val_fraction=0.2, num_workers=1)
    for part, count in (("train", 8), ("val", 4)):
        write_scene_set(folder / part, SceneSet(count, 96, 72, seed=count))
    write_face_set(folder / "drawn", FaceSet(10, 3, 128, seed=3))
    prepare = importlib.import_module("earface.data.prepare_faces").main
    prepare(["--images", str(folder / "drawn"), "--aligned", "--out", str(folder / "faces"), "--vlr-size", "16"])
    torch.save(EdgeFace.from_weights("none", "edgeface_xxs").state_dict(), folder / "edgeface.pt")


def run(module: str, argv: Sequence[str], folder: Path, kill_at: int) -> tuple[int, int]:
    """Train in a process of its own: its exit code, and how many writes it came to in `folder`.

    kill_at: before which of them, from 1 on, it is killed; 0: before none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready, say = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ready)
        _train(module, [*argv, *_folders(folder, argv)], folder, kill_at, say)
    os.close(say)
    with os.fdopen(ready, "rb") as stream:
        writes = len(stream.read())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), writes


def _folders(folder: Path, argv: Sequence[str]) -> list[str]:
    caches = [] if "--train-json" in argv or "--residual-blocks" in argv else ["--cache-dir", str(folder / "cache")]
    return ["--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs"), *caches]


def _train(module: str, argv: list[str], folder: Path, kill_at: int, say: int) -> NoReturn:
    code, count = 1, 0
    try:
        os.setsid()
        output = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)

        def watch(event: str, given: tuple[Any, ...]) -> None:
            nonlocal count
            written = event in ("os.rename", "os.remove") or (event == "open" and given[2] & WRITES)
            if written and not isinstance(given[0], int) and os.fsdecode(given[0]).startswith(str(folder)):
                os.write(say, b"!")
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        code = importlib.import_module(module).main(argv)
        atexit._run_exitfuncs()
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def checkpoints(folder: Path) -> tuple[dict[str, Any], int]:
    """Every checkpoint that can be read, without place and time, by its path in `folder`; how many cannot."""
    from earface.core.errors import InputError
    from earface.nn.checkpoint import read_checkpoint

    found: dict[str, Any] = {}
    corrupt = 0
    for path in sorted((folder / "checkpoints").rglob("*.ckpt")):
        try:
            checkpoint = read_checkpoint(path)
        except InputError:
            corrupt += 1
            continue
        for key in ("written", "version"):  # one killed before its first checkpoint starts again
            checkpoint["run"].pop(key)
        checkpoint["hyper_parameters"]["options"] = None
        for state in checkpoint["callbacks"].values():
            for key in PLACES:
                state.pop(key, None)
            if "best_k_models" in state:
                state["best_k_models"] = {Path(each).name: score for each, score in state["best_k_models"].items()}
        checkpoint.pop("loops")  # counts of batches and their restarts
        found[str(path.relative_to(folder))] = checkpoint
    return found, corrupt


def difference(first: Any, second: Any, where: str = "") -> str:
    """The first place in which two nested values differ, bit for bit; empty where none does."""
    import torch

    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return "" if first.shape == second.shape and torch.equal(first, second) else where
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return f"{where} {sorted(map(str, first.keys() ^ second.keys()))}"
        return next((found for key in first if (found := difference(first[key], second[key], f"{where}/{key}"))), "")
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return where
        pairs = enumerate(zip(first, second, strict=True))
        return next((found for place, pair in pairs if (found := difference(*pair, f"{where}/{place}"))), "")
    return "" if first == second else f"{where}: {first!s:.40} and {second!s:.40}"


def shown_twice(folder: Path) -> list[str]:
    """Curves of TensorBoard that hold a step twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for log in sorted({path.parent for path in (folder / "logs").rglob("events.out.*")}):
        events = EventAccumulator(str(log), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
        tags = events.Tags()
        curves = [(tag, events.Scalars(tag)) for tag in tags["scalars"]]
        curves += [(tag, events.Images(tag)) for tag in tags["images"]]
        for tag, points in curves:
            steps = Counter(point.step for point in points)
            found += [f"{tag} step {step}" for step, count in steps.items() if count > 1]
    return found


def compare(folder: Path, undisturbed: Path, count: Count) -> None:
    mine, corrupt = checkpoints(folder)
    count.corrupt += corrupt
    wrong = difference(mine, checkpoints(undisturbed)[0])
    for table in sorted((undisturbed / "logs").rglob("metrics.csv")):
        versions = sorted((folder / table.relative_to(undisturbed)).parents[1].glob("version_*/metrics.csv"))
        if not wrong and (not versions or versions[-1].read_bytes() != table.read_bytes()):
            wrong = str(table.relative_to(undisturbed))
    count.differing += bool(wrong)
    twice, left = shown_twice(folder), [path for path in folder.rglob(".*.tmp") if path.is_file()]
    count.twice += bool(twice)
    count.left += len(left)
    count.seen += [f"differs: {wrong}"] * bool(wrong) + [f"twice: {each}" for each in twice[:1]]
    count.seen += [f"left: {path.relative_to(folder)}" for path in left]


def attack(name: str, module: str, argv: list[str], kills: int, scratch: Path, draw: random.Random) -> Count:
    """Runs of one trainer with so many kills in all."""
    count, undisturbed = Count(), scratch / f"{name}_undisturbed"
    code, writes = run(module, argv, undisturbed, 0)
    if code:
        raise RuntimeError(f"{name}: ended with {code}:\n{undisturbed.with_suffix('.txt').read_text()[-2000:]}")
    while count.kills < kills:
        folder = scratch / f"{name}_{count.runs}"
        for _ in range(min(MOST_KILLS, kills - count.kills)):
            code, _ = run(module, argv, folder, draw.randint(1, writes))
            if code != -signal.SIGKILL:
                break
            count.kills += 1
            count.corrupt += checkpoints(folder)[1]
        if code:
            code, _ = run(module, argv, folder, 0)
        count.runs += 1
        count.failed += code != 0
        if code:
            count.seen.append(f"exit code {code}: {folder.with_suffix('.txt').read_text()[-300:]}")
        else:
            compare(folder, undisturbed, count)
        shutil.rmtree(folder)
    return count


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="in all, spread over the trainers")
    parser.add_argument("--trainers", nargs="+", default=["ears", "recognizer", "detector", "dsr", "edgeface"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    import_once()
    scratch = Path(tempfile.mkdtemp())
    columns = ("runs", "kills", "failed", "corrupt", "differing", "twice", "left")
    wrong = 0
    try:
        make_data(scratch)
        known = trainers(scratch)
        print(f"{'trainer':<12}" + "".join(f"{column:>10}" for column in columns))
        for place, name in enumerate(options.trainers):
            kills = options.kills // len(options.trainers) + (place < options.kills % len(options.trainers))
            count = attack(name, *known[name], kills, scratch, random.Random(f"{options.seed} {name}"))
            print(f"{name:<12}" + "".join(f"{getattr(count, column):>10}" for column in columns), flush=True)
            for line in count.seen:
                print(f"  {line}", file=sys.stderr)
            wrong += count.failed + count.corrupt + count.differing + count.twice + count.left
    finally:
        shutil.rmtree(scratch)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
