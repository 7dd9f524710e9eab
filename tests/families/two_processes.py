"""Run by torchrun on two processes: a LoRA step under ZeRO-3 or FSDP2, each process with another kind of row.

PYTHONPATH=.:scripts python -m torch.distributed.run --nproc-per-node 2 \
    tests/families/two_processes.py CHECKPOINTS OUT CASE...

CHECKPOINTS holds a tiny checkpoint in a folder of each family's name. A CASE is FAMILY:VARIANT:ROW:ROW, what
`train.lora.variant` says (or "experts": these are adapted too) and each process's row of `ROWS`; behind it
stands :fsdp2 where not DeepSpeed is to divide the weights. Process N writes OUT/CASE.N.json. With
WITHOUT_BLANK_IMAGE=1 a row of text leaves out the vision tower.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from peft import PeftModel
from torch import Tensor

from finetune.adapter import choose_trained
from finetune.answer_loss import teach_answers_only
from finetune.blank_image import blank_image, see_blank_image
from finetune.collate import COLUMN, Collator
from finetune.encoder import row_encoder
from finetune.ending import leave
from finetune.experts import gather_experts_whole
from finetune.fsdp import check_divided, divide_by_blocks
from finetune.operators import leave_out_collectives
from finetune.thin import multiply_thin
from lensmith import families
from lensmith.large_imports import QuickExit
from lensmith.recipe import Recipe
from tests.families.conftest import Checkpoint, row_of, towers_of, video_row
from tests.finetune.fsdp2_trainings import over_gloo

# An image that DeepSeek-OCR-2 cuts into tiles, one that it does not, a video and an image, and none.
ROWS = {
    "tiles": row_of("an answer", (1000, 500)),
    "image": row_of("an answer", (200, 100)),
    "film": video_row(4, (90, 60), (80, 80)),
    "text": row_of("no image at all"),
}
FSDP2 = ":fsdp2"
COLLECTIVES = ("all_gather_into_tensor", "reduce_scatter_tensor", "all_reduce", "broadcast", "barrier")
# By itself it leaves weights of fewer than 100,000 values whole and keeps others once gathered: all here.
ZERO3 = {
    "stage": 3,
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 1,
    "stage3_max_reuse_distance": 1,
}
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": ZERO3,
    "zero_allow_untested_optimizer": True,
}
# After this long gloo stops processes that wait for each other.
PATIENCE = timedelta(seconds=60)
_calls: list[str] = []


@dataclass(frozen=True)
class Case:
    """A step to take: what is trained, and each process's batch."""

    checkpoint: Checkpoint
    recipe: Recipe
    batches: tuple[dict[str, Tensor], ...]
    blank: dict[str, Tensor]

    def model(self) -> PeftModel:
        """With its adapter, the same in every process; B is not zero, so that A learns too."""
        torch.manual_seed(1)
        model = self.checkpoint.load()
        trained = choose_trained(model, self.recipe).model
        assert isinstance(trained, PeftModel)
        with torch.no_grad():
            for name, parameter in trained.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.05)
        teach_answers_only(model)
        return trained.train()


def read_case(text: str, checkpoints: Path) -> Case:
    """A CASE as it stands on the command line."""
    name, variant, *rows = text.split(":")
    checkpoint = Checkpoint(families.get(name), checkpoints / name)
    recipe = checkpoint.recipe(**dict.fromkeys(towers_of(name, "lora"), "adapt"))
    content = recipe.model_dump()
    adapted = {"experts": {"rank": 3, "alpha": 6.0}} if variant == "experts" else {"variant": variant}
    content["train"]["lora"] |= adapted
    encoder = row_encoder(recipe, checkpoint.root)
    collate = Collator(encoder.pad_id, checkpoint.family.numbers)
    batches = tuple(collate([{COLUMN: encoder.encode(ROWS[row])}]) for row in rows)
    blank = blank_image(checkpoint.family, encoder.processor)
    return Case(checkpoint, Recipe.model_validate(content), batches, blank)


def loss_of(model: Callable[..., Any], batch: dict[str, Tensor]) -> Tensor:
    """Nats of a batch's answer."""
    given = {name: values for name, values in batch.items() if name != "labels"}
    return model(**given, answer_labels=batch["labels"])[0]


