"""What each kind of run is called, what is looked at first, and how its model is used next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunKind:
    """In commands and python, {run} stands for the folder of the run's checkpoints, {parent} for the one that it is in,
    {tuned} for what the fine-tuning of EdgeFace writes there."""

    title: str
    headline: tuple[str, ...]  # metrics without `val/`; also those that begin with one and an underscore
    commands: tuple[str, ...]
    python: str = ""


_LOAD = "from {package} import {model}\n\nmodel = {model}.load({{run!r}})\n{use}"


def _python(package: str, model: str, use: str) -> str:
    return _LOAD.format(package=package, model=model, use=use)


RUN_KINDS = {
    "ear_vae": RunKind(
        "Ear VAE",
        ("psnr", "ssim", "active_units", "identity_rank1", "identity_eer"),
        (
            "earface ears evaluate --checkpoint {run}",
            "earface ears extract --checkpoint {run} --input ears --out ears.npz",
            "earface ears eigenears --checkpoint {run}",
            "earface export ears --checkpoint {run} --out exported",
        ),
        _python("ear_teacher", "EarVAE", 'latents = model.embed("ears")  # a folder, or pictures'),
    ),
    "ear_recognizer": RunKind(
        "Ear recogniser",
        ("rank1", "eer", "tar"),
        (
            "earface ears recognize evaluate --checkpoint {run}",
            "earface enroll --recognizer {run} --input people --out ears.npz",
            "earface export recognizer --checkpoint {run} --out exported",
        ),
        _python("ear_teacher", "EarRecognizer", 'embeddings = model.embed("ears")  # (N, D), of length 1'),
    ),
    "ear_detector": RunKind(
        "Ear detector",
        ("ap50", "ap", "nme"),
        (
            "earface ears detector evaluate --checkpoint {run}",
            "earface ears detector predict --checkpoint {run} --input photographs",
            "earface export detector --checkpoint {run} --out exported",
        ),
        _python("ear_teacher", "EarDetector", 'found = model.detect("photographs")'),
    ),
    "dsr": RunKind(
        "Face super-resolver",
        ("psnr", "ssim", "cosine", "rank1"),
        (
            "earface dsr evaluate --checkpoint {run}",
            "earface dsr upscale --checkpoint {run} --input small_faces --out faces",
            "earface export dsr --checkpoint {run} --out exported",
        ),
        _python("dsr", "DSR", 'faces = model.upscale("small_faces")  # (N, 128, 128, 3) uint8'),
    ),
    "edgeface_stage1": RunKind("EdgeFace, stage 1", ("accuracy",), ()),
    "edgeface_stage2": RunKind(
        "EdgeFace, stage 2",
        ("rank1", "tar"),
        (
            "earface faces evaluate --recognizer {parent}/tuned",
            "earface enroll --recognizer {parent}/tuned --input people --out gallery.npz",
            "earface export edgeface --checkpoint {run} --out exported",
        ),
        "from pipeline import load_recognizer\n\n"
        "recognizer = load_recognizer({tuned!r})\n"
        'embeddings = recognizer.embed("faces")  # (N, 512), of length 1',
    ),
}


def run_kind(name: str) -> RunKind:
    """Of a run's name in its logs; of a kind that is not known, one without a headline."""
    return RUN_KINDS.get(name, RunKind(name.replace("_", " "), (), ()))
