"""The training of an EarVAE: a training step, validation, image grids, and the state kept in checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ear_teacher.annealing import annealing_of
from ear_teacher.config import EarVAETrainingConfig
from ear_teacher.datamodule import EarVAEBatch, EarVAEDataModule
from ear_teacher.identity import IdentityLoss, IdentityMetrics
from ear_teacher.losses import EarVAELoss, build_loss
from ear_teacher.metrics.baselines import PixelPCA
from ear_teacher.metrics.file_means import FileMeans
from ear_teacher.metrics.reconstruction import encode_all, measure, unit_images
from ear_teacher.model import EarVAE
from ear_teacher.posterior import AggregatePosterior, LatentMoments
from ear_teacher.training_pictures import rows_of_grids
from earface.core.errors import InputError
from earface.core.options import to_plain
from earface.core.progress import progress
from earface.data.image_grid import save_image_grid
from earface.data.pixels import to_model_range, to_unit
from earface.metrics.image_quality import IMAGE_METRICS
from earface.nn.checkpoint import read_checkpoint
from earface.nn.losses import LossResult
from earface.nn.margin_head import margin_at
from earface.nn.perceptual import PerceptualLoss
from earface.training.module import MOST_EMBEDDED, TrainingModule
from earface.training.optim import backbone_groups, check_groups, named_group

SHOWN = ("val/loss", "val/psnr", "val/ssim", "val/identity_rank1", "val/identity_eer")


class EarVAELightning(TrainingModule[EarVAETrainingConfig, EarVAEDataModule]):
    """Trains `self.model`, an EarVAE, and offers its methods.

    model, loss: built from `config` if not given, the loss on first use. classes: the datamodule's, the people over
    whom `identity_weight` trains; not needed without.
    """

    model: EarVAE

    def __init__(
        self,
        config: EarVAETrainingConfig,
        model: EarVAE | None = None,
        loss: EarVAELoss | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(config, EarVAE.format.kind, config.model_config())
        self.model = model or EarVAE(config.model_config(), encoder_weights=config.encoder_weights)
        if loss is not None:
            self.loss = loss
        self.model.encoder.freeze(config.freeze_layers)
        if config.gradient_checkpointing:
            self.model.encoder.backbone.set_grad_checkpointing()
        self.annealing = annealing_of(config)
        self.identity_loss = IdentityLoss(config, classes) if classes and config.identity_weight > 0 else None

    @cached_property
    def loss(self) -> EarVAELoss:
        return build_loss(self.config)

    # -- training ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.model.config = dataclasses.replace(self.model.config, contract=self.datamodule.contract)
            self.hparams["model"] = to_plain(self.model.config)
            if self.config.identity_weight > 0 and self.identity_loss is None:
                raise ValueError("`identity_weight`: give EarVAELightning the `classes` of its datamodule")
        fresh = stage == "fit" and not self._resuming and not self.config.init_from
        parts = (self.model.linear_path, self.model.appearance, self.model.encoder.identity)
        if fresh and any(part is not None for part in parts):
            training = self.model.training
            self.model.eval()
            rows = self.datamodule.closed_form_rows(self.model.closed_form_rows)
            self.model.train(training)
            with progress("fitting the linear path", quiet=self.config.progress == "none"):
                self.model.fit_closed_form(rows)
        super().setup(stage)

    def on_fit_start(self) -> None:
        """A compiled loss cannot move its network."""
        if isinstance(self.loss.perceptual, PerceptualLoss):
            self.loss.perceptual.to(self.device)

    def compile_networks(self, **options: Any) -> None:
        self.model.encoder.compile_regions(**options)
        self.model.decoder.compile(**options)
        if not torch.distributed.is_initialized():  # the contrastive term gathers then
            self.loss.compile(**options)

    @property
    def _resuming(self) -> bool:
        return getattr(self.trainer, "ckpt_path", None) is not None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named optimiser groups: backbone (scaled, perhaps layer by layer), encoder (its head), decoder."""
        config, model = self.config, self.model
        groups = [
            *backbone_groups(
                model.encoder.layer_groups(),
                config.lr * config.backbone_lr_scale,
                config.layer_decay,
                config.weight_decay,
            ),
            *named_group("encoder", [model.encoder.head], config.lr, config.weight_decay),
            *named_group("decoder", [model.decoder], config.lr, config.weight_decay),
        ]
        if model.encoder.identity is not None:
            groups += named_group("identity", [model.encoder.identity], config.lr, config.weight_decay)
        if self.identity_loss is not None:
            groups += named_group("people", [self.identity_loss], config.identity_head_lr, config.weight_decay)
        check_groups(groups, self.parameters())
        return groups

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        if self.identity_loss is not None:
            steps = self.optimiser_steps(self.config.identity_margin_epochs)
            self.identity_loss.head.margin = margin_at(self.global_step, steps, self.config.identity_margin)

    def training_step(self, batch: EarVAEBatch, batch_idx: int) -> Tensor:
        mu, logvar = self.model.encoder(batch["source"])
        if self.config.denoise and self.model.appearance is not None:  # a degraded picture has another light
            mu = torch.cat([mu[:, : self.config.shape_dim], self.model.appearance.split(batch["image"])[1]], dim=1)
        latent = self.model.reparameterize(mu, logvar)
        second = self.model.reparameterize(mu, logvar) if self.config.contrastive_weight > 0 else None
        shape = slice(self.config.shape_dim)  # the appearance code has no posterior
        progress = self.current_epoch + batch_idx / max(self.trainer.num_training_batches, 1)
        result = self.loss(
            self.model.decode(latent),
            batch["image"],
            mu[:, shape],
            logvar[:, shape],
            self.annealing.weight_at(progress),
            z1=latent[:, shape],
            z2=None if second is None else second[:, shape],
            subjects=batch["subject"],
        )
        total, terms = result.total, _named(result)
        if self.identity_loss is not None:
            terms["identity"] = self.identity_loss(mu[:, self.model.config.identity_part], batch["subject"])
            total = total + self.config.identity_weight * terms["identity"]
        self.terms.add(self.global_step, {"loss": total, **terms}, batch["index"])
        return total

    def rates(self) -> dict[str, float]:
        progress = self.trainer.fit_loop.total_batch_idx / max(self.trainer.num_training_batches, 1)
        return super().rates() | {"train/kl_weight": self.annealing.weight_at(progress)}

    # -- validation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.moments = LatentMoments(self.config.latent_dim, self.device)
        files, dim = self.datamodule.val_files, self.model.config.identity_dim
        self.of_files = FileMeans([*map(len, files)], [*IMAGE_METRICS], self.device) if len(files) > 1 else None
        self.identity = IdentityMetrics(files, dim, self.device) if dim else None
        if self.draws_pictures:
            self._draw_image_grids()

    def validation_step(self, batch: EarVAEBatch, batch_idx: int) -> None:
        """From mu, without augmentation, at the final KL weight, so that epochs can be compared."""
        mu, logvar = self.model.encoder(batch["image"])
        reconstruction = self.model.decode(mu)
        shape = mu[:, : self.config.shape_dim], logvar[:, : self.config.shape_dim]
        result = self.loss(
            reconstruction,
            batch["image"],
            *shape,
            self.annealing.final_weight,
            z1=shape[0],
            z2=shape[0],
            subjects=batch["subject"],
        )
        predicted, target = to_unit(reconstruction.float()), to_unit(batch["image"])
        each = {name: metric(predicted, target) for name, metric in IMAGE_METRICS.items()}
        quality = {name: found.mean() for name, found in each.items()}
        values = {"loss": result.total, **quality, **_named(result)}
        self.sums.add(values, len(mu))
        self.moments.add(mu, logvar)
        if self.of_files is not None:
            self.of_files.add(each, batch["index"])
        if self.identity is not None:
            self.identity.add(mu[:, self.model.config.identity_part], batch["index"])

    def on_validation_epoch_end(self) -> None:
        means = self.validation_means()
        self.moments.reduce(self.over_processes)
        kl = self.moments.kl_per_dimension[: self.config.shape_dim]
        means |= {"val/kl_nats": float(kl.sum()), "val/active_units": float(self.moments.active_units)}
        for further in (self.of_files, self.identity):
            if further is not None:
                means |= {f"val/{name}": mean for name, mean in further.means(self.over_processes).items()}
        self.model.posterior = AggregatePosterior.fit(self.moments)
        self.log_validation(means, shown=SHOWN)
        with self.going_on(*self.trainer.loggers):
            for writer in self.tensorboard():
                writer.add_histogram("val/kl_per_dimension", kl.numpy(), self.global_step)
        for line in (self.annealing.observe_validation(self.current_epoch, means["val/psnr"]), self._collapse()):
            if line:
                self.print(line)

    def baselines(self) -> dict[str, dict[str, float]]:
        """Pixel PCA of the training ears, with as many components as there are latents."""
        train, val = self.datamodule.train_set.images, self.datamodule.val_set.images
        device, batch = str(self.device), self.datamodule.least_val_batch
        quiet = self.config.progress == "none"
        with progress("fitting pixel PCA, the baseline", quiet=quiet):
            pca = PixelPCA.fit(train, self.config.latent_dim, device=device)
            found = measure(pca, encode_all(pca.encode, val, batch, device), val, batch, device)
        name = f"pixel PCA, {len(pca.components)} components"
        return {name: {f"val/{metric}": float(values.mean()) for metric, values in found.quality.items()}}

    def on_train_end(self) -> None:
        """Up to MOST_EMBEDDED validation ears, evenly spread, for TensorBoard's projector."""
        if not self.draws_pictures or not self.tensorboard():
            return
        every = self.datamodule.val_set.images
        rows = np.linspace(0, len(every) - 1, min(len(every), MOST_EMBEDDED)).round().astype(int)
        images = every[rows]
        latents = encode_all(self.model.encode, images, self.datamodule.least_val_batch, str(self.device))
        names = [name for file in self.datamodule.val_files for name in file.subjects or file.names]
        labels = [names[row] for row in rows]
        self.log_embeddings("validation ears", latents, labels, unit_images(images))

    def _collapse(self) -> str | None:
        """Only once the KL weight has reached its maximum: before that, nothing pushes latents to the prior."""
        return None if self.objective_is_warming_up() else self.moments.collapse_warning()

    def objective_is_warming_up(self) -> bool:
        return self.annealing.is_warming_up(self.current_epoch + 1)

    def _draw_image_grids(self) -> None:
        """Reconstructions of fixed validation ears and samples, as PNG and in TensorBoard."""
        dataset = self.datamodule.val_set
        chosen = np.unique(np.linspace(0, len(dataset) - 1, self.config.grid_images).round().astype(int))
        images = to_model_range(torch.stack([dataset[int(i)]["pixels"] for i in chosen])).to(self.device)
        for name, (rows, maps) in rows_of_grids(self.model, images).items():
            with self.going_on():
                grid = save_image_grid(self.log_dir / name / f"epoch_{self.current_epoch:03d}.png", rows, maps)
                self.log_picture(name, grid)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["annealing"] = self.annealing.state_dict()
        if self.identity_loss is not None:
            checkpoint["classes"] = self.identity_loss.digests
        if self.model.posterior is not None:
            posterior = self.model.posterior
            checkpoint["aggregate_posterior"] = {"mean": posterior.mean, "factor": posterior.factor}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        stored, own = EarVAE.stored_config(checkpoint, "the checkpoint").contract, self.datamodule.contract
        if stored != own:
            raise InputError(
                f"{self.config.train_npy[0]}: its ears are in the form {own}, and the run began with {stored}: start "
                "another, or prepare the ears again as they were"
            )
        if self.identity_loss is not None:
            self.identity_loss.check(checkpoint["classes"], self.config.train_npy[0])
        self.annealing.load_state_dict(checkpoint["annealing"])
        self.model.load_extras(checkpoint)

    @classmethod
    def load_from_checkpoint(cls, path: str, map_location: str = "cpu", weights: str = "averaged") -> Self:  # type: ignore[override]
        """A trained module for inference; see `EarVAE.load_from_checkpoint`."""
        checkpoint = read_checkpoint(path)
        model = EarVAE.from_checkpoint(checkpoint, path, map_location, weights)
        options = checkpoint["hyper_parameters"]["options"]
        return cls(EarVAETrainingConfig(**options), model=model).eval()

    # -- the model's methods -----------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reconstruction, mu, logvar = self.model(images)
        return reconstruction, mu, logvar

    def encode(self, images: Tensor) -> Tensor:
        return self.model.encode(images)

    def decode(self, latent: Tensor) -> Tensor:
        return self.model.decode(latent)

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.model.reconstruct(images)

    def sample(self, num_samples: int, source: str = "prior") -> Tensor:
        return self.model.sample(num_samples, source)


def _named(result: LossResult) -> dict[str, Tensor]:
    """The terms under their logged names: `ssim` is SSIM itself, so 1 - SSIM is `ssim_loss`."""
    return {"ssim_loss" if name == "ssim" else name: term for name, term in result.terms.items()}
