"""What passes between host and GPU in a step of every trainer: `python -m tests.cuda.report`. Needs no GPU."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.cuda.cases import CASES, Counted, Files, count
from tests.cuda.fake import PRECISIONS


def make_files(folder: Path) -> Files:
    """Synthetic ears, faces and scenes, and an EdgeFace at random weights."""
    from earface.data.prepare_faces import main as prepare
    from earface.synthetic.ear_set import EarSet, write_ear_set
    from earface.synthetic.face_set import FaceSet, write_face_set
    from earface.synthetic.scene_set import SceneSet, write_scene_set
    from tests.support.edgeface import random_edgeface

    write_ear_set(folder / "ears", EarSet(6, 3, 64, seed=3), val_fraction=0.3, num_workers=1, overwrite=True)
    write_face_set(folder / "drawn", FaceSet(9, 3, 128, seed=3))
    prepare(["--images", str(folder / "drawn"), "--aligned", "--out", str(folder / "faces"), "--vlr-size", "16"])
    for seed, split in enumerate(("train", "val")):
        write_scene_set(folder / "scenes" / split, SceneSet(4, 96, 72, seed=seed + 1))
    weights = random_edgeface(folder / "xxs.pt", 0)
    return Files(folder / "ears", folder / "faces", folder / "scenes", weights, folder)


def figures(counted: Counted) -> list[str]:
    """Of a training step and of a validation batch: waits, copies to the host among them, and copies to the device."""
    return [
        str(number)
        for traffic in (counted.training, counted.validation)
        for number in (traffic.count("synchronisation", "to host"), traffic.count("to device"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="trainers whose name holds this")
    parser.add_argument("--precision", choices=list(PRECISIONS), action="append", help="default: all three")
    options = parser.parse_args()
    table = Table("trainer", "precision", title="host and GPU in a training step, and in a validation batch")
    for column in ("step: waits", "to device", "batch: waits", "to device"):
        table.add_column(column, justify="right", no_wrap=True)
    lines: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        names = [name for name in CASES if options.only in name]
        for name in track(names, "counting", transient=True):
            case = CASES[name](files)
            for precision in options.precision or PRECISIONS:
                counted = count(case, precision)
                table.add_row(name, precision, *figures(counted))
                for where, traffic in (("step", counted.training), ("batch", counted.validation)):
                    lines.update({f"{event}, {where}" for event in traffic.events})
    console = Console(width=120)
    console.print(table)
    for line, number in sorted(lines.items()):
        console.print(f"{line}: in {number} rows", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
