"""The processes of one run, started by torchrun: each takes its rows of a batch, their gradients are summed."""

# n rows of a batch, over all processes

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import Parameter

T = TypeVar("T")
CPU = torch.device("cpu")
PATIENCE = dt.timedelta(hours=12)
"""How long a process waits for another: the first fills the cache of features alone."""


@dataclass(frozen=True)
class Ranks:
    """This process among `count`; the one of rank 0 writes. Made for a run alone by default."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    def share(self, rows: int) -> range:
        """The rows of a batch of `rows` that are this process's; sizes differ by one at most."""
        return range(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def gather(self, mine: Tensor, rows: int) -> Tensor:
        """[own rows, ...] of every process -> [rows, ...] in the order of the batch, without a gradient."""
        if self.count == 1:
            return mine.detach()
        whole = mine.new_zeros(rows, *mine.shape[1:])
        share = self.share(rows)
        whole[share.start : share.stop] = mine.detach()
        return self.total(whole)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def any(self, said: bool) -> bool:
        """Whether one process at least says so."""
        return (
            self.count > 1 and bool(self.total(torch.tensor(float(said), device=self.device)) > 0)
        ) or said

    def sum_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Give every process the sum of all their gradients; a parameter that none has used keeps none."""
        if self.count == 1:
            return
        learning = [p for p in parameters if p.requires_grad]
        used = torch.tensor([float(p.grad is not None) for p in learning], device=self.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        flat = self.total(torch.cat([used, *(part.flatten().float() for part in parts)]))
        used, *sums = torch.split(flat, [len(learning), *(p.numel() for p in learning)])
        for parameter, sum_, by in zip(learning, sums, used.tolist(), strict=True):
            parameter.grad = sum_.view_as(parameter).to(parameter.dtype) if by else None

    def agree(self, value: T) -> T:
        """The value that the process of rank 0 gives."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    @contextmanager
    def first(self) -> Iterator[None]:
        """The process of rank 0 goes through before the others do: it writes what they then find."""
        if self.rank:
            distributed.barrier()
        yield
        if self.count > 1 and not self.rank:
            distributed.barrier()


def parts_of(rows: range, size: int) -> Sequence[range]:
    """`rows` in parts of `size`, the last one shorter; size 0: in one."""
    if not size or len(rows) <= size:
        return [rows]
    return [range(a, min(a + size, rows.stop)) for a in range(rows.start, rows.stop, size)]


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process among those that torchrun started, by the variables it sets; alone without them.

    They talk by NCCL when `device` is `cuda`, a device each, else by gloo.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: PyTorch sees no CUDA device here")
    if "WORLD_SIZE" not in os.environ:
        yield Ranks(device=torch.device(device))
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    mine = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device(device)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), mine)
    finally:
        distributed.destroy_process_group()
