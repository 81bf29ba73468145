"""A group of real processes that talk over gloo, as the workers of one data-parallel training do."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch import multiprocessing as processes

PATIENCE = timedelta(minutes=5)
"""After which a process that waits for another one that never comes fails: only where the code is wrong."""


def in_group(world: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What `work(rank, world, *args)` returns in each of `world` processes, by rank: JSON values."""
    with tempfile.TemporaryDirectory(prefix="gloo_") as folder:
        processes.spawn(_member, (world, folder, work, args), nprocs=world)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]


def _member(rank: int, world: int, folder: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world, timeout=PATIENCE
    )
    try:
        result = work(rank, world, *args)
    finally:
        distributed.destroy_process_group()
    Path(folder, f"{rank}.json").write_text(json.dumps(result))
    # Without taking the interpreter down: a thread of torch that asks for the interpreter's lock in that moment is
    # ended by Python in the middle of C++, which then aborts a process that has done all of its work.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
