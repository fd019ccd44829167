"""What the stages read: synthetic ears, faces and photographs, ears that were carried, and files of random weights."""

from __future__ import annotations

import csv
import importlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.context import Context, call

TINY_PERCEPTUAL = "timm:test_resnet.r160_in1k"  # timm's own test model
WORKERS = max(1, (os.cpu_count() or 1) // 4)  # sets are made side by side


@dataclass(frozen=True)
class Assets:
    """Paths below the folder `data` of a run's scratch."""

    folder: Path
    carried: Path
    smoke: bool

    @classmethod
    def of(cls, context: Context) -> Assets:
        return cls(context.work / "data", context.assets, context.smoke)

    @property
    def ears(self) -> list[str]:
        """Flags of the ear trainer: 48 synthetic ears to train on, 12 to validate on."""
        return self._npy(self.folder / "ears")

    @property
    def many_ears(self) -> list[str]:
        """Flags of the ear trainer: the first of the folders that were carried, else the synthetic ears."""
        return self._npy(self.ear_folders[0])

    @property
    def ear_folders(self) -> list[Path]:
        """Each with train_teacher.npy and val_teacher.npy: those that were carried, else the synthetic ears."""
        carried = self.folder / "carried"
        found = (carried / "order.txt").read_text().split() if carried.is_dir() else []
        return [carried / name for name in found] or [self.folder / "ears"]

    @property
    def faces(self) -> str:
        return str(self.folder / "faces" / "set")

    @property
    def scenes(self) -> list[str]:
        root = self.folder / "scenes"
        return [f"--train_json={root}/train/annotations.json", f"--val_json={root}/val/annotations.json"]

    @property
    def edgeface(self) -> str:
        """The published EdgeFace-XXS where it was carried, else random weights."""
        return self.published("edgeface_xxs_q.pt") or str(self.folder / "edgeface.pt")

    def published(self, name: str) -> str | None:
        """A file of weights that was carried."""
        path = self.carried / "weights" / name
        return str(path) if path.is_file() else None

    @property
    def perceptual(self) -> list[str]:
        """Flags of a perceptual loss with random weights, of VGG16's cost."""
        if self.smoke:
            return [f"--perceptual_backbone={TINY_PERCEPTUAL}", f"--perceptual_weights={self.folder / 'tiny.pt'}"]
        return ["--perceptual_backbone=vgg16", f"--perceptual_weights={self.folder / 'vgg16.pt'}"]

    @property
    def dinov2_perceptual(self) -> list[str]:
        if self.smoke:
            return self.perceptual
        return ["--perceptual_backbone=dinov2", f"--perceptual_weights={self.folder / 'dinov2.pt'}"]

    @staticmethod
    def _npy(folder: Path) -> list[str]:
        return [f"--train_npy={folder}/train_teacher.npy", f"--val_npy={folder}/val_teacher.npy"]


def run(part: str, context: Context) -> None:
    assets = Assets.of(context)
    assets.folder.mkdir(parents=True, exist_ok=True)
    makers = {
        "ears": _make_ears,
        "faces": _make_faces,
        "scenes": _make_scenes,
        "weights": _random_weights,
        "carried": _unpack_ears,
    }
    context.case(part, lambda: {"made": makers[part](assets)})


def _make_ears(assets: Assets) -> str:
    from earface.synthetic.ear_set import EarSet, write_ear_set

    size = 64 if assets.smoke else 128
    ears = EarSet(15, 4, size, seed=3)
    write_ear_set(assets.folder / "ears", ears, val_fraction=0.2, num_workers=WORKERS, overwrite=True)
    return f"60 of {size} px"


def _make_faces(assets: Assets) -> str:
    from earface.synthetic.face_set import FaceSet, write_face_set

    synthetic = assets.folder / "faces" / "synthetic"
    write_face_set(synthetic, FaceSet(14, 3, 128, seed=3), num_workers=WORKERS)
    argv = ["--images", str(synthetic), "--aligned", "--out", assets.faces, "--vlr-size", "16", "--overwrite"]
    call(importlib.import_module("earface.data.prepare_faces").main, argv)
    return "42 of 14 identities"


def _make_scenes(assets: Assets) -> str:
    from earface.synthetic.scene_set import SceneSet, write_scene_set

    for role, count, seed in (("train", 16, 1), ("val", 8, 2)):
        write_scene_set(assets.folder / "scenes" / role, SceneSet(count, 160, 120, seed=seed), num_workers=WORKERS)
    return "24 of 160x120"


def _unpack_ears(assets: Assets) -> str:
    from earface.data.npy import write_teacher_npy

    if assets.smoke or not (assets.carried / "ears.zip").is_file():
        return "nothing: synthetic ears serve"
    target = assets.folder / "carried"
    with zipfile.ZipFile(assets.carried / "ears.zip") as archive:
        archive.extractall(target)
    with io.StringIO((target / "index.csv").read_text()) as stream:
        rows = list(csv.DictReader(stream))
    folders = list(dict.fromkeys(row["folder"] for row in rows))
    for folder in folders:
        (target / folder).mkdir(exist_ok=True)
        for role in ("train", "val"):
            own = [row for row in rows if (row["folder"], row["role"]) == (folder, role)]
            write_teacher_npy(
                target / folder / f"{role}_teacher.npy",
                image_paths=[(target / row["file"]).absolute() for row in own],
                subjects=[row["subject"] for row in own],
                sides=[row["side"] for row in own],
                contract=own[0]["contract"],
            )
    (target / "order.txt").write_text("\n".join(folders))
    return f"{len(rows)} files of {', '.join(folders)}"


def _random_weights(assets: Assets) -> str:
    """Perceptual networks and a recogniser; their layer scales are large enough that a gradient passes."""
    import timm
    import torch
    import torchvision

    from facial_rec.model import EdgeFace

    torch.manual_seed(0)
    model = EdgeFace("edgeface_xxs")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.5)
    torch.save(model.state_dict(), assets.folder / "edgeface.pt")
    if assets.smoke:
        tiny = timm.create_model(TINY_PERCEPTUAL.removeprefix("timm:"), pretrained=False)
        torch.save(tiny.state_dict(), assets.folder / "tiny.pt")
        return "edgeface, tiny"
    vgg = torchvision.models.vgg16().features.state_dict(prefix="features.")
    torch.save(vgg, assets.folder / "vgg16.pt")
    dinov2 = timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=False)
    torch.save(dinov2.state_dict(), assets.folder / "dinov2.pt")
    return "edgeface, vgg16, dinov2"
