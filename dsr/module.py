"""The training of a DSR: a step, validation by two recognisers, image grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from dsr.comparison_grid import comparison_errors, comparison_rows
from dsr.config import HR_SIZE, DSRTrainingConfig
from dsr.datamodule import DSRDataModule
from dsr.losses import DSRLoss, DSRLossResult, DSRLossWeights, Perceptual
from dsr.model import DSR, OWN_PIXELS, check_own_pixels
from earface.data.degradation import bicubic
from earface.data.face_dataset import FaceBatch
from earface.data.face_sizes import VLRRange
from earface.data.image_grid import save_image_grid
from earface.data.padded_faces import enlarge
from earface.data.pixels import to_unit
from earface.metrics.identification import one_gallery_picture, rank_one_hits
from earface.metrics.image_quality import luma, psnr, ssim
from earface.nn.checkpoint import read_checkpoint
from earface.nn.frozen import FrozenRecognizer
from earface.training.module import TrainingModule
from earface.training.optim import check_groups, named_group

SHOWN = ("val/loss", "val/psnr", "val/cosine", "val/cosine_second", "val/rank1_second")


class DSRLightning(TrainingModule[DSRTrainingConfig, DSRDataModule]):
    """Trains `self.model`, a DSR or any network with the same input and output.

    recognizer: of the identity and feature matching losses; second: for validation only; perceptual: of its term. None
    of them is part of the module's weights.
    """

    def __init__(
        self,
        config: DSRTrainingConfig,
        recognizer: FrozenRecognizer | None = None,
        second: FrozenRecognizer | None = None,
        perceptual: Perceptual | None = None,
        model: torch.nn.Module | None = None,
    ) -> None:
        super().__init__(config, DSR.format.kind, config.model_config())
        self.model = model or DSR(config.model_config())
        weights = DSRLossWeights(
            perceptual=config.lambda_perceptual,
            identity=config.lambda_identity,
            feature_match=config.lambda_feature_match,
            tv=config.lambda_tv,
        )
        self.padded = isinstance(config.vlr, VLRRange)  # whether faces of several sizes are a batch
        self.loss = DSRLoss(weights, recognizer, perceptual)
        self.faces = ValidationFaces(recognizer, second)
        self.inherited: set[str] = set()  # identities that the initial weights were trained on

    # -- training ----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """A compiled objective cannot move its frozen networks."""
        for network in (*self.faces.recognizers.values(), self.loss.perceptual):
            if network is not None:
                network.to(self.device)

    def compile_networks(self, **options: Any) -> None:
        self.objective = torch.compile(self.objective, **options)  # type: ignore[method-assign]

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = named_group("dsr", [self.model], self.config.lr, self.config.weight_decay)
        check_groups(groups, self.model.parameters())
        return groups

    def objective(self, batch: FaceBatch) -> DSRLossResult:
        """The loss of a training batch, compiled as a whole."""
        return self.loss(self.model(batch["vlr"]), batch["hr"], self.config.recognizer_jitter)

    def training_step(self, batch: FaceBatch, batch_idx: int) -> Tensor:
        result = self.objective(batch)
        self.terms.add(self.global_step, {"loss": result.total, **result.terms}, batch["index"])
        return result.total

    # -- validation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.faces.begin(len(self.datamodule.val_set))
        if self.draws_pictures:
            self._log_image_grid()

    def validation_step(self, batch: FaceBatch, batch_idx: int) -> None:
        """Without augmentation. PSNR of RGB and of luma, the latter without the outermost VLR pixel, as is usual."""
        vlr, hr = batch["vlr"], batch["hr"]
        sr = self.model(vlr).float()
        result = self.loss(sr, hr)
        found, plain, wanted = to_unit(sr), to_unit(enlarge(vlr, HR_SIZE, padded=self.padded)).clamp(0, 1), to_unit(hr)
        values = {
            "loss": result.total,
            "psnr": (rgb := psnr(found, wanted)).mean(),
            "psnr_gain": (rgb - psnr(plain, wanted)).mean(),
            "psnr_y": psnr(luma(found), luma(wanted), crop_border=HR_SIZE // self.config.grid).mean(),
            "ssim": ssim(found, wanted).mean(),
            **result.terms,
        }
        self.faces.add(batch["index"], sr, hr, result.embedding)
        self.sums.add(values | self._at_examples(batch["index"], hr), len(hr))

    def _at_examples(self, index: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Of a range: PSNR and cosine, of the last recogniser, at single sizes: bicubic and aligned, so comparable."""
        sizes, values = self.config.vlr, dict[str, Tensor]()
        for size in sizes.examples if isinstance(sizes, VLRRange) else ():
            sr = self.model(bicubic(hr, size)).float()
            values[f"psnr_{size}"] = psnr(to_unit(sr), to_unit(hr)).mean()
            if (cosine := self.faces.cosine(index, sr)) is not None:
                values[f"cosine_{size}"] = cosine
        return values

    def on_validation_epoch_end(self) -> None:
        means = self.validation_means()
        counted = self.over_processes(torch.tensor([float(self.faces.count)], dtype=torch.float64))
        complete = round(float(counted)) == len(self.datamodule.val_set)
        if complete:
            means |= self.faces.metrics(self.datamodule.val_set.identities, self.over_processes)
        self.log_validation(means, shown=SHOWN)

    def _log_image_grid(self) -> None:
        """Fixed validation faces, as PNG and in TensorBoard."""
        dataset = self.datamodule.val_set
        chosen = np.unique(np.linspace(0, len(dataset) - 1, self.config.grid_images).round().astype(int))
        batch = self.datamodule.on_after_batch_transfer(default_collate([dataset[int(i)] for i in chosen]), 0)
        sr = self.model(batch["vlr"].to(self.device))
        rows = comparison_rows(batch["vlr"], {"DSR": sr.to(batch["vlr"])}, batch["hr"], padded=self.padded)
        path = self.log_dir / "faces" / f"epoch_{self.current_epoch:03d}.png"
        with self.going_on():
            self.log_picture("faces", save_image_grid(path, rows, comparison_errors(rows)))

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["trained_on"] = sorted({*self.datamodule.trained_on, *self.inherited})
        checkpoint[OWN_PIXELS] = self.padded

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        check_own_pixels(checkpoint, "the checkpoint")
        self.inherited |= set(checkpoint["trained_on"])

    def initialise_from(self, path: str) -> None:
        checkpoint = read_checkpoint(path)
        check_own_pixels(checkpoint, path)
        super().initialise_from(path)
        self.inherited |= set(checkpoint.get("trained_on", ()))

    def forward(self, vlr: Tensor) -> Tensor:
        return self.model(vlr)


