"""Where an evaluation's time goes: `python -m benchmarks.pipeline [--probes 10000] [--templates 2000]`.

It writes that many pictures, 128 px, and runs pipeline.evaluate_dataset on them in a process of its own, with random
EdgeFace-XXS weights and two rows: HR and interpolation. Then: the share of each stage; embedding's rate beside that of
the recogniser alone, facial_rec.embedding.embed_faces on faces in memory, timed in this run before and after; and the
largest memory of the process.

`--search-only` instead enrols that many random templates, each with one picture, and searches for 256 probes in them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from earface.data.images import write_image
from earface.nn.edgeface import EMBEDDING_DIM
from facial_rec.contract import SIZE, FaceContract
from facial_rec.embedding import embed_faces
from facial_rec.model import EdgeFace
from pipeline.gallery import Gallery

ALONE = 512  # faces of a timing of the recogniser alone


def write_pictures(folder: Path, people: int, probes: int) -> None:
    """A folder a person, its first picture to enrol; as noisy as photographs, so that decoding takes as long."""
    generator = np.random.default_rng(0)
    for number in range(people + probes):
        person, picture = (
            (number, 0) if number < people else ((number - people) % people, 1 + (number - people) // people)
        )
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        fine = generator.normal(0, 4, (128, 128, 3))
        face = np.clip(cv2.resize(coarse, (128, 128), interpolation=cv2.INTER_CUBIC) + fine, 0, 255).astype(np.uint8)
        write_image(folder / f"{person:06d}" / f"{picture:04d}.png", face)


def seconds_a_face(model: EdgeFace) -> float:
    faces = torch.rand(ALONE, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        embed_faces(model, faces[:32], FaceContract())
        start = time.perf_counter()
        embed_faces(model, faces, FaceContract())
        return (time.perf_counter() - start) / ALONE


def search_only(count: int, probes: int = 256) -> None:
    """Seconds and memory of a gallery of `count` templates, beside the templates' own size."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, EMBEDDING_DIM, generator=generator)
    rows.div_(rows.norm(dim=1, keepdim=True))
    names = [f"{number:08d}" for number in range(count)]
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gallery = Gallery(rows, names, [[name] for name in names], "", "", {})
    start = time.perf_counter()
    found = gallery.search(rows[:probes], 5)
    seconds = time.perf_counter() - start
    assert [best[0].identity for best in found] == names[:probes]
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024
    print(
        f"{probes} probes in {count:,} templates ({rows.nbytes / 2**20:.0f} MiB): {seconds:.2f} s, {more:.0f} MiB more"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--probes", type=int, default=10_000)
    parser.add_argument("--templates", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--search-only", type=int, metavar="TEMPLATES")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.search_only:
        search_only(args.search_only)
        return
    torch.manual_seed(0)
    model = EdgeFace("edgeface_xxs").eval()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_pictures(root / "faces", args.templates, args.probes)
        torch.save(model.state_dict(), root / "weights.pt")
        before = seconds_a_face(model)
        command = [
            *(sys.executable, "-m", "pipeline.evaluate_dataset", "--dataset-root", str(root / "faces")),
            *("--recognizer", str(root / "weights.pt"), "--finetuned", "none", "--dsr-checkpoint", "none"),
            *("--vlr-size", "16", "--calibration-fraction", "0", "--out", str(root / "out"), "--device", "cpu"),
            *("--batch-size", str(args.batch_size), "--num-workers", str(args.num_workers)),
        ]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(args.threads)})
        after = seconds_a_face(model)
        seconds = json.loads((root / "out" / "report.json").read_text())["seconds"]
    embedded = args.templates + 2 * args.probes
    rate, alone = embedded / seconds["embedding"], 2 / (before + after)
    print(f"{args.probes} probes, {args.templates} templates, two rows, torch {torch.__version__}")
    for stage, taken in seconds.items():
        print(f"{stage:10} {taken:7.1f} s  {taken / sum(seconds.values()):6.2%}")
    print(f"embedding {rate:.0f} faces a second, alone {alone:.0f}: ratio {rate / alone:.2f}")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest memory {largest:.0f} MiB")


if __name__ == "__main__":
    main()
