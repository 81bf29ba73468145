"""A device that is not the CPU, on any machine: what lies on `meta` is taken to lie on a card.

Under the mode `Card` an operation on tensors of both places raises, as it does on a GPU; what makes the CPU wait for
the card is counted by name; and each tensor on the card has numbers: its storage has a twin in memory on which the CPU
does the same operations, so that losses, weights and checkpoints are the CPU's. With `numbers=False` there are shapes
alone, in next to no time and memory, and every number that is read is 1: for networks of full size.

Three things wait for a card: a number read from it (`item`, `bool`, `int`), a tensor fetched from it (`cpu`, `numpy`),
and a tensor sent to it that is not sent with `non_blocking` (from page-locked memory, which a test cannot see). What
looks for indices, such as a mask used as an index, waits too; `meta` refuses it by itself.
"""

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from cpn.data.transforms import statistics
from cpn.propagation.irn import offsets_on

CARD, CPU = torch.device("meta"), torch.device("cpu")
READS = {torch.ops.aten._local_scalar_dense.default: "item", torch.ops.aten.equal.default: "equal"}
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class WrongPlace(AssertionError):
    """An operation on tensors of the card and of the CPU."""


class Card(TorchDispatchMode):
    """What `meta` is inside this mode; see the top of this file."""

    def __init__(self, numbers: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = numbers
        self.waits: Counter[str] = Counter()
        """How often the CPU waited for the card, by what for: `item`, `fetch`, `send`."""
        self._twins: dict[int, torch.UntypedStorage] = {}
        self._literals = _Literals()

    def __enter__(self) -> "Card":
        """Begin, with nothing on the card."""
        for kept in (statistics, offsets_on):
            kept.cache_clear()
        self._literals.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)
        self._literals.__exit__(*error)  # type: ignore[no-untyped-call]
        for kept in (statistics, offsets_on):
            kept.cache_clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_card = [tensor for tensor in given if tensor.device == CARD]
        asked = kwargs.get("device")
        if func in MOVES and (moved := self._moved(func, args, kwargs)) is not None:
            return moved
        if not on_card and asked != CARD:
            return func(*args, **kwargs)
        if any(tensor.device == CPU and tensor.dim() > 0 for tensor in given) and on_card:
            raise WrongPlace(f"{func}: " + ", ".join(f"{list(t.shape)} on {t.device.type}" for t in given))
        if func in READS:
            self.waits[READS[func]] += 1
            return func(*self._on_cpu(args), **kwargs) if self.numbers else args[0].dtype.is_floating_point or 1
        there = func(*args, **kwargs)
        if self.numbers:
            self._pair(there, func(*self._on_cpu(args), **self._on_cpu(kwargs)))
        return there

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What comes of a copy between the two places; None for one within either."""
        if func is torch.ops.aten.copy_.default:
            target, source = args[:2]
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            if target.device == source.device:
                return None
            if source.device == CARD:
                self.waits["fetch"] += 1
                return func(target, self._twin(source))
            self._sent(source, waits)
            if self.numbers:
                self._twin(target).copy_(source)
            return target
        source, place = args[0], kwargs.get("device") or args[0].device
        if source.device == place:
            return None
        if source.device == CARD:
            self.waits["fetch"] += 1
            return func(self._twin(source), **{**kwargs, "device": CPU})
        self._sent(source, not kwargs.get("non_blocking", False))
        there = func(source, **kwargs)
        if self.numbers:
            self._pair(there, func(source, **{**kwargs, "device": CPU}))
        return there

    def _sent(self, source: Tensor, waits: bool) -> None:
        if waits and source.numel():
            self.waits["send"] += 1

    def _on_cpu(self, tree: Any) -> Any:
        """The same arguments with the twins of tensors, for an operation on the CPU."""

        def here(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.device == CARD:
                return self._twin(leaf)
            return CPU if leaf == CARD and isinstance(leaf, torch.device) else leaf

        return tree_map(here, tree)

    def _twin(self, there: Tensor) -> Tensor:
        """The numbers of a tensor on the card, as a view of its storage's twin; ones without numbers."""
        if not self.numbers:
            return torch.ones(there.shape, dtype=there.dtype)
        twin = self._twins.get(there.untyped_storage()._cdata)
        if twin is None:
            raise WrongPlace(f"a tensor {list(there.shape)} was made on the card outside of this mode")
        made = torch.empty(0, dtype=there.dtype)
        return made.set_(twin, there.storage_offset(), there.shape, there.stride())  # type: ignore[call-overload, no-any-return]

    def _pair(self, there: Any, here: Any) -> None:
        """Take the storages of CPU results as the twins of those on the card."""
        for one, other in zip(tree_leaves(there), tree_leaves(here), strict=True):
            if not isinstance(one, Tensor) or one.untyped_storage()._cdata in self._twins:
                continue
            storage = one.untyped_storage()
            size = (storage.nbytes() + 7) // one.element_size() + 1
            made = torch.empty(0, dtype=one.dtype)
            made.set_(
                torch.empty(size, dtype=one.dtype).untyped_storage(), one.storage_offset(), one.shape, one.stride()
            )  # type: ignore[call-overload]
            if one.shape == other.shape:
                made.copy_(other)  # the layout may be another one
            else:  # the CPU leaves out what no backward pass reads, as batch norm its statistics at test
                assert other.numel() == 0, (one.shape, other.shape)
            self._twins[storage._cdata] = made.untyped_storage()
            weakref.finalize(storage, self._twins.pop, storage._cdata, None)


class _Literals(TorchFunctionMode):
    """`torch.tensor([...], device=card)` by way of the CPU: torch leaves out the numbers where the device has none."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == CARD:
            return func(*args, **{**kwargs, "device": CPU}).to(CARD)
        return func(*args, **kwargs)