class ValidationFaces:
    """Embeddings of the validation faces by up to two recognisers, for the cosine of SR and HR and for rank-1.

    They stay on the faces' device until the epoch ends. HR faces are embedded in the first complete epoch only.
    """

    def __init__(self, recognizer: FrozenRecognizer | None, second: FrozenRecognizer | None) -> None:
        named = {"": recognizer, "_second": second}
        self.recognizers = {suffix: each for suffix, each in named.items() if each is not None}
        self.hr: dict[str, Tensor] = {}  # (N, D), zero where another process has the face, until `hr_complete`
        self.sr: dict[str, Tensor] = {}
        self.total = self.count = 0
        self.hr_complete = False  # then `hr` holds all faces, on the CPU

    def begin(self, total: int) -> None:
        self.total, self.count, self.sr = total, 0, {}

    def add(self, index: Tensor, sr: Tensor, hr: Tensor, embedding: Tensor | None) -> None:
        """index: (B,) numbers of the faces; embedding: of `sr` by the first recogniser, if the loss computed it."""
        self.count += len(index)
        for suffix, recognizer in self.recognizers.items():
            known = embedding if suffix == "" else None
            self._put(self.sr, suffix, index, recognizer(sr)[1] if known is None else known)
            if not self.hr_complete:
                self._put(self.hr, suffix, index, recognizer(hr)[1])

    def cosine(self, index: Tensor, sr: Tensor) -> Tensor | None:
        """Of other super-resolved faces after `add` of the same, and HR, by the last recogniser; None: without."""
        if not self.recognizers:
            return None
        suffix, recognizer = list(self.recognizers.items())[-1]
        table = self.hr[suffix]
        hr = table[index.to(table.device)].to(sr.device)
        return (recognizer(sr)[1].float() * hr).sum(dim=1).mean()

    def metrics(self, identities: np.ndarray, over_processes: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """val/cosine of SR and HR, and val/rank1 of SR against the first HR face of each identity, by recogniser.

        To be called after an epoch in which the processes together have added every face.
        """
        metrics: dict[str, float] = {}
        gallery, probes = one_gallery_picture(identities.tolist())
        if not self.hr_complete:
            self.hr = {suffix: over_processes(table).cpu() for suffix, table in self.hr.items()}
            self.hr_complete = True
        for suffix in self.recognizers:
            sr, hr = over_processes(self.sr[suffix]).cpu(), self.hr[suffix]
            metrics[f"val/cosine{suffix}"] = float((sr * hr).sum(dim=1).mean())
            if len(gallery) > 1:
                hits = rank_one_hits(sr[probes], identities[probes].tolist(), hr[gallery], identities[gallery].tolist())
                metrics[f"val/rank1{suffix}"] = float(hits.float().mean())
        return metrics

    def _put(self, table: dict[str, Tensor], suffix: str, index: Tensor, embeddings: Tensor) -> None:
        if suffix not in table:
            table[suffix] = embeddings.new_zeros(self.total, embeddings.shape[1], dtype=torch.float32)
        table[suffix].index_copy_(0, index, embeddings.float())
