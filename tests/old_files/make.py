"""Made the files in this folder, once, at commit 50906c5: `python -m tests.old_files.make WORK`, WORK a new folder.

A record: it calls modules by their names of then. Paths inside some of the files begin with WORK, /tmp/old_files.
"""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests import test_old_files as compared

HERE = Path(__file__).parent
PACKED = (".pt", ".ckpt", ".npz", ".parquet", ".safetensors", ".onnx")
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 2, "pb": 2}]  # numbers of 4 bytes
LIMIT = 400_000  # bytes of a file
PERIOD = 257  # numbers after which a weight tensor repeats, so that xz makes it small
OFF = -100.0  # bias of a batch norm that lets nothing through the rectifier behind it: what is before it never changes

QUICK = """--batch-size 4 --precision 32 --num-workers 0 --progress none --log-every-n-steps 2 --weight-decay 0
    --warmup-epochs 1"""
EMA, RAW = f"{QUICK} --ema-decay 0.9 --early-stop-patience 5", f"{QUICK} --ema-decay 0 --early-stop-patience 0"
EARS = """ear_teacher.train --train-npy ears/train_teacher.npy --val-npy ears/val_teacher.npy --epochs 2 --encoder conv
    --base-channels 4 --image-size 32 --latent-dim 4 --linear-path-size 8 --freeze-layers 2"""
DETECTOR = """ear_teacher.detector.train --train-json scenes/train/annotations.json --epochs 2
    --val-json scenes/val/annotations.json --image-size 64 --crop-size 32 --pyramid-width 16 --freeze-layers 4"""
DSR = """dsr.train_dsr --dataset-root faces --vlr-size 32 --base-channels 8 --residual-blocks 1 --epochs 2 --lr 1e-3
    --lambda-perceptual 0 --second-recognizer none"""
EDGEFACE = """facial_rec.finetune_edgeface --dataset-root faces --vlr-size 32 --weights edgeface.pt --cache-dir cache
    --inputs bicubic=.6,hr=.4 --stage1-epochs 2 --lora-rank 1 --backbone-lr 1e-3"""
RUNS = {
    "ear_ema": f"{EARS} {EMA} --schedule cosine --lr 1e-3",
    "ear_raw": f"{EARS} {RAW} --schedule plateau --lr 1e-3",
    "detector_ema": f"{DETECTOR} {EMA} --vae-checkpoint ear_raw/saved/last.ckpt",
    "detector_raw": f"{DETECTOR} {RAW} --encoder conv --base-channels 4 --encoder-weights none --num-landmarks 0",
    "dsr_ema": f"{DSR} {EMA} --recognizer edgeface.pt",
    "dsr_raw": f"{DSR} {RAW} --recognizer none --lambda-identity 0 --lambda-feature-match 0 --degradation realistic",
    "edgeface_ema": f"{EDGEFACE} {EMA} --stage2-epochs 1",
    "edgeface_raw": f"{EDGEFACE} {RAW} --stage2-epochs 1",
    "edgeface_stage2": f"{EDGEFACE} {EMA} --stage2-epochs 2",
}


