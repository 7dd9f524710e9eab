"""A dry pass holds what a real one does, what autograd keeps, and what it would hold with all blocks run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from weakref import WeakSet

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from finetune import dry_run
from finetune.adapter import choose_trained
from finetune.answer_loss import teach_answers_only
from finetune.collate import COLUMN, Collator
from finetune.dry_run import Step, base_of, dry_step
from finetune.encoder import row_encoder
from finetune.ledger import Ledger
from finetune.model import load_model, load_skeleton
from lensmith.dataset import read_split
from tests.finetune.conftest import Training, TrainingMaker

MIB = 1 << 20


@pytest.fixture(scope="module")
def training(new_training: TrainingMaker) -> Training:
    return new_training()


def longest(training: Training) -> dict[str, torch.Tensor]:
    """The longest row as a batch."""
    encoder = row_encoder(training.recipe, training.recipe.base.path)
    row = max(read_split(training.dataset, "train"), key=lambda row: len(encoder.encode(row).labels))
    return Collator(encoder.pad_id)([{COLUMN: encoder.encode(row)}])


def held(training: Training, recomputed: int, modes: dict[str, str] | None = None) -> Step:
    """What a dry pass over the longest row holds."""
    recipe = training.recipe
    if modes:
        towers = recipe.train.towers.model_copy(update=modes)
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"towers": towers})})
    model = choose_trained(load_skeleton(recipe.base.path), recipe).model
    return dry_step(model, longest(training), recomputed=recomputed, autocast=False)


class Saved:
    """A tensor kept for the backward pass, for as long as the graph keeps it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def kept_by_autograd(training: Training) -> int:
    """Bytes that a forward pass of the longest row really keeps for its backward pass, weights left out."""
    model = choose_trained(load_model(training.recipe.base.path, torch.float32), training.recipe).model
    batch = longest(training)
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    saved: WeakSet[Saved] = WeakSet()

    def keep(tensor: torch.Tensor) -> Saved:
        saved.add(held := Saved(tensor))
        return held

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held.tensor):
        batch.pop("labels")
        output = model.train()(**batch, logits_to_keep=1)
    # What only a part of the graph kept that is gone by now (DoRA's norm) is no longer among them.
    storages = {held.tensor.untyped_storage().data_ptr(): held.tensor.untyped_storage() for held in saved}
    assert output.logits.requires_grad
    return sum(storage.nbytes() for place, storage in storages.items() if place not in weights)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_a_pass_holds_what_autograd_keeps(new_training: TrainingMaker, variant: str) -> None:
    training = new_training(train__lora={"rank": 4, "alpha": 8.0, "variant": variant})
    real = kept_by_autograd(training)
    given = sum(each.nbytes for each in longest(training).values())
    # At its peak a pass holds results beside what it keeps.
    assert 1 < (held(training, 0).held - given) / real < 1.25


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [0, 1, 2])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_dry_pass_holds_what_the_same_pass_holds_for_real(
    new_training: TrainingMaker, method: str, recomputed: int
) -> None:
    mode = {"lora": "adapt", "full": "train"}[method]
    towers = dict.fromkeys(("vision", "connector", "language"), mode)
    training = new_training(train__method=method, train__towers=towers)
    recipe, base = training.recipe, training.recipe.base.path
    dry = held(training, recomputed)

    model = choose_trained(load_model(base, torch.float32), recipe).model.train()
    teach_answers_only(base_of(model))
    if recomputed:
        base_of(model).gradient_checkpointing_enable(None, every_n_layers=recomputed)
    batch = longest(training)
    labels = batch.pop("labels")
    ledger = Ledger()
    for each in [*model.parameters(), *model.buffers()]:
        ledger.leave_out(each)
    with ledger:
        for each in (labels, *batch.values()):
            ledger.count(each)
        model(**batch, use_cache=False, answer_labels=labels)[0].backward()
    gradients = sum(each.grad.nbytes for each in model.parameters() if each.grad is not None)
    assert dry.gradients == gradients
    assert dry.together == pytest.approx(max(ledger.held), rel=0.02)


@pytest.mark.slow
def test_a_pass_holds_less_where_less_is_trained_or_kept(training: Training) -> None:
    every = held(training, 0)
    language = held(training, 0, {"vision": "freeze", "connector": "freeze"})
    vision = held(training, 0, {"connector": "freeze", "language": "freeze"})
    assert language.held < every.held
    assert vision.held > 0.8 * every.held, "gradients flow back through the towers above"
    assert held(training, 1).held < every.held


@pytest.mark.slow
# Of every fourth block there must be more than four.
@pytest.mark.parametrize(("recomputed", "depth"), [(0, 13), (1, 13), (2, 13), (4, 21)])
def test_blocks_left_out_count_as_if_they_were_run(
    training: Training,
    recomputed: int,
    depth: int,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors")))
    config = json.loads((base / "config.json").read_bytes())
    config["text_config"]["num_hidden_layers"], config["vision_config"]["depth"] = depth, depth - 1
    (base / "config.json").write_text(json.dumps(config))
    recipe = training.recipe.model_copy(
        update={"base": training.recipe.base.model_copy(update={"path": base})}
    )
    deep = dataclasses.replace(training, recipe=recipe)
    thin = held(deep, recomputed)
    monkeypatch.setattr(dry_run, "_RUN", 1000)
    whole = held(deep, recomputed)
    assert thin.held == pytest.approx(whole.held, rel=0.01)
    assert thin.gradients == whole.gradients
    assert thin.together == pytest.approx(whole.together, rel=0.02)


def of_shape(ledger: Ledger, *shape: int) -> FakeTensor:
    return FakeTensor(ledger.shapes, torch.empty(shape, device="meta"), torch.device("cpu"))


def test_a_tensor_counts_from_its_making_to_its_end() -> None:
    ledger = Ledger()
    given = of_shape(ledger, MIB)
    ledger.leave_out(given)
    with ledger:
        kept = given + 1
        view = kept[:10]
        assert ledger.live == 4 * MIB, "a view is no memory of its own, what was there before is left out"
        (kept * 2).sum()
        assert max(ledger.held) >= 8 * MIB
        assert ledger.live < 5 * MIB, "the product is gone"
        ledger.is_gradient(view)
        assert (ledger.live, ledger.gradients[-1]) == (0, 4 * MIB)
        del kept, view
    assert not ledger.live


def test_masks_of_real_tensors_index_shapes() -> None:
    ledger = Ledger()
    hidden = of_shape(ledger, 8, 4)
    with ledger:
        assert hidden[torch.arange(8) < 3].shape == (3, 4)


def test_routed_experts_in_float32_have_a_shape() -> None:
    ledger = Ledger()
    tokens, weights = of_shape(ledger, 16, 32), of_shape(ledger, 4, 32, 64)
    ends = FakeTensorMode.from_tensor(ledger.shapes, torch.tensor([4, 8, 12, 16], dtype=torch.int32))
    with ledger:
        out = torch.ops.aten._grouped_mm(tokens, weights, ends)
    assert (out.shape, out.dtype) == ((16, 64), torch.float32)
