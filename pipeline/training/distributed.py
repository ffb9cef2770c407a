"""Training one network in several processes, with a GPU each, started by `torchrun`.

torchrun --nproc-per-node 4 --no-python landcover train --data … --config … -o …

Each process takes its share of every batch, so that a recipe means the same for any number of them; gradients
are averaged. Only the first process validates, writes files and logs.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import DeviceError
from pipeline.model.device import find_device

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The processes that train together, as one of them sees them; a single process is a team of one."""

    device: torch.device
    """This process's."""

    rank: int = 0
    """This process's number, from 0."""

    size: int = 1
    """How many processes there are."""

    @property
    def is_first(self) -> bool:
        """Tell whether this is the process that validates and writes."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's share of a batch, along the first axis."""
        return batch[self.rank :: self.size]

    def join_gradients(self, network: nn.Module) -> nn.Module:
        """Return the network wrapped so that gradients of trained parameters are averaged over the team."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, [self.device] if self.device.type == "cuda" else None)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of all processes' values, which is also written into `values`."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: T) -> T:
        """Return the first process's value; the others wait for it."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, device=self.device)
        return values[0]


def is_first_process() -> bool:
    """Tell whether this is the first process, outside of `join_team` too."""
    return os.environ.get("RANK", "0") == "0" or not dist.is_torchelastic_launched()


@contextmanager
def join_team(device: str = "auto") -> Iterator[Team]:
    """Join the processes that `torchrun` started; without it, be a team of one.

    `device` is as for `find_device`; with several GPUs, each process takes its own.

    Raises:
        DeviceError: the device is absent, or there are more processes than GPUs.
    """
    found = find_device(device)
    if not dist.is_torchelastic_launched():
        yield Team(found)
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if found.type == "cuda":
        found = _gpu_of(int(os.environ["LOCAL_RANK"]))
    if rank > 0:
        logging.disable(logging.WARNING)  # all would log the same
    dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
    yield Team(found, rank, size)
    # Not after an error: the others may be waiting for this process until torchrun ends them.
    dist.destroy_process_group()


def _gpu_of(local_rank: int) -> torch.device:
    if local_rank >= torch.cuda.device_count():
        raise DeviceError(
            f"torchrun started more processes than the {torch.cuda.device_count()} GPUs that PyTorch sees: "
            "give a smaller --nproc-per-node."
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
