"""Processes that start with everything imported.

They are forked from a server that has computed nothing. A fork of a test's own process would hang or fail where an
earlier test has started PyTorch's threads.
"""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ear_teacher.datamodule", "ear_teacher.module", "earface.training.trainer"])
