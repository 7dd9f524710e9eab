"""What asking the model takes is planned: near what real answers hold, and the largest batch's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from finetune.dry_answers import dry_answers, largest_batch
from finetune.greedy import greedy
from finetune.ledger import Ledger
from finetune.model import load_model, load_processor, load_skeleton
from finetune.plan import plan
from lensmith.dataset import read_split
from lensmith.row_file import Row
from tests.finetune.conftest import Training, TrainingMaker

pytestmark = pytest.mark.slow
# No token of the vocabulary: every answer is as long as it may be.
ENDLESS = [1 << 20]


@pytest.fixture(scope="module")
def training(new_training: TrainingMaker) -> Training:
    return new_training(train__evaluate={"every": 1, "rows": 4})


def one_row(training: Training) -> Row:
    return read_split(training.dataset, "validation")[0]


def really_held(training: Training, rows: list[Row], new_tokens: int) -> int:
    """Bytes that real answers hold at most beside the weights, what waits on the host left out."""
    source = training.recipe.base.path
    model = load_model(source, torch.float32).eval()
    ledger, generate = Ledger(), model.generate
    for each in [*model.parameters(), *model.buffers()]:
        ledger.leave_out(each)

    def watched(**given: Any) -> Any:
        with ledger:
            for each in given.values():
                if isinstance(each, torch.Tensor):
                    ledger.count(each)
            return generate(**given)

    model.generate = watched
    processor = load_processor(source, training.recipe.pixel_budget, [])
    answers = list(greedy(model, processor, training.recipe.rendering, rows, ENDLESS, new_tokens))
    assert {len(each.answer_ids) for each in answers} == {new_tokens}
    return max(ledger.held)


def planned(training: Training, batch: Mapping[str, torch.Tensor], new_tokens: int) -> int:
    return dry_answers(load_skeleton(training.recipe.base.path), batch, new_tokens, autocast=False)


@pytest.mark.parametrize("new_tokens", [4, 400])
def test_answers_hold_what_is_planned(training: Training, new_tokens: int) -> None:
    """A short answer's most is the pass over the prompt, a long one's the keys and values at its end."""
    rows = [one_row(training)] * 8
    processor = load_processor(training.recipe.base.path, training.recipe.pixel_budget, [])
    batch = largest_batch(processor, training.recipe.rendering, rows)
    assert batch["input_ids"].shape[0] == 8
    assert planned(training, batch, new_tokens) == pytest.approx(
        really_held(training, rows, new_tokens), rel=0.15
    )


def test_the_largest_batch_is_the_one_with_the_most_tokens(training: Training) -> None:
    row = one_row(training)
    processor = load_processor(training.recipe.base.path, training.recipe.pixel_budget, [])

    def rows_at_a_time(count: int, batch: int) -> int:
        found = largest_batch(processor, training.recipe.rendering, [row] * count, batch)
        return len(found["input_ids"])

    assert rows_at_a_time(3, 16) == 3
    assert rows_at_a_time(3, 2) == 2


def test_a_plan_counts_the_answers_that_are_asked_for(
    training: Training, new_training: TrainingMaker
) -> None:
    assert plan(new_training().recipe, training.dataset).memory.answers == 0
    serve = training.recipe.serve.model_copy(update={"max_new_tokens": 100_000})
    most = plan(training.recipe.model_copy(update={"serve": serve}), training.dataset).memory
    assert most.at_once == most.answers > most.activations
