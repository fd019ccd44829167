"""What there is in this folder to train on and to go on from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from earface.core.errors import InputError
from earface.data.face_folders import HR_FOLDER, SPLITS, SPLITS_FILE, USUAL_ROOT, split_folder
from earface.data.identity_split import read_splits
from earface.data.npy import read_teacher_npy
from earface.data.options import TEACHER_FILES, USUAL_EARS
from earface.doctor.finding import Finding

GROUP = "data in this folder"
CHECKPOINTS = {
    "ear VAE": "ear_teacher/checkpoints",
    "ear detector": "ear_teacher/checkpoints/detector",
    "ear recogniser": "ear_teacher/checkpoints/recognizer",
    "super-resolver": "dsr/checkpoints",
    "EdgeFace": "facial_rec/checkpoints",
}


def places() -> list[Finding]:
    return [*(_ears(name) for name in TEACHER_FILES.values()), *_faces(), *_checkpoints()]


def _ears(name: str) -> Finding:
    path = Path(USUAL_EARS) / name
    if not path.is_file():
        advice = "earface ears prepare makes them of yours, or earface ears synthesize"
        return Finding(GROUP, str(path), "none", "note", advice)
    try:
        data = read_teacher_npy(path)
    except InputError as error:
        return Finding(GROUP, str(path), str(error).removeprefix(f"{path}: "), "problem", "make it anew")
    missing = sum(not each.is_file() for each in data.image_paths or [])
    people = f" of {len(set(data.subjects))} people" if data.subjects else ", people unknown"
    if missing:
        return Finding(GROUP, str(path), f"{missing} of {len(data)} pictures are missing", "problem", "put them back")
    return Finding(GROUP, str(path), f"{len(data):,} ears{people}")


def _faces() -> list[Finding]:
    root = Path(USUAL_ROOT)
    if not (root / split_folder("train") / HR_FOLDER).is_dir():
        advice = "earface faces prepare makes a set of photographs; earface faces synthesize draws some"
        return [Finding(GROUP, f"{root}/", "none", "note", advice)]
    counts = [
        f"{sum(1 for _ in folder.iterdir()):,} {split}"
        for split in SPLITS
        if (folder := root / split_folder(split) / HR_FOLDER).is_dir()
    ]
    found = [Finding(GROUP, f"{root}/", f"faces: {', '.join(counts)}")]
    if (root / SPLITS_FILE).is_file():
        try:
            roles = Counter(read_splits(root / SPLITS_FILE).roles.values())
        except InputError as error:
            return [*found, Finding(GROUP, SPLITS_FILE, str(error), "problem", "earface faces prepare makes it anew")]
        found.append(Finding(GROUP, SPLITS_FILE, ", ".join(f"{count} {role}" for role, count in roles.items())))
    return found


def _checkpoints() -> list[Finding]:
    found = []
    for name, folder in CHECKPOINTS.items():
        files = list(Path(folder).glob("*.ckpt"))
        if files:
            size = sum(file.stat().st_size for file in files)
            found.append(Finding(GROUP, folder, f"{name}: {len(files)} checkpoints, {size / 1e9:.1f} GB"))
    return found
