"""A batch without an image runs all that one with an image runs, and learns what it would without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from finetune.blank_image import blank_image, needs_blank_image, see_blank_image
from finetune.collate import COLUMN, Collator
from finetune.encoder import row_encoder
from finetune.launcher import read_launcher
from tests.conftest import ROOT
from tests.families.conftest import Checkpoint, Size, row_of
from tests.family_results import Shows

pytestmark = pytest.mark.slow

SMALL, LARGE = (200, 100), (1000, 500)


class Step:
    """A forward and backward pass over one row: the modules with weights it called, loss and gradients."""

    def __init__(self, checkpoint: Checkpoint, *sizes: Size, blank: bool = True, broken: str = "") -> None:
        family = checkpoint.family
        encoder = row_encoder(checkpoint.recipe("full", language="train"), checkpoint.root)
        self.batch = Collator(encoder.pad_id, family.numbers)(
            [{COLUMN: encoder.encode(row_of("12", *sizes))}]
        )
        self.model = checkpoint.load().train()
        if blank:
            see_blank_image(self.model, family, blank_image(family, encoder.processor))
        if broken:
            self.model.get_submodule(broken).register_forward_hook(infinite)
        self.called: list[str] = []
        for name, module in self.model.named_modules():
            if any(True for _ in module.parameters(recurse=False)):
                module.register_forward_pre_hook(self.notes(name))
        loss = self.model(**self.batch).loss
        loss.backward()
        self.loss = float(loss.detach())
        self.slopes: dict[str, Tensor | None] = {name: p.grad for name, p in self.model.named_parameters()}

    def notes(self, name: str):
        return lambda *_: self.called.append(name)


def infinite(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
    return out + float("inf")


def test_every_module_runs(checkpoint: Checkpoint) -> None:
    """In one order, whatever the row holds: processes that share weights come to each of them together."""
    without, small, large = Step(checkpoint), Step(checkpoint, SMALL), Step(checkpoint, LARGE)
    assert without.called == small.called == large.called
    learning = [
        {name for name, slope in step.slopes.items() if slope is not None} for step in (without, large)
    ]
    assert learning[0] == learning[1]


def test_without_it_the_tower_is_left_out(checkpoint: Checkpoint) -> None:
    without, small = Step(checkpoint, blank=False), Step(checkpoint, SMALL)
    assert len(without.called) < len(small.called)


def test_nothing_else_is_learned(checkpoint: Checkpoint, shows: Shows) -> None:
    """Not a bit of the loss or of a gradient; the tower's are zero instead of none."""
    shows(checkpoint.family.name, "", "rows")
    with_it, without = Step(checkpoint), Step(checkpoint, blank=False)
    assert with_it.loss == without.loss
    for name, slope in without.slopes.items():
        found = with_it.slopes[name]
        if slope is not None:
            assert found is not None
            assert torch.equal(found, slope)
        else:
            assert found is None or not found.any()


def test_an_infinite_blank_leaks_nothing(made: dict[str, Checkpoint]) -> None:
    """Zero times infinity is no number: what comes out of the towers is thrown away, not multiplied."""
    broken = Step(made["qwen3_vl"], broken="model.visual.merger")
    assert broken.loss == Step(made["qwen3_vl"], blank=False).loss
    assert all(slope is not None and slope.isfinite().all() for slope in broken.slopes.values())


def test_where_it_is_needed(made: dict[str, Checkpoint]) -> None:
    checkpoint = made["qwen3_vl"]
    language, connector = checkpoint.recipe(language="adapt"), checkpoint.recipe(connector="adapt")
    names = ("cpu", "deepspeed_zero2", "deepspeed_zero3", "fsdp2")
    launchers = [read_launcher(ROOT / f"recipes/accelerate/{name}.yaml") for name in names]
    assert [needs_blank_image(language, each) for each in launchers] == [False, False, True, True]
    assert [needs_blank_image(connector, each) for each in launchers] == [True, True, True, True]
