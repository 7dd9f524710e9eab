"""The bytes of all tensors that a computation makes, each from its making to its end."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

_INDEXED = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._unsafe_index.Tensor,
)
# Routed experts. torch 2.13's rule for its shape takes bfloat16 alone; its kernel for CPUs float32 too.
_GROUPED = torch.ops.aten._grouped_mm.default


class Ledger(TorchDispatchMode):
    """Counts every storage that is made under it, of real tensors and of those of shapes alone.

    shapes: the mode of the latter. held, gradients: after each change, bytes that are no gradients, and bytes
    of gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes = FakeTensorMode(allow_non_fake_inputs=True)
        self._sizes: dict[int, int] = {}
        self._gradients: set[int] = set()
        self._held = self._given = 0
        self.held: list[int] = []
        self.gradients: list[int] = []

    @property
    def now(self) -> int:
        """The place in `held` and `gradients` of what comes next."""
        return len(self.held)

    @property
    def live(self) -> int:
        """Bytes held now that are no gradients."""
        return self._held

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, spec = tree_flatten((args, kwargs or {}))
        if any(isinstance(each, FakeTensor) for each in leaves):
            args, kwargs = tree_unflatten(leaves, spec)
            if func in _INDEXED:
                # Outside of the mode, in which even a real mask would not say how many it marks.
                args = (args[0], _places(args[1]), *args[2:])
            with self.shapes:
                out = _of_shapes(func, args, kwargs)
        else:
            out = func(*args, **(kwargs or {}))
        for each in tree_flatten(out)[0]:
            if isinstance(each, Tensor):
                self.count(each)
        return out

    def count(self, tensor: Tensor) -> None:
        """Count the tensor's storage, unless it is counted already, for as long as it lives."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._held += storage.nbytes()
            weakref.finalize(storage, self._end, key).atexit = False
            self._write()

    def leave_out(self, tensor: Tensor) -> None:
        """Do not count the tensor's storage: it was there before."""
        self._sizes[tensor.untyped_storage()._cdata] = 0

    def is_gradient(self, tensor: Tensor) -> None:
        """From now on the tensor counts as a gradient."""
        key = tensor.untyped_storage()._cdata
        if key in self._sizes and key not in self._gradients:
            self._gradients.add(key)
            self._held -= self._sizes[key]
            self._given += self._sizes[key]
            self._write()

    def _end(self, key: int) -> None:
        size = self._sizes.pop(key)
        if key in self._gradients:
            self._gradients.remove(key)
            self._given -= size
        else:
            self._held -= size

    def _write(self) -> None:
        self.held.append(self._held)
        self.gradients.append(self._given)


def _of_shapes(func: Any, args: Any, kwargs: Any) -> Any:
    """`func` on tensors of shapes alone, some of them among real ones."""
    if func is _GROUPED and args[0].dtype == torch.float32:
        half = tree_map(_halved, (args, kwargs))
        return func(*half[0], **half[1]).float()
    return func(*args, **kwargs)


def _halved(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def _places(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices with masks as the places that they mark: how many these are must be known."""
    places: list[Tensor | None] = []
    for each in indices:
        if each is not None and each.dtype == torch.bool and not isinstance(each, FakeTensor):
            places += each.nonzero().unbind(-1)
        else:
            places.append(each)
    return places
