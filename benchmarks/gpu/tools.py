"""Every command that uses a trained model, on the device, with models that the trainers have just made there."""

from __future__ import annotations

import importlib

from benchmarks.gpu.assets import Assets
from benchmarks.gpu.context import Context, call
from benchmarks.gpu.trainers import DETECTOR, DSR, EAR, EAR_RECOGNIZER, EDGEFACE, Case, train

# In braces: checkpoints, the stages' pictures, and a folder for results. All but the exports take --device.
EAR_TOOLS = {
    "ear_teacher.evaluate": "--checkpoint={ear} --out={out}/evaluation",
    "ear_teacher.extract": "--checkpoint={ear} --input={data}/ears/images --out={out}/ears.npz --clusters=3",
    "ear_teacher.eigenears.create_eigenears": "--checkpoint={ear} --out={out}/eigenears --components=4",
    "ear_teacher.export": "--checkpoint={ear} --out={out}/exported",
    "ear_teacher.recognition.evaluate": "--checkpoint={recognizer} --out={out}/recognizer --replicates=100",
    "ear_teacher.detector.evaluate": "--checkpoint={detector} --out={out}/detector",
    "ear_teacher.detector.predict": "--checkpoint={detector} --input={data}/scenes/val/images --out={out}/found "
    "--threshold=0.01",
}
FACE_TOOLS = {
    "dsr.evaluate": "--checkpoint={dsr} --dataset_root={faces} --recognizer={edgeface} --second_recognizer=none "
    "--num_workers=0 --out={out}/dsr",
    "dsr.upscale": "--checkpoint={dsr} --input={vlr} --out={out}/upscaled",
    "dsr.upscale in half precision": "--checkpoint={dsr} --input={vlr} --out={out}/upscaled_half --precision=bf16",
    "dsr.export": "--checkpoint={dsr} --out={out}/dsr_exported",
    "facial_rec.embed": "--recognizer={finetuned} --input={hr} --out={out}/faces.npz",
    "facial_rec.evaluate": "--recognizer={finetuned} --upsampler=bicubic,dsr --dsr_checkpoint={dsr} --vlr_size=16 "
    "--dataset_root={faces} --num_workers=0 --out={out}/recognition",
    "facial_rec.export": "--checkpoint={finetuned} --out={out}/finetuned_exported",
    "pipeline.enroll": "--input={hr} --aligned=true --recognizer={edgeface} --out={out}/gallery.npz",
    "pipeline.identify": "--gallery={out}/gallery.npz --input={vlr} --aligned=true --upsampler=dsr "
    "--dsr_checkpoint={dsr} --out={out}/identified",
    "pipeline.evaluate_dataset": "--dataset_root={faces} --recognizer={edgeface} --finetuned={finetuned} "
    "--dsr_checkpoint={dsr} --calibration_fraction=0 --bootstrap=100 --num_workers=0 --out={out}/pipeline",
}
MADE = {
    "ears": {
        "ear": Case("ear VAE", EAR, "--precision=32"),
        "recognizer": Case("ear recogniser", EAR_RECOGNIZER, "--precision=32"),
        "detector": Case("detector", DETECTOR, "--precision=32"),
    },
    "faces": {"dsr": Case("DSR", DSR, "--precision=32"), "finetuned": Case("EdgeFace", EDGEFACE, "--precision=32")},
}


def run(part: str, context: Context) -> None:
    """part: ears or faces."""
    assets = Assets.of(context)
    folder = context.work / "runs" / context.stage
    (folder / "out").mkdir(parents=True, exist_ok=True)
    places = {"data": str(assets.folder), "out": str(folder / "out")}
    places |= {"faces": assets.faces, "edgeface": assets.edgeface}
    places |= {kind: f"{assets.faces}/test_processed/{kind}_images" for kind in ("hr", "vlr")}
    for name, case in MADE[part].items():
        context.case(
            f"train {case.name}",
            lambda case=case, name=name: train(case, context, folder / name),  # type: ignore[misc]
        )
        checkpoints = folder / name / "checkpoints"
        places[name] = str(checkpoints / "tuned" if name == "finetuned" else checkpoints / "last.ckpt")
    for name, flags in (EAR_TOOLS if part == "ears" else FACE_TOOLS).items():
        argv = [flag.format(**places) for flag in flags.split()]
        argv += [] if name.endswith(".export") else [f"--device={context.device}"]
        context.case(name, lambda name=name, argv=argv: used(name.split()[0], argv))  # type: ignore[misc]


def used(module: str, argv: list[str]) -> None:
    call(importlib.import_module(module).main, argv)
