"""What the train scripts have in common: the run from its options to its last line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytorch_lightning as pl

from earface.core.files import remove_abandoned
from earface.core.stopping import EXIT_PAUSED, is_first_process
from earface.core.tool_options import next_step
from earface.data.data_digest import DataDigest
from earface.training.config import RunOptions
from earface.training.datamodule import TrainingDataModule
from earface.training.module import TrainingModule
from earface.training.one_run import only_run_in
from earface.training.resume import Run, check_writable, open_run
from earface.training.trainer import announce, build_trainer, fit, report

Options = TypeVar("Options", bound=RunOptions)
Data = TypeVar("Data", bound=TrainingDataModule[Any])
Module = TypeVar("Module", bound=TrainingModule[Any, Any])
Modes = Mapping[str, Literal["min", "max"]]


def run_training(
    options: Options,
    name: str,
    *,
    data: Callable[[Options], Data],
    module: Callable[[Options, Data, Run], Module],
    best: Callable[[Options, Data], Modes] = lambda options, data: {},
    starting: Callable[[Module, bool], None] = lambda module, fresh: None,
    next_command: str = "",
    **next_options: object,
) -> tuple[int, Options]:
    """Start the run, continue it, or report it as finished. Returns the exit code and the options as they were used.

    name: of the run, in its logs and checkpoints. data, module: build these, the module after the seed was set; its
    initial weights do not matter where the run has a `checkpoint`. best: see `build_trainer`.
    starting: called before training begins; fresh: whether it begins without any weights of an earlier run.
    next_command, next_options: what to type when it is complete; `checkpoint` is added.
    """
    with ExitStack() as held:
        folder = Path(options.checkpoint_dir)
        if is_first_process() and not options.fast_dev_run:  # the others follow it
            check_writable("`checkpoint_dir`", folder)
            held.enter_context(only_run_in(folder))
        return _run(options, name, data, module, best, starting, next_command, next_options)


def _run(
    options: Options,
    name: str,
    data: Callable[[Options], Data],
    module: Callable[[Options, Data, Run], Module],
    best: Callable[[Options, Data], Modes],
    starting: Callable[[Module, bool], None],
    next_command: str,
    next_options: Mapping[str, object],
) -> tuple[int, Options]:
    run, options = open_run(options, name)
    for folder in (Path(options.checkpoint_dir), *run.log_dir.parent.glob("**/")):
        remove_abandoned(folder)
    if run.finished:
        print(f"finished: {run.checkpoint} holds {run.epoch} of {options.epochs} epochs; more with --epochs")
        return 0, options
    datamodule = data(options)
    if run.data is not None:
        datamodule.digest = datamodule.digest.continues(DataDigest.read(run.data), run.checkpoint)
    pl.seed_everything(options.seed, workers=True, verbose=False)
    trainer = build_trainer(options, run, best=best(options, datamodule))
    network = module(options, datamodule, run)
    if options.init_from and run.checkpoint is None:
        network.initialise_from(options.init_from)
    announce(options, run, network)
    starting(network, not (options.init_from or run.checkpoint))
    complete = fit(trainer, network, datamodule, run)
    last = Path(options.checkpoint_dir) / "last.ckpt"
    report(trainer, run, complete, next_command and next_step(next_command, checkpoint=last, **next_options))
    return (0 if complete else EXIT_PAUSED), options
