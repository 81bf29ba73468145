"""What the processes of one data-parallel training agree on: rank 0 decides, and all take what it sends, or all fail.

Every machine sees its own copy of a file: late on a network disk, torn, older, or not there. So what decides how a
training goes on is read by rank 0 alone and sent over the process group, as JSON and as plain tensors; nothing is
pickled. Every function here is called by all ranks at the same place, for each waits for the others. Outside of a
process group there is one process, and each function does its work there alone.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from cpn.core.errors import InputError, WorkError

ERRORS: dict[str, type[Exception]] = {"InputError": InputError, "WorkError": WorkError}
"""Errors of rank 0 that are the same error on the others; what is another one may go well at the next attempt."""


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and how many there are; (0, 1) outside of a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def from_rank_0(work: Callable[[], Any]) -> Any:
    """Return what `work`, done by rank 0 alone, returns: a JSON value, on every rank.

    What it raises is raised on every rank: an InputError or WorkError as it is, another error as a RuntimeError on the
    others.
    """
    rank, world = rank_and_world()
    if world == 1:
        return work()
    failure: Exception | None = None
    message: dict[str, Any] = {}
    if rank == 0:
        try:
            message = {"value": work()}
        except Exception as error:
            failure, message = error, {"error": type(error).__name__, "said": str(error)}
    heard = json.loads(_broadcast(json.dumps(message).encode()))
    if failure is not None:
        raise failure
    if "error" in heard:
        kind = ERRORS.get(heard["error"])
        raise kind(heard["said"]) if kind else RuntimeError(f"rank 0: {heard['error']}: {heard['said']}")
    return message["value"] if rank == 0 else heard["value"]


def tensors_from_rank_0(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of rank 0, on the CPU, on every rank; what the others give is not read."""
    rank, world = rank_and_world()
    if world == 1:
        return dict(tensors)
    listed = from_rank_0(lambda: [[n, str(t.dtype).removeprefix("torch."), list(t.shape)] for n, t in tensors.items()])
    received = {}
    for name, kind, shape in listed:
        dtype: torch.dtype = getattr(torch, kind)
        if rank == 0:
            data = tensors[name].detach().cpu().contiguous().reshape(-1)
        else:
            data = torch.empty(shape, dtype=dtype).reshape(-1)
        if data.numel():
            sent = data.view(torch.uint8).to(_place())
            dist.broadcast(sent, 0)
            data = sent.cpu().view(dtype)
        received[name] = data.reshape(shape)
    return received


def values_of_all(value: int) -> list[int]:
    """Return a whole number of every rank, by rank."""
    _, world = rank_and_world()
    return (
        [value]
        if world == 1
        else [int.from_bytes(data, signed=True) for data in _gather(value.to_bytes(8, signed=True))]
    )


def mean_of_all(values: Tensor) -> Tensor:
    """Return the mean over all ranks of a tensor that each has, where it lies."""
    _, world = rank_and_world()
    if world == 1:
        return values
    sent = values.detach().to(_place(), copy=True)
    dist.all_reduce(sent)
    return (sent / world).to(values.device)


def tensor_of_all(values: Tensor) -> Tensor:
    """Return a tensor that each rank has in the same shape, stacked by rank, on the CPU: (...) -> (ranks, ...)."""
    _, world = rank_and_world()
    if world == 1:
        return values.detach().cpu()[None]
    mine = values.detach().to(_place()).contiguous()
    parts = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(parts, mine)
    return torch.stack(parts).cpu()


def differing_ranks(value: str) -> list[int]:
    """Return the ranks that have another value than rank 0, the same list on every rank."""
    if rank_and_world()[1] == 1:
        return []
    digests = _gather(hashlib.sha256(value.encode()).digest())
    return [rank for rank, digest in enumerate(digests) if digest != digests[0]]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, kinds, shapes and bytes, in the order of the names; model files keep it."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _place() -> torch.device:
    """Return where a message has to lie: NCCL sends from the card that the process has chosen, gloo from memory."""
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def _broadcast(data: bytes) -> bytes:
    """Return the bytes of rank 0."""
    place, rank = _place(), dist.get_rank()
    size = torch.tensor([len(data)], device=place)
    dist.broadcast(size, 0)
    empty = torch.empty(int(size), dtype=torch.uint8, device=place)
    sent = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(place) if rank == 0 else empty
    dist.broadcast(sent, 0)
    return sent.cpu().numpy().tobytes()


def _gather(data: bytes) -> list[bytes]:
    """Return the bytes of every rank, as many on each."""
    mine = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(_place())
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return [part.cpu().numpy().tobytes() for part in parts]