def main(work: Path) -> None:
    os.environ |= {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    work.mkdir(parents=True)
    os.chdir(work)
    compared.draw_pictures(Path())
    run(r"data.prepare_ears --images ears/images --subject-pattern S\d+ --out prepared")
    torch.manual_seed(0)
    torch.save(compressible(compared.EdgeFace("edgeface_xxs").state_dict()), "edgeface.pt")
    run(f"{command('first', RUNS['ear_raw'])} --epochs 1 --lr 1e-9")  # for its linear path
    first = torch.load("first/saved/last.ckpt", weights_only=True)
    torch.save(first | {"state_dict": compressible(first["state_dict"])}, "start.ckpt")

    finished = {}
    for name, arguments in RUNS.items():  # to the end without a stop; then again, to where it is stopped
        new = command(name, arguments) + (" --init-from start.ckpt" if name.startswith("ear") else "")
        run(new)
        finished[name] = compared.outcome(*(Path(name) / each for each in compared.LAST[name]))
        if name.startswith("edgeface"):
            finetuned = compared.EdgeFace.load(f"{name}/saved/stage2/last.ckpt")
            finished[name]["tuned"] = compared.edgeface_numbers(finetuned)["embeddings"]
        Path(name).rename(f"{name}_whole")
        run(f"{new} --stop-after-epoch 1")
        if name == "edgeface_stage2":  # stage 1 to its end, and one epoch of stage 2
            run(f"{new} --stop-after-epoch 1")
    make_others()
    write(finished)


def command(name: str, arguments: str) -> str:
    return f"{arguments} --checkpoint-dir {name}/saved --log-dir {name}/log"


def run(text: str) -> None:
    subprocess.run([sys.executable, "-m", *text.split()], check=True)


def compressible(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of one network, repeated after PERIOD numbers; the large blocks of an ear VAE are off."""
    made = {}
    for name, value in state.items():
        flat = value.flatten()[:PERIOD].repeat(-(-value.numel() // PERIOD))[: value.numel()]
        made[name] = value if "linear_path" in name or value.ndim == 0 else flat.view_as(value).clone()
        if "gamma" in name:
            made[name].fill_(0.5)  # EdgeFace's layer scales start at 1e-6, and all faces would look the same
    for weight, bias, most in (("body.0.weight", "body.1.bias", 1000), ("upsample.weight", "norm.bias", 2000)):
        for name, value in state.items():
            if name.endswith(weight) and value.numel() > most:
                made[name.replace(weight, bias)].fill_(OFF)
    return made


def make_others() -> None:
    """Exports, tables, and a gallery."""
    run("ear_teacher.export --checkpoint ear_ema/saved/last.ckpt --out exports/ear --format safetensors")
    run("dsr.export --checkpoint dsr_ema/saved/last.ckpt --out exports/dsr")
    finetuned = "edgeface_ema/saved/stage1/last.ckpt"
    run(f"facial_rec.export --checkpoint {finetuned} --out exports/edgeface --format safetensors")
    for suffix in ("npz", "parquet"):
        run(
            "ear_teacher.extract --checkpoint ear_ema/saved/last.ckpt --input ears/val_teacher.npy --logvar "
            f"--clusters 2 --out tables/ears.{suffix}"
        )
    run(f"facial_rec.embed --weights exports/edgeface --input {compared.PROBES} --out tables/faces.npz")
    enrolled = "faces/train_processed/hr_images"
    run(f"pipeline.enroll --input {enrolled} --aligned --recognizer exports/edgeface --out tables/gallery.npz")
    searched = f"--input {compared.PROBES} --aligned --top-k 99 --pictures 0 --out found"
    run(f"pipeline.identify --gallery tables/gallery.npz {searched}")


def write(finished: Mapping[str, Any]) -> None:
    """What is kept, into this folder, and the numbers that it must give."""
    kept = [Path("edgeface.pt"), Path("faces/splits.json"), Path("tables/faces.npz"), Path("tables/gallery.npz")]
    kept += [Path("tables/ears.npz"), Path("tables/ears.parquet")]
    kept += [path for path in Path("exports").glob("*/*.*") if path.name != "README.md"]
    kept += [*Path("ears").glob("*.npy"), *Path("prepared").glob("*.npy"), *Path("scenes").glob("*/annotations.json")]
    for name in RUNS:
        for pattern in ("last.ckpt", "metrics.csv", "*.yaml"):
            kept += Path(name).rglob(pattern)
    for path in kept:
        content, target = path.read_bytes(), HERE / path
        if path.suffix in PACKED:
            content, target = lzma.compress(content, filters=XZ), HERE / f"{path}.xz"
        assert len(content) <= LIMIT, path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    commands = {name: command(name, arguments).split() for name, arguments in RUNS.items()}
    (HERE / "runs.json").write_text(
        "{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in commands.items()) + "\n}\n"
    )

    expected = {
        "weights": {
            name: {
                weights: compared.numbers_of(name, Path(name) / compared.LAST[name][0], weights)
                for weights in ("averaged", "raw")
            }
            for name in RUNS
        },
        "authors": compared.edgeface_numbers(compared.load_edgeface("edgeface.pt")),
        "finished": finished,
        "lists": {
            "ears": compared.index_numbers(Path("ears")),
            "prepared": compared.index_numbers(Path("prepared")),
            "scenes": compared.scene_numbers(Path("scenes/train/annotations.json")),
            "splits": compared.split_numbers(Path("faces/splits.json")),
        },
        "tables": {
            "ears": compared.ear_table_numbers(Path("tables/ears.npz")),
            "faces": compared.face_table_numbers(Path("tables/faces.npz")),
            "gallery": compared.gallery_numbers(Path("tables/gallery.npz")),
            "identified": compared.identified(Path("found")),
        },
    }
    rounded = json.loads(json.dumps(expected), parse_float=lambda text: float(f"{float(text):.8g}"))
    (HERE / "expected.json").write_text(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
