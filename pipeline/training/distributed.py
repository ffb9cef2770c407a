"""Several processes, a GPU each, that train one network together; `torchrun` starts them.

torchrun --nproc-per-node 4 --no-python landcover train --data … --config … -o …

Each takes its share of every batch, so that a recipe means the same however many there are; gradients are
averaged. The first one validates, writes and speaks for all.
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
    """This process's place among those that train together; alone it is the first of one."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Tell whether this is the process that validates and writes."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's part of a batch, along the first axis."""
        return batch[self.rank :: self.size]

    def join_gradients(self, network: nn.Module) -> nn.Module:
        """Return the network so wrapped that gradients of what now requires them become the team's mean."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, [self.device] if self.device.type == "cuda" else None)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: T) -> T:
        """Return what the first process has; the others wait for it."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, device=self.device)
        return values[0]


def is_first_process() -> bool:
    """Tell whether this is the process that speaks for all, before or after it was in a team."""
    return os.environ.get("RANK", "0") == "0" or not dist.is_torchelastic_launched()


@contextmanager
def join_team(device_wish: str = "auto") -> Iterator[Team]:
    """Join the processes that `torchrun` started, or be alone without it.

    `device_wish` is as for `find_device`; of GPUs each process of a team takes its own. Raises DeviceError
    for a device that is absent, or more processes than GPUs.
    """
    device = find_device(device_wish)
    if not dist.is_torchelastic_launched():
        yield Team(device)
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device.type == "cuda":
        device = _gpu_of(int(os.environ["LOCAL_RANK"]))
    if rank > 0:
        logging.disable(logging.WARNING)  # all would say the same
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield Team(device, rank, size)
    # Not after an error: torchrun ends the others, which may be waiting for this one.
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
