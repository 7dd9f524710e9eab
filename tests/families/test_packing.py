"""Packed rows of every family learn what each learns alone; leaks and other positions would show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune.answer_loss import teach_answers_only
from finetune.collate import COLUMN, Collator
from finetune.documents import PackCollator, attend_per_document, row_positions
from finetune.encoded import Encoded
from finetune.encoder import row_encoder
from lensmith import families
from lensmith.families.family import Family
from lensmith.row_file import Row
from lensmith.tokens import read_grid
from tests.families.conftest import Checkpoint, row_of
from tests.family_results import Shows
from tests.learned import Learned, learned

pytestmark = pytest.mark.slow

# Text alone first, between and last, an image, two in a row; all longer than Gemma 3's window of 32 but some.
ROWS = [
    row_of("no image", question="Write a line."),
    row_of('{"a": "12"}', (200, 100)),
    row_of("two lines of an answer, longer than others", question="Write two lines about nothing at all."),
    row_of("second", (80, 90), (112, 112)),
    row_of("1", question="Count to one."),
]
PACKING = [name for name, family in families.FAMILIES.items() if family.packs]
TILED = [name for name in PACKING if families.get(name).vision_run.views]
# Families whose images cost what they show: tens of pages fit.
SCANNED, PAGES = [name for name in PACKING if families.get(name).cut == "area"], 40
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A family's model, its rows, and what they teach one by one as transformers runs them."""

    family: Family
    model: PreTrainedModel
    rows: list[Encoded]
    alone: Learned

    def packed(self, rows: list[Encoded] | None = None) -> Batch:
        """Rows (all of them) in one sequence."""
        positions = row_positions(self.model, self.family)
        return PackCollator.of(self.family)(
            [
                {COLUMN: replace(each, positions=positions(each.tokens, each.images))}
                for each in rows or self.rows
            ]
        )

    def differs(self, *batches: Batch) -> tuple[float, float]:
        """How far loss and gradients of `batches` are from those alone, as shares."""
        (loss, slopes), (wanted, right) = learned(self.model, batches), self.alone
        assert slopes.keys() == right.keys()
        # A bias of keys has no gradient: what is there is rounding.
        least = 1e-3 * max(float(each.abs().max()) for each in right.values())
        return abs(loss / wanted - 1), max(
            float((slopes[name] - each).abs().max() / each.abs().max().clamp(min=least))
            for name, each in right.items()
        )


@pytest.fixture(scope="module", params=PACKING)
def case(request: pytest.FixtureRequest, made: dict[str, Checkpoint]) -> Case:
    return make_case(made[request.param], ROWS)


def make_case(checkpoint: Checkpoint, given: list[Row]) -> Case:
    encoder = row_encoder(checkpoint.recipe("full", language="train"), checkpoint.root)
    rows, model = [encoder.encode(each) for each in given], checkpoint.load().train()
    teach_answers_only(model)
    collate = Collator(encoder.pad_id, checkpoint.family.numbers)
    alone = learned(model, tuple(collate([{COLUMN: each}]) for each in rows))
    attend_per_document(model)
    return Case(checkpoint.family, model, rows, alone)


def test_packed_equals_alone(case: Case, shows: Shows) -> None:
    shows(case.family.name, "", "packed")
    for packs in ([case.packed()], [case.packed(case.rows[:2]), case.packed(case.rows[2:])]):
        loss, slopes = case.differs(*packs)
        assert loss < 1e-6
        assert slopes < 2e-5


@pytest.mark.parametrize("family", TILED)
def test_an_image_in_tiles_beside_a_whole_one(made: dict[str, Checkpoint], family: str) -> None:
    case = make_case(made[family], [ROWS[1], row_of("tiles", (1000, 500)), ROWS[0]])
    assert case.family.vision_run.views in case.packed()
    loss, slopes = case.differs(case.packed())
    assert loss < 1e-6
    assert slopes < 2e-5


@pytest.mark.parametrize("family", SCANNED)
def test_a_document_of_many_pages(made: dict[str, Checkpoint], family: str) -> None:
    """Each page an image of its own, in order: counted without a processor, and packed as it is alone."""
    document = row_of("the last page", *[(64 + 32 * (page % 3), 96) for page in range(PAGES)])
    checkpoint = made[family]
    case = make_case(checkpoint, [ROWS[0], document, ROWS[1]])
    encoder = row_encoder(checkpoint.recipe("full", language="train"), checkpoint.root)
    (counted,) = encoder.tokens_of([document], read_grid(checkpoint.root, checkpoint.family, None))
    assert len(case.rows[1].tokens["input_ids"]) == counted.text + counted.image + counted.answer
    assert counted.image >= PAGES
    loss, slopes = case.differs(case.packed())
    assert loss < 1e-6
    assert slopes < 2e-5


def leaking(batch: Batch) -> Batch:
    """One document: each row sees those before it."""
    return {**batch, "cu_seq_lens_q": batch["cu_seq_lens_q"][[0, -1]]}


def other_positions(batch: Batch) -> Batch:
    """Where the rope has three dimensions, one; else an image as one position, as if its tokens were one."""
    places = batch["position_ids"]
    if places.ndim == 3:
        return {**batch, "position_ids": places[:1].expand(4, -1, -1)}
    return {**batch, "position_ids": places.clamp(max=12)}


@pytest.mark.parametrize("mutant", [leaking, other_positions])
def test_leaks_and_other_positions_would_show(case: Case, mutant: Callable[[Batch], Batch]) -> None:
    loss, slopes = case.differs(mutant(case.packed()))
    assert loss > 1e-5
    assert slopes > 1e-2


def causal(batch: Batch) -> Batch:
    """Image tokens see those before them alone."""
    return {**batch, "whole_blocks": torch.full_like(batch["whole_blocks"], -1)}


def other_blocks(batch: Batch) -> Batch:
    """Each image where the row is meant, all images of a row where each is."""
    blocks, image = batch["whole_blocks"], batch["whole_blocks"] >= 0
    begins = image & ~image.roll(1)
    other = begins.cumsum(1) if blocks.max() == 0 else torch.zeros_like(blocks)
    return {**batch, "whole_blocks": torch.where(image, other, -1)}


@pytest.mark.parametrize("mutant", [causal, other_blocks])
def test_image_tokens_that_see_others_would_show(case: Case, mutant: Callable[[Batch], Batch]) -> None:
    batch = case.packed()
    if case.family.packs is not None and case.family.packs.whole:
        assert case.differs(mutant(batch))[1] > 1e-2
    else:
        assert "whole_blocks" not in batch


@pytest.mark.parametrize("mutant", [None, 1_000_000])
def test_a_window_is_kept(case: Case, mutant: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 3's layers of 32 tokens: with none, or one that all rows fit into, another model is taught."""
    windows = [each for each in case.model.modules() if vars(each).get("sliding_window")]
    for each in windows:
        monkeypatch.setattr(each, "sliding_window", mutant)
    assert (case.differs(case.packed())[1] > 1e-2) == bool(windows)
