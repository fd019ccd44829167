"""The faces that a super-resolver is trained and validated on."""

from __future__ import annotations

from dsr.config import DSRTrainingConfig
from earface.core.notices import warn
from earface.data.data_digest import Picture, face_pictures
from earface.data.face_dataset import FaceBatch, FaceDataset, FacePixels, training_faces, usable_faces, with_vlr
from earface.data.face_folders import prepared_vlr_size, training_root
from earface.data.identity_split import identity_digests
from earface.training.datamodule import TrainingDataModule


class DSRDataModule(TrainingDataModule[DSRTrainingConfig]):
    """Training and validation faces."""

    train_set: FaceDataset
    val_set: FaceDataset

    def __init__(self, config: DSRTrainingConfig) -> None:
        super().__init__(config)
        files = config.degradation == "files"
        self.train_rows, self.val_rows = training_faces(config.dataset_root, need_vlr=files)
        prepared = prepared_vlr_size(training_root(config.dataset_root))
        if not files and prepared not in (None, str(config.vlr)):
            warn(
                f"`dataset_root` {config.dataset_root}: was prepared with VLR faces of {prepared}, and the "
                f"super-resolver learns to enlarge {config.vlr}: give `vlr_size` {prepared}, unless that is meant"
            )

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        files = config.degradation == "files"
        size = config.vlr if files else None
        train, val = (usable_faces(rows, size) for rows in (self.train_rows, self.val_rows))
        realistic = config.vlr if config.degradation == "realistic" else None
        self.train_set = FaceDataset(
            train, seed=config.seed, augment=config.augment, files=files, realistic_size=realistic
        )
        self.val_set = FaceDataset(val, seed=config.seed, files=files, realistic_size=realistic)

    def on_after_batch_transfer(self, batch: FacePixels, dataloader_idx: int) -> FaceBatch:
        """On the device: float32 in [-1, 1], with VLR faces."""
        return with_vlr(batch, self.config.degradation, self.config.vlr)

    @property
    def trained_on(self) -> list[str]:
        """Digests of the training identities, so that evaluations can refuse them."""
        return identity_digests(row.identity for row in self.train_rows)

    def pictures(self) -> tuple[list[Picture], list[Picture]]:
        return face_pictures(self.train_rows), face_pictures(self.val_rows)

    def train_name(self, index: int) -> str:
        return str(self.train_set.rows[index].path)
