"""From options to a Lightning Trainer, and from `fit` to one clear line when it cannot go on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.strategies import FSDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from earface.core.command_line import write_options
from earface.core.errors import InputError, is_out_of_memory
from earface.core.notices import as_flags, warn
from earface.nn.inference import check_gpu_age, device_of_accelerator, why_no_gpu
from earface.nn.precision import automatic_precision
from earface.reports.run_folder import RunFolder
from earface.reports.run_page import write_run_page
from earface.training.best_checkpoints import best_checkpoints
from earface.training.callbacks import (
    EMA,
    EarlyStop,
    LastCheckpoint,
    RunState,
    TrainingRows,
)
from earface.training.checkpoint_io import AtomicCheckpointIO
from earface.training.compiled import CompiledSteps
from earface.training.config import RunOptions
from earface.training.loggers import MetricsCSV, QuietTensorBoard
from earface.training.pausing import fit_until_paused
from earface.training.plugins import user_callback, user_logger
from earface.training.progress import EpochLines, ProgressBar
from earface.training.run_recorder import RunRecorder, divergence
from earface.training.term_log import NonFiniteLossError

if TYPE_CHECKING:
    from earface.training.resume import Run

_PRECISIONS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def _chosen_loggers(options: RunOptions, run: Run) -> list[Logger]:
    chosen: list[Logger] = []
    for text in options.logger:
        if text == "tensorboard":
            chosen.append(QuietTensorBoard(run.log_dir, purge_step=run.step + 1 if run.checkpoint else None))
        elif text != "none":
            chosen.append(user_logger(text, run.log_dir))
    return chosen


def parse_max_time(text: str | None) -> timedelta | None:
    """`DD:HH:MM:SS`, or fewer fields from the right. Raises InputError."""
    if text is None:
        return None
    try:
        fields = [int(field) for field in text.split(":")]
        if not 1 <= len(fields) <= 4 or min(fields) < 0:
            raise ValueError
    except ValueError as error:
        raise InputError(f"`max_time` {text}: must be DD:HH:MM:SS, for example 00:02:30:00") from error
    seconds = sum(value * unit for value, unit in zip(reversed(fields), (1, 60, 3600, 86400), strict=False))
    return timedelta(seconds=seconds)


def build_trainer(options: RunOptions, run: Run, best: Mapping[str, Literal["min", "max"]]) -> pl.Trainer:
    """The Trainer with its loggers, checkpoints and progress bar.

    best: metrics without `val/` whose best checkpoint is kept beside those by `val/loss`, and whether low or high is.
    """
    accelerator = _accelerator(options)
    precision: str = options.precision
    if precision == "auto":  # where no run was opened, which decides it
        precision, _ = automatic_precision(device_of_accelerator(options.accelerator))
    precision = _PRECISIONS.get(precision, precision)
    on_cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    max_time = parse_max_time(options.max_time)
    shared: list[Callback] = [RunState(run.name, run.log_dir.name), TrainingRows(options.log_every_n_steps)]
    if options.ema_decay > 0 and "fsdp" in options.strategy:
        raise InputError("`ema_decay`: averages whole weights, and `strategy` fsdp shards them; use ddp, or 0")
    if options.ema_decay > 0:
        shared.append(EMA(options.ema_decay))
    bar = options.progress == "bar" and Console().is_terminal
    if bar:
        shared.append(ProgressBar(refresh_rate=10))
    if options.progress != "none":
        shared.append(EpochLines(within=not bar))
    if options.compile and on_cuda:
        shared.append(CompiledSteps(options.compile_mode))
    if options.early_stop_patience > 0:
        shared.append(EarlyStop(options.early_stop_patience))
    shared += [user_callback(text) for text in options.callback]
    loggers: list[Any] = []
    if not options.fast_dev_run:
        loggers = [*_chosen_loggers(options, run), MetricsCSV(run.log_dir, keep_rows=run.csv_rows)]
        shared.append(RunRecorder(run, options))
        last = LastCheckpoint(
            Path(options.checkpoint_dir),
            every_n_steps=options.save_every_n_steps,
            ask_every_n_steps=options.log_every_n_steps,
            stop_after_epoch=options.stop_after_epoch,
            max_time=max_time,
        )
        shared += [*best_checkpoints(options.checkpoint_dir, run.name, best), last]
    if precision == "16-mixed" and accelerator == "cpu":
        precision = "bf16-mixed"  # PyTorch's CPU kernels are fast in bfloat16 only
    devices = _devices(options.devices, accelerator)
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = options.tf32
    _quieten()
    try:
        return pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            strategy=_strategy(options.strategy),
            sync_batchnorm=on_cuda,  # where there are several; PyTorch has none for CPUs
            benchmark=on_cuda and not options.deterministic,
            num_nodes=options.num_nodes,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=options.epochs,
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.grad_clip or None,
            deterministic="warn" if options.deterministic else None,
            fast_dev_run=options.fast_dev_run,
            log_every_n_steps=options.log_every_n_steps,
            logger=loggers or False,
            callbacks=shared,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run.log_dir,  # a run that starts has a new one: Lightning finds no hpc_ckpt_*.ckpt there
            enable_checkpointing=not options.fast_dev_run,
            enable_progress_bar=bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ImportError, ValueError, RuntimeError) as error:
        raise InputError(
            f"`accelerator` {options.accelerator} `devices` {options.devices} `strategy` {options.strategy} "
            f"`precision` {options.precision}: {error}"
        ) from error


def fit(trainer: pl.Trainer, module: pl.LightningModule, datamodule: pl.LightningDataModule, run: Run) -> bool:
    """Train. True when the run is complete, False when it was paused.

    Memory that runs out and a loss that is not finite become one line.
    """
    if trainer.strategy.root_device.type == "cuda" and not isinstance(trainer.strategy, FSDPStrategy):
        module.to(memory_format=torch.channels_last)  # before the weights are averaged, moved or loaded
    try:
        return fit_until_paused(trainer, module, datamodule, ckpt_path=run.checkpoint)
    except NonFiniteLossError as error:
        last = next((c.path for c in trainer.callbacks if isinstance(c, LastCheckpoint)), None)  # type: ignore[attr-defined]
        kept = f"{last} is from before that" if last and last.exists() else "there is no checkpoint from before that"
        raise InputError(f"{error}; {kept}: lower `lr`, keep `grad_clip` above 0, or use `precision` 32") from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            "out of GPU memory: lower `batch_size` (and raise `accumulate_grad_batches` to match), the size of the "
            "pictures or of the model, or use `precision` bf16-mixed"
        ) from error


def group_table(module: Any) -> Table:
    """The optimiser groups with their parameters and rates, the frozen parameters, and the sum."""
    table = Table(box=None, header_style="bold")
    for name in ("group", "parameters", "trainable", "learning rate"):
        table.add_column(name, justify="left" if name == "group" else "right")
    rates: dict[str, float] = {}
    counts: dict[str, int] = {}
    for group in module.parameter_groups():
        name = group["name"].removesuffix(".no_decay")
        rates[name] = group["lr"]
        counts[name] = counts.get(name, 0) + sum(parameter.numel() for parameter in group["params"])
    for name, count in counts.items():
        table.add_row(name, _millions(count), _millions(count), f"{rates[name]:.2g}")
    trainable = sum(counts.values())
    frozen = sum(parameter.numel() for parameter in module.parameters() if not parameter.requires_grad)
    if frozen:
        table.add_row("frozen", _millions(frozen), "0", "-")
    table.add_row("total", _millions(trainable + frozen), _millions(trainable), "")
    return table


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


@rank_zero_only
def announce(options: RunOptions, run: Run, module: Any) -> None:
    """Print what will be trained, at which rates, and where it goes on; write the options beside the logs."""
    console = Console()
    console.print(group_table(module))
    console.print(f"precision {options.precision}{f': {run.precision}' if run.precision else ''}", soft_wrap=True)
    if run.threads:
        console.print(f"threads {options.num_threads}: {run.threads}", soft_wrap=True)
    if torch.cuda.is_available() and options.accelerator != "cpu":
        products = "TF32, 10 bits of mantissa; `tf32` false for 23" if options.tf32 else "full; `tf32` true is faster"
        console.print(as_flags(f"float32 products: {products}"), soft_wrap=True)
    if run.checkpoint:
        console.print(f"continuing from {run.checkpoint}: epoch {run.epoch}, step {run.step}", soft_wrap=True)
    if not options.fast_dev_run:
        run.log_dir.mkdir(parents=True, exist_ok=True)
        write_options(options, run.log_dir / "config.yaml")


@rank_zero_only
def report(trainer: pl.Trainer, run: Run, complete: bool, next_line: str = "") -> None:
    """Say where the results are, and of a complete run what to type next."""
    if not trainer.loggers:
        return
    console = Console()
    folder = Path(trainer.checkpoint_callbacks[-1].path).parent  # type: ignore[attr-defined]
    best = next(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    worse = divergence(trainer) if complete else ""
    best_line = f"val/loss {float(best.best_model_score or 0):.4f}: {best.best_model_path}"
    if complete and best.best_model_path and not worse:
        console.print(f"best {best_line}", soft_wrap=True)
    console.print(f"checkpoints: {folder}", soft_wrap=True)
    console.print(f"logs and pictures: {run.log_dir}   (tensorboard --logdir {run.log_dir.parent})", soft_wrap=True)
    try:
        console.print(f"report: {write_run_page(RunFolder.read(run.log_dir))}", soft_wrap=True)
    except (InputError, OSError) as error:  # the training is done all the same
        warn(f"{error}: the run has no page; earface report {run.log_dir} writes it")
    if worse:
        advice = as_flags(f"lower `lr`, keep `grad_clip` above 0; before it rose: {best_line}")
        console.print(f"[yellow]diverged[/] {worse}: {advice}", soft_wrap=True, highlight=False)
    elif complete and next_line:
        console.print(next_line, soft_wrap=True, highlight=False, markup=False)


def _accelerator(options: RunOptions) -> str:
    name, cuda = options.accelerator.lower(), torch.cuda.is_available()
    has_gpu = cuda or torch.backends.mps.is_available()
    if (name == "gpu" and not has_gpu) or (name == "cuda" and not cuda):
        raise InputError(f"`accelerator` {options.accelerator}: {why_no_gpu()}; use `accelerator` cpu")
    if name in ("auto", "gpu", "cuda") and cuda:
        check_gpu_age("`accelerator` cpu")
    return "cpu" if name == "auto" and not has_gpu else name


def _devices(text: str, accelerator: str) -> Any:
    if text == "auto":
        return text
    if text == "-1" and accelerator != "cpu":
        return -1  # all, in Lightning's words
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise InputError(f"`devices` {text}: must be auto, a number, or a list such as 0,2")
    numbers, listed = [int(part) for part in parts], "," in text
    if accelerator == "cpu":
        if listed:
            raise InputError(f"`devices` {text}: a list names GPUs; on a CPU give how many processes, such as 1")
        if numbers[0] > (os.cpu_count() or 1):
            raise InputError(f"`devices` {text}: this machine has {os.cpu_count()} CPU cores")
    elif torch.cuda.is_available():
        there = torch.cuda.device_count()
        if (max(numbers) >= there) if listed else (numbers[0] > there):
            raise InputError(f"`devices` {text}: PyTorch sees {there} GPU{'s' * (there > 1)} here, numbered from 0")
    if len(set(numbers)) < len(numbers) or (numbers == [0] and not listed):
        raise InputError(f"`devices` {text}: must be auto, a number above 0, or a list of different GPUs such as 0,2")
    return numbers if listed else numbers[0]


def _strategy(name: str) -> Any:
    """Lightning's by name; FSDP shards the blocks of vision transformers one by one."""
    if name != "fsdp" or not torch.cuda.is_available():
        return name
    from timm.models import vision_transformer, vision_transformer_sam
    from torch.distributed.fsdp import MixedPrecision

    blocks: set[type[torch.nn.Module]] = {vision_transformer.Block, vision_transformer_sam.Block}
    # No types of its own: losses in float32 meet weights as they are, and autocast rounds where it is on
    return FSDPStrategy(auto_wrap_policy=blocks, mixed_precision=MixedPrecision(), state_dict_type="full")


def _quieten() -> None:
    """Hide Lightning's advice about choices that were made on purpose."""
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*This DataLoader will create.*",
        ".*module.s. in eval mode at the start of training.*",
        ".*exists and is not empty.*",
        ".*The number of training batches.*",
        ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
        ".*dirpath has changed.*",
        ".*It is recommended to use .self.log.*",  # validation sums are reduced before they are logged
    ):
        warnings.filterwarnings("ignore", message)
