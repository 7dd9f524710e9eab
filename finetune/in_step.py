"""Answers of processes that each hold a part of the weights: all run the model equally often.

Whenever a part of the model runs, all processes gather its weights together. One with fewer prompts, or with
shorter answers, would leave the others waiting for it for ever. So a process without a prompt asks a filler,
and an answer that is over is gone on with, until the last process has its answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import PreTrainedModel, StoppingCriteria

from finetune.fsdp import gathered
from lensmith.row_file import Row

T = TypeVar("T")


def any_process(told: bool) -> bool:
    """Whether any process was `told`. All of them must ask; all get the same answer."""
    state = PartialState()
    if state.num_processes == 1:
        return told
    one = torch.tensor(int(told), device=state.device)
    torch.distributed.all_reduce(one, torch.distributed.ReduceOp.MAX)
    return bool(one)


class InStep:
    """What `greedy` needs to answer with a `model` of which every process holds a part.

    filler: a row for a process that has no prompts left; its answer is thrown away. breaks: whether this
    process would break off; asked between batches. dtype: in which the model computes. broken: whether all of
    them broke off.
    """

    def __init__(self, model: nn.Module, filler: Row, dtype: torch.dtype, breaks: Callable[[], bool]) -> None:
        self.model = model
        self.filler = filler
        self.dtype = dtype
        self.breaks = breaks
        self.broken = False

    @property
    def device(self) -> torch.device:
        """Where weights are gathered: a parameter of which nothing is here does not say it."""
        return torch.device(PartialState().device or "cpu")

    def rounds(self, own: Iterator[T]) -> Iterator[T | None]:
        """This process's batches one by one, then None for as long as another one has batches."""
        while True:
            batch = next(own, None)
            self.broken = any_process(self.breaks())
            if self.broken or not any_process(batch is not None):
                return
            yield batch

    def ending(self, ends: Sequence[int], *, fills: bool) -> StoppingCriteria:
        """What ends the answers of a round; `fills`: this process asks the filler."""
        return _TheLastOne(torch.tensor(ends, device=self.device), fills)

    def run(self, model: PreTrainedModel, ask: Callable[[], Tensor]) -> Tensor:
        """What `ask` gives, by which `model`, the one of transformers, generates."""
        # Weights that are gathered in inference mode could not be trained.
        with torch.no_grad(), _seeing_as_in_training(model):
            return gathered(self.model, ask)


@contextlib.contextmanager
def _seeing_as_in_training(model: PreTrainedModel) -> Iterator[None]:
    """Let `model` see a prompt's images between its embeddings and its language tower.

    `generate` would run the vision tower ahead of both (transformers 5.20). A process whose prompt has no
    image runs it for the blank image, behind its embeddings: they would not gather the same.
    """
    model._supports_mm_encoder_outputs = _ahead_of_nothing  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del model._supports_mm_encoder_outputs


def _ahead_of_nothing() -> bool:
    return False


class _TheLastOne(StoppingCriteria):
    """Ends the answers of all processes behind the same token: at the end of the longest answer."""

    def __init__(self, ends: Tensor, fills: bool) -> None:
        self.ends = ends
        self.fills = fills
        self.over: Tensor | None = None

    def __call__(
        self, input_ids: torch.LongTensor, scores: tuple[torch.FloatTensor] | None, **_: object
    ) -> torch.BoolTensor:
        ended = torch.isin(input_ids[:, -1], self.ends)
        self.over = ended if self.over is None else self.over | ended
        going = any_process(not self.fills and not bool(self.over.all()))
        return torch.full_like(ended, not going)  # pyright: ignore[reportReturnType]
