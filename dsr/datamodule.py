"""The faces that a super-resolver is trained and validated on."""

from __future__ import annotations

from functools import partial

from dsr.config import DSRTrainingConfig
from earface.core.notices import warn
from earface.data.data_digest import Picture, face_pictures
from earface.data.extra_faces import extra_faces, extra_pictures
from earface.data.face_dataset import FaceBatch, FaceDataset, FacePixels, training_faces, usable_faces, with_vlr
from earface.data.face_folders import prepared_vlr_size, training_root
from earface.data.face_sizes import FILES, VLRRange, parse_vlr_size
from earface.data.identity_split import identity_digests
from earface.data.padded_faces import padded
from earface.data.vlr_rule import VLRRule
from earface.training.datamodule import TrainingDataModule


class DSRDataModule(TrainingDataModule[DSRTrainingConfig]):
    """Training and validation faces. The former end with those of `extra_hr`, which have no identity."""

    train_set: FaceDataset
    val_set: FaceDataset

    def __init__(self, config: DSRTrainingConfig) -> None:
        super().__init__(config)
        files, root = config.degradation == FILES, training_root(config.dataset_root)
        self.train_rows, self.val_rows = training_faces(config.dataset_root, need_vlr=files)
        self.extra_rows = extra_faces(config.extra_hr, root)
        prepared = prepared_vlr_size(root)
        if not files and prepared is not None and not config.vlr.takes(parse_vlr_size(prepared)):
            warn(
                f"`dataset_root` {config.dataset_root}: was prepared with VLR faces of {prepared}, and the "
                f"super-resolver learns to enlarge {config.vlr}: give `vlr_size` {prepared}, unless that is meant"
            )

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        files = config.degradation == FILES
        size = parse_vlr_size(config.vlr_size) if files else None
        train, val = (usable_faces(rows, size) for rows in (self.train_rows, self.val_rows))
        # the target of a moved face is moved like it: its way back to the middle is not in the pixels
        moved = VLRRule(config.degradation, config.vlr, config.misalignment).moved if config.misalignment else None
        rule = VLRRule(config.degradation, config.vlr)
        made = rule if rule.by_chance else None
        collated = partial(padded, side=config.grid) if isinstance(config.vlr, VLRRange) else None
        self.train_set = FaceDataset(
            [*train, *self.extra_rows],
            seed=config.seed,
            augment=config.augment,
            files=files,
            rule=made,
            collated=collated,
            moved=moved,
        )
        self.val_set = FaceDataset(val, seed=config.seed, files=files, rule=made, collated=collated)

    def on_after_batch_transfer(self, batch: FacePixels, dataloader_idx: int) -> FaceBatch:
        """On the device: float32 in [-1, 1], with VLR faces."""
        return with_vlr(batch, self.config.degradation, self.config.vlr)

    @property
    def trained_on(self) -> list[str]:
        """Digests of the training identities, so that evaluations can refuse them."""
        return identity_digests(row.identity for row in self.train_rows)

    def pictures(self) -> tuple[list[Picture], list[Picture]]:
        return face_pictures(self.train_rows), face_pictures(self.val_rows)

    def extra_pictures(self) -> list[Picture]:
        return extra_pictures(self.extra_rows)

    def train_name(self, index: int) -> str:
        return str(self.train_set.rows[index].path)