def alone(case: Case) -> dict[str, Tensor]:
    """The gradients of one process that sees the rows one after the other, and no blank image."""
    model = case.model()
    for batch in case.batches:
        loss_of(model, batch).backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def together(case: Case, rank: int, *, fsdp2: bool) -> dict[str, Tensor]:
    """The gradients of two processes that see a row each."""
    model = case.model()
    if os.environ.get("WITHOUT_BLANK_IMAGE") != "1":
        base = model.get_base_model()
        see_blank_image(base, case.checkpoint.family, case.blank)  # pyright: ignore[reportArgumentType]
    return by_fsdp2(case, model, rank) if fsdp2 else by_deepspeed(case, model, rank)


def by_fsdp2(case: Case, model: PeftModel, rank: int) -> dict[str, Tensor]:
    """As a trainer has accelerate divide it."""
    multiply_thin(model)
    AcceleratorState._reset_state(reset_partial_state=True)
    with over_gloo():
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
        accelerator = Accelerator(fsdp_plugin=plugin)
        divide_by_blocks(accelerator, model, torch.float32)
        parameters = [each for each in model.parameters() if each.requires_grad]
        divided, _ = accelerator.prepare(model, torch.optim.SGD(parameters, 0.0))
    check_divided(divided, len(case.batches), Path("fsdp2"))
    (loss_of(divided, case.batches[rank]) * len(case.batches)).backward()
    return {
        name: each.grad.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
        for name, each in divided.named_parameters()
        if each.grad is not None
    }


def by_deepspeed(case: Case, model: PeftModel, rank: int) -> dict[str, Tensor]:
    """Under ZeRO-3."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    if case.recipe.train.lora.experts is not None:
        gather_experts_whole(model)
    parameters = [each for each in model.parameters() if each.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.SGD(parameters, 0.0), config=CONFIG)
    slopes: dict[str, Tensor] = {}
    # From the second step on DeepSpeed gathers weights ahead, in the order in which the first one used them.
    for _ in range(2):
        # It takes the mean over the processes.
        engine.backward(loss_of(engine, case.batches[rank]) * len(case.batches))
        slopes = {
            name: safe_get_full_grad(each) for name, each in model.named_parameters() if each.requires_grad
        }
        engine.step()
    engine.destroy()
    return slopes


def compared(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference, as a share of the tensor's largest gradient."""
    assert found.keys() == wanted.keys()
    return max(
        float((found[name] - slope).abs().max() / slope.abs().max().clamp(min=1e-6))
        for name, slope in wanted.items()
    )


def noted(name: str) -> Callable[..., Any]:
    """torch's collective of this name, which is noted with its numbers of values."""
    real = getattr(torch.distributed, name)

    def call(*given: Any, **named: Any) -> Any:
        sizes = [each.numel() for each in (*given, *named.values()) if isinstance(each, Tensor)]
        _calls.append(f"{name} {sizes}")
        return real(*given, **named)

    return call


def main(checkpoints: Path, out: Path, cases: list[str]) -> None:
    """Take every case's step."""
    # Before DeepSpeed is there: it would take the weights apart while they are made.
    read = {text: read_case(text, checkpoints) for text in {each.removesuffix(FSDP2): None for each in cases}}
    wanted = {text: alone(case) for text, case in read.items()}
    for name in COLLECTIVES:
        setattr(torch.distributed, name, noted(name))
    import deepspeed

    # Its own could not be noted.
    leave_out_collectives()
    deepspeed.init_distributed("gloo", verbose=False, timeout=PATIENCE)
    rank = torch.distributed.get_rank()
    for text in cases:
        _calls.clear()
        case = text.removesuffix(FSDP2)
        try:
            slopes = together(read[case], rank, fsdp2=case != text)
            found = {"differs": compared(slopes, wanted[case])}
        except RuntimeError as error:
            found = {"error": str(error)}
        (out / f"{text}.{rank}.json").write_text(json.dumps({**found, "collectives": _calls}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    leave(QuickExit(), 0)
