"""What the tensors of a training process are, whoever divides it: DeepSpeed, FSDP2 or nobody."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Storages = dict[int, int]


def storages(tensors: Iterable[object]) -> Storages:
    """Bytes of the memory behind `tensors`, by its address; of divided ones the part that is here."""
    found: Storages = {}
    for each in tensors:
        mine = each.to_local() if isinstance(each, DTensor) else each
        if isinstance(mine, Tensor) and mine.device.type == "cpu":
            storage = mine.untyped_storage()
            if storage.nbytes():
                found[storage.data_ptr()] = storage.nbytes()
    return found


def alive() -> Storages:
    """All that Python knows of."""
    gc.collect()
    return storages(each for each in gc.get_objects() if issubclass(type(each), Tensor))


def leaves(state: dict[Any, dict[str, Any]]) -> list[Tensor]:
    """An optimizer's state."""
    kept = itertools.chain.from_iterable(values.values() for values in state.values())
    return [each for each in kept if isinstance(each, Tensor)]


def without(some: Storages, *others: Storages) -> Storages:
    """`some` that are in none of `others`."""
    return {where: size for where, size in some.items() if not any(where in each for each in others)}


def size(some: Storages) -> int:
    """Bytes of all."""
    return sum(some.values())


def whole_size(parameter: nn.Parameter) -> int:
    """Elements of a parameter that stage 3 may have divided."""
    return getattr(parameter, "ds_numel", parameter.numel())


class Plain:
    """A process whose optimizer is torch's own: alone, or divided by FSDP2."""

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer

    def weights(self) -> Storages:
        """On the device, between steps."""
        return storages(self.model.parameters())

    def state(self) -> Storages:
        """The optimizer's, on the device."""
        return storages(leaves(self.optimizer.state))

    def host(self) -> Storages:
        """What would be in host memory if there were a device."""
        return {}

    def gradients(self) -> Storages:
        """Before the update."""
        return storages(each.grad for each in self.model.parameters())

    def bucket(self) -> tuple[int, int]:
        """The buffer that gradients are collected in: its elements, and bytes of each."""
        return 0, 0

    def watch(self, note: Callable[[], None], trained: int) -> None:
        """Call `note` before each update of the weights, of which `trained` are; a callback does without."""


class _Zero(Plain):
    """A process of DeepSpeed's. `optimizer` is its own, around torch's."""

    def watch(self, note: Callable[[], None], trained: int) -> None:
        update = self.optimizer.step

        def noted(*given: Any, **named: Any) -> Any:
            note()
            return update(*given, **named)

        self.optimizer.step = noted


class Zero2(_Zero):
    """Stage 2."""

    @property
    def _offloads(self) -> bool:
        return self.optimizer.cpu_offload

    def _state(self) -> Storages:
        return storages(
            [*self.optimizer.single_partition_of_fp32_groups, *leaves(self.optimizer.optimizer.state)]
        )

    def state(self) -> Storages:
        """Float32 copies of the weights are of it."""
        return {} if self._offloads else self._state()

    def host(self) -> Storages:
        zero = self.optimizer
        if not self._offloads:
            return {}
        more = [*zero.param_buffer_of_bit16_for_cpu_offload_groups, zero.temp_grad_buffer_for_cpu_offload]
        more += [each.grad for each in zero.single_partition_of_fp32_groups]
        return {**self._state(), **storages([*more, *zero.accumulated_grads_in_cpu.values()])}

    def gradients(self) -> Storages:
        kept = self.optimizer.averaged_gradients.values()
        return storages(itertools.chain.from_iterable(each for each in kept if each is not None))

    def bucket(self) -> tuple[int, int]:
        return self.optimizer.reduce_bucket_size, self.optimizer.dtype.itemsize

    def watch(self, note: Callable[[], None], trained: int) -> None:
        """And let what gradients will be written to of the bucket be there from the start, as on a device."""
        super().watch(note, trained)
        zero, make = self.optimizer, self.optimizer.setup_buckets

        def touched() -> None:
            made = not zero.ready_for_gradients
            make()
            if made:
                for each in zero.ipg_buckets.values():
                    each.buffer[0][:trained].zero_()

        zero.setup_buckets = touched


class Zero3(_Zero):
    """Stage 3."""

    @property
    def _offloads(self) -> bool:
        return self.optimizer.offload_optimizer

    def _parts(self) -> Storages:
        return storages(each.ds_tensor for each in self.model.parameters())  # pyright: ignore[reportAttributeAccessIssue]

    def weights(self) -> Storages:
        return {} if self.optimizer.offload_param else self._parts()

    def _state(self) -> Storages:
        zero = self.optimizer
        return storages([*zero.fp32_partitioned_groups_flat, *leaves(zero.optimizer.state)])

    def state(self) -> Storages:
        return {} if self._offloads else without(self._state(), self._parts())

    def host(self) -> Storages:
        zero, found = self.optimizer, Storages()
        if self._offloads:
            more = [each.grad for each in zero.fp32_partitioned_groups_flat]
            found |= {**self._state(), **storages([*more, zero.grad_partitions_flat_buffer])}
        if zero.offload_param:
            found |= {**self._parts(), **storages(zero.param_groups_fp16_flat_cpu_memory)}
        return found

    def gradients(self) -> Storages:
        return {} if self._offloads else storages([self.optimizer.grad_partitions_flat_buffer])

    def bucket(self) -> tuple[int, int]:
        (each,) = self.optimizer.ipg_buckets.values()
        return each.buffer.numel(), each.buffer.itemsize


def tensors_of(trainer: Any, zero_stage: int) -> Plain:
    """Those of a trainer that has begun."""
    if zero_stage:
        return {2: Zero2, 3: Zero3}[zero_stage](trainer.model, trainer.model_wrapped.optimizer)
    return Plain(trainer.model, trainer.optimizer)
