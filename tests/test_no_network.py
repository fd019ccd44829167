"""No command reaches for the network that was not asked to: most of them run in a process that records, and refuses,
every look-up of a name and every connection but those to this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults import make_data, trainers
from earface.commands import COMMANDS

pytestmark = [pytest.mark.runs, pytest.mark.slow]

ROOT = Path(__file__).parents[1]

# As sitecustomize it is there before any import, in worker processes, too, and a hook cannot be taken away again.
GUARD = """
import os, sys

def watch(event, given):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        place = given[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        place = given[:1]
    else:
        return
    if isinstance(place, tuple) and place[0] not in ("localhost", "127.0.0.1", "::1"):  # a Unix socket has a path
        with open(os.environ["ATTEMPTS"], "a") as file:
            print(event, *place, file=file)
        raise OSError(f"refused: {event} {place}")

sys.addaudithook(watch)
"""
PROGRAM = """
import json, os, sys
from earface.commands import main

for words in json.load(sys.stdin):
    with open(os.environ["ATTEMPTS"], "a") as file:
        print("#", *words, file=file)
    code = main(words)
    print(json.dumps([" ".join(words), code]), flush=True)
"""
FIRST = {  # shorter runs than those that are killed
    "ears": "--epochs 1 --augment full --num-workers 1",
    "recognizer": "--epochs 1",
    "detector": "--epochs 1",
    "dsr": "--epochs 1",
    "edgeface": "--stage1-epochs 1 --stage2-epochs 1",
}
THEN = """
ears prepare --images {data}/ears/images --subject-pattern S\\d+ --out {out}/prepared
ears evaluate --checkpoint {out}/ears/last.ckpt --out {out}/ears_evaluation
ears extract --checkpoint {out}/ears/last.ckpt --input {data}/ears/val_teacher.npy --clusters 2 --out {out}/e.npz
ears sample --checkpoint {out}/ears/last.ckpt --out {out}/samples
ears eigenears --checkpoint {out}/ears/last.ckpt --components 2 --steps 5 --out {out}/eigenears
ears detector evaluate --checkpoint {out}/detector/last.ckpt --out {out}/detector_evaluation
ears detector predict --checkpoint {out}/detector/last.ckpt --input {data}/val/images --out {out}/found
ears recognize evaluate --checkpoint {out}/recognizer/last.ckpt --npy {data}/ears/val_teacher.npy --out {out}/who
ears recognize embed --recognizer {out}/recognizer/last.ckpt --input {data}/ears/images --out {out}/r.npz
faces embed --input {faces} --weights {data}/edgeface.pt --out {out}/f.npz
faces evaluate --weights {data}/edgeface.pt --dataset-root {data}/faces --vlr-size 16 --num-workers 0 --out {out}/faces
dsr evaluate --checkpoint {out}/dsr/last.ckpt --dataset-root {data}/faces --recognizer none --second-recognizer none \
--num-workers 0 --out {out}/dsr_evaluation
dsr upscale --checkpoint {out}/dsr/last.ckpt --input {data}/faces/test_processed/vlr_images --out {out}/upscaled
enroll --aligned --input {faces} --recognizer {data}/edgeface.pt --out {out}/gallery.npz
identify --aligned --gallery {out}/gallery.npz --input {faces} --recognizer {data}/edgeface.pt --out {out}/identified
gallery show --gallery {out}/gallery.npz
evaluate --dataset-root {data}/faces --recognizer {data}/edgeface.pt --vlr-size 16 --bootstrap 100 --num-workers 0 \
--out {out}/evaluation
export ears --checkpoint {out}/ears/last.ckpt --out {out}/exported_ears
export detector --checkpoint {out}/detector/last.ckpt --out {out}/exported_detector
export dsr --checkpoint {out}/dsr/last.ckpt --out {out}/exported_dsr
export edgeface --checkpoint {out}/edgeface/stage2/last.ckpt --out {out}/exported_edgeface
report {out}/ears_logs/ear_vae/version_0 --out {out}/report.html
doctor
"""


def words_of(folder: Path) -> list[list[str]]:
    """The five trainings, then THEN, of files below the folder alone."""
    data, out = folder / "data", folder / "out"
    known = {module: name for name, module in ((name, each.module) for name, each in COMMANDS.items())}
    words = []
    for name, (module, argv) in trainers(data).items():
        places = ["--checkpoint-dir", f"{out}/{name}", "--log-dir", f"{out}/{name}_logs"]
        places += ["--cache-dir", f"{out}/cache"] if name in ("ears", "recognizer", "edgeface") else []
        words.append([*known[module].split(), *argv, *FIRST[name].split(), *places])
    faces = data / "faces" / "test_processed" / "hr_images"
    return words + [line.split() for line in THEN.format(data=data, out=out, faces=faces).strip().splitlines()]


def test_no_command_reaches_for_the_network(tmp_path: Path) -> None:
    """`doctor` alone asks, whether the hub can be reached, where weights are missing: so the guard is seen to work."""
    make_data(tmp_path / "data")
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    words, attempts = words_of(tmp_path), tmp_path / "attempts.txt"
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | {
        "PYTHONPATH": f"{tmp_path / 'guard'}{os.pathsep}{ROOT}",
        "ATTEMPTS": str(attempts),
        "HF_HOME": str(tmp_path / "hub"),  # as on a new machine
        "TORCH_HOME": str(tmp_path / "torch"),
        "no_proxy": "*",
    }
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, input=json.dumps(words), capture_output=True, text=True
    )
    ended = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    assert ended == [[" ".join(each), 1 if each == ["doctor"] else 0] for each in words], done.stderr[-3000:]
    lines = attempts.read_text().splitlines()
    doctor = lines.index("# doctor")
    assert [line for line in lines[:doctor] if not line.startswith("#")] == []
    assert lines[doctor + 1 :] == ["socket.getaddrinfo huggingface.co"]
