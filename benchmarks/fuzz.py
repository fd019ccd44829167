"""Mutated files for every reader: `python -m benchmarks.fuzz --seconds 600`, so long for each reader.

A reader gives a value or an InputError whose message is one line, runs nothing, and takes neither long nor much memory.
Bytes are flipped, cut, repeated and inserted; in JSON any value is also replaced by one of another kind.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from earface.core.errors import InputError, entry_point

RUNS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "os.mkdir", "os.remove", "os.rename"}
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**70, 1e308, float("nan"), float("inf"), "", "a\nb", "\x1b[2J", "../x", "\0", "x" * 5000),
    *([], [None], [[]], {}, {"a": None}, [1, "a", None, []]),
)
SLOW_S, LARGE_MIB = 2.0, 200.0
Read = Callable[[Path], object]


def samples(folder: Path) -> dict[str, tuple[list[Path], Read]]:
    """Name of a format -> small files that can be read, and what reads them."""
    import cv2
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from ear_teacher.embeddings import table as ears
    from earface.core.files import read_json
    from earface.data import (
        annotations,
        coco,
        identity_embeddings,
        images,
        npy,
        onnx_metadata,
        points_npz,
        tables,
        yolo,
    )
    from earface.nn.checkpoint import read_checkpoint
    from earface.nn.weights import read_weights_file

    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for name in ("a.png", "b.jpg", "c.bmp", "d.tiff", "e.webp"):
        images.write_image(folder / name, pixels)
    cv2.imwrite(str(folder / "f.png"), pixels.astype(np.uint16) * 257)
    box = np.array([[2, 3, 10, 12]], np.float32)
    points = np.array([[[4, 5, 2], [8, 9, 2], [0, 0, 0]]], np.float32)
    photographs = [annotations.Photograph(folder / n, (32, 24), box, points, sides=("l",)) for n in ("a.png", "c.bmp")]
    marked = annotations.Annotations(folder, photographs, ("tip", "lobe", "helix"), ((1, 2), (2, 3)))
    coco.write_coco(folder / "coco.json", marked)
    annotations.write_boxes_csv(folder / "boxes.csv", marked)
    annotations.write_pts(folder / "a.pts", points[0])
    np.savez(folder / "points.npz", files=np.array(["a.png", "c.bmp"]), points=points[:, :, :2].repeat(2, 0))
    rows: dict[str, Any] = {"image_paths": ["a.png", "c.bmp"], "bboxes": box.repeat(2, 0), "subjects": ["x", "y"]}
    npy.write_teacher_npy(folder / "dict.npy", **rows, landmarks=points[:, :, :2].repeat(2, 0), sides=["l", ""])
    np.save(folder / "images.npy", pixels[None])
    np.savez(folder / "images.npz", images=pixels[None], subjects=np.array(["x"]))
    unit = np.eye(2, 4, dtype=np.float32)
    table = identity_embeddings.IdentityEmbeddings(unit, ["a.png", "c.bmp"], ["x", "y"], "contract", "digest", {"a": 1})
    identity_embeddings.write_embeddings(folder / "gallery.npz", table)
    ears.write_embeddings(
        folder / "ears.npz", ears.Embeddings(["a.png", "c.bmp"], unit, {"digest": "1"}, subjects=["x", "y"])
    )
    state = {"model.weight": torch.ones(3, 2), "model.bias": torch.zeros(3)}
    run = {"state_dict": state, "hyper_parameters": {"options": {"lr": 0.1}}, "global_step": 3}
    torch.save(run, folder / "run.ckpt")
    torch.save(run, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    torch.save(state, folder / "weights.pt")
    save_file(state, folder / "weights.safetensors")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 .5 .5 .2 .3 .4 .4 2 .5 .5 2\n")
    (folder / "data.yaml").write_text("names: {0: ear}\nkpt_shape: [2, 3]\n")
    parts = Path(onnx_metadata.__file__).with_name("ear_landmarks.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(parts)
    (folder / "config.json").write_text(json.dumps({"kind": "earface.EarVAE", "model": {"latent_dim": 8}}))

    def these(*names: str) -> list[Path]:
        return [folder / name for name in names]

    def labels(path: Path) -> object:
        return yolo.read_yolo(path.parent.parent if path.suffix == ".txt" else path.parent)

    return {
        "COCO": (these("coco.json"), coco.read_coco),
        "CSV": (these("boxes.csv"), annotations.read_boxes_csv),
        "table": (these("boxes.csv"), tables.read_csv),
        "PTS": (these("a.pts"), lambda path: annotations.read_pts(path)),
        "points": (these("points.npz"), points_npz.read_points_npz),
        "YOLO": (these("labels/a.txt", "data.yaml"), labels),
        "JSON": (these("config.json"), read_json),
        "NPY": (these("dict.npy", "images.npy", "images.npz"), npy.read_teacher_npy),
        "gallery": (these("gallery.npz"), identity_embeddings.read_embeddings),
        "embeddings": (these("ears.npz"), ears.read_embeddings),
        "ONNX": (these("model.onnx"), onnx_metadata.read_onnx_metadata),
        "checkpoint": (these("run.ckpt", "old.ckpt"), read_checkpoint),
        "weights": (these("weights.pt", "weights.safetensors"), read_weights_file),
        "picture": (these("a.png", "b.jpg", "c.bmp", "d.tiff", "e.webp", "f.png"), images.read_image),
        "header": (these("a.png", "b.jpg", "c.bmp", "d.tiff", "e.webp", "f.png"), images.image_header),
    }


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A few of its bytes changed, cut, repeated or inserted; half of them near its beginning."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        place = draw.randrange(min(len(changed), 200) if draw.random() < 0.5 else len(changed)) if changed else 0
        kind = draw.randrange(6)
        if kind == 0 and changed:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and changed:
            changed[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 10, draw.randrange(256)))
        elif kind == 2:
            del changed[place : place + draw.choice((1, 2, 8, len(changed)))]
        elif kind == 3:
            changed[place:place] = changed[place : place + draw.choice((1, 4, 64))]
        elif kind == 4:
            changed[place:place] = draw.randbytes(draw.choice((1, 4, 8)))
        else:
            changed[place : place + 8] = draw.choice((b"\xff" * 8, b"\0" * 8, b"9" * 8, b"\n" * 2))
    return bytes(changed)


def mutated_json(content: bytes, draw: random.Random) -> bytes:
    """With one or two of its values replaced or taken away."""
    whole = json.loads(content)
    for _ in range(draw.choice((1, 1, 2))):
        places: list[tuple[Any, Any]] = []
        stack = [whole]
        while stack:
            node = stack.pop()
            keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
            places += [(node, key) for key in keys]
            stack += [node[key] for key in keys]
        if not places:
            break
        node, key = draw.choice(places)
        if draw.random() < 0.15:
            del node[key]
        else:
            node[key] = copy.deepcopy(draw.choice(ODD) if draw.random() < 0.8 else node)
    return json.dumps(whole).encode()


def fault_of(read: Read, path: Path) -> str:
    """What is wrong with how a file is read, empty where nothing is."""
    try:
        read(path)
    except InputError as error:
        return "message of more than one line" if len(str(error).splitlines()) != 1 else ""
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:60]!r} at {Path(where.filename).name}:{where.lineno}"
    return ""


def attack_once(read: Read, path: Path, content: bytes, original: bytes) -> str:
    """`fault_of` a file with other content, which is then what it was."""
    path.write_bytes(content)
    try:
        return fault_of(read, path)
    finally:
        path.write_bytes(original)


def attack(name: str, files: Sequence[Path], read: Read, seconds: float, draw: random.Random) -> Counter[str]:
    """Faults by kind, and `tried`; what is slow or large counts as a fault."""
    originals = {path: path.read_bytes() for path in files}
    for path in files:
        read(path)
    found: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        path = draw.choice(files)
        as_json = path.suffix == ".json" and draw.random() < 0.8
        content = (mutated_json if as_json else mutated)(originals[path], draw)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        fault = attack_once(read, path, content, originals[path])
        took = time.process_time() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        for kind in (fault, "slow" * (took > SLOW_S), "large" * (grown > LARGE_MIB)):
            if kind:
                found[kind] += 1
                if found[kind] == 1:
                    print(f"  {name}: {kind}, {took:.1f} s, {grown:.0f} MiB more", file=sys.stderr, flush=True)
        found["tried"] += 1
    return found


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for each reader")
    parser.add_argument("--readers", nargs="+", help="some of them; default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    warnings.simplefilter("ignore")
    ran: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        known = samples(Path(folder))
        watching = True
        sys.addaudithook(lambda event, _: ran.update([event]) if watching and event in RUNS else None)
        print(f"{'reader':<12}{'tried':>9}{'wrong':>8}{'code run':>10}")
        for name in options.readers or known:
            ran.clear()
            found = attack(name, *known[name], options.seconds, random.Random(f"{options.seed} {name}"))
            faults = found.total() - found["tried"]
            print(f"{name:<12}{found['tried']:>9,}{faults:>8}{ran.total():>10}", flush=True)
            wrong += faults + ran.total()
        watching = False
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
