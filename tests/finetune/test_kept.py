"""What the plan says of kept image features is what a training keeps, holds and packs by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch

import finetune.features
import finetune.kept
from finetune.arguments import training_arguments
from finetune.encoded import Encoded
from finetune.encoder import count_rows, row_encoder
from finetune.features import all_of, groups, image_features, in_order, may_keep
from finetune.kept import Kept, foresee_kept, see_dry
from finetune.launcher import Launcher, read_launcher
from finetune.ledger import Ledger
from finetune.model import DTYPES, load_model, load_skeleton
from finetune.packed import pack_rows
from finetune.plan import plan
from finetune.rows import RowEncoder
from lensmith.counting import Counts
from lensmith.dataset import read_split
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_features import FROZEN, SETTINGS, before_training

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Foreseen:
    """A training that is not started."""

    training: Training

    @cached_property
    def encoder(self) -> RowEncoder:
        return row_encoder(self.training.recipe, self.training.recipe.base.path)

    @cached_property
    def launcher(self) -> Launcher:
        return read_launcher(self.training.recipe.train.launcher)

    @cached_property
    def shown(self) -> list[int]:
        return read_split(self.training.dataset, "train").epoch()

    @cached_property
    def counts(self) -> Counts:
        from accelerate import PartialState

        recipe, dataset = self.training.recipe, self.training.dataset
        return count_rows(recipe, dataset, recipe.base.path, self.encoder, PartialState())

    def encode(self, number: int) -> Encoded:
        return self.encoder.encode(read_split(self.training.dataset, "train")[number])

    def kept(self, launcher: Launcher | None = None, counts: Counts | None = None) -> Kept | None:
        recipe = self.training.recipe
        source = recipe.base.path
        counted = self.counts if counts is None else counts
        given = (source, load_skeleton(source), self.shown, counted, self.encode)
        return foresee_kept(recipe, launcher or self.launcher, *given)


@pytest.fixture(scope="module")
def foreseen(new_training: TrainingMaker) -> Foreseen:
    return Foreseen(new_training(**SETTINGS))


def test_as_large_as_those_that_are_kept(foreseen: Foreseen, monkeypatch: pytest.MonkeyPatch) -> None:
    size, rows = before_training(foreseen.training, monkeypatch)
    kept = foreseen.kept()
    assert kept is not None
    image_tokens = foreseen.counts[:, 1].tolist()
    order = in_order(foreseen.shown, image_tokens)
    largest = rows.kept[order[0]]
    assert kept.nbytes == round(all_of(largest.nbytes, order[0], order, image_tokens))
    assert kept.nbytes == pytest.approx(size, rel=0.1)
    (dry,), _ = see_dry(
        foreseen.training.recipe,
        foreseen.launcher,
        foreseen.training.recipe.base.path,
        [foreseen.encode(order[0])],
    )
    assert dry.features is not None
    assert largest.features is not None
    ours, theirs = ((each.pooled, *each.deep) for each in (dry.features, largest.features))
    for level, real in zip(ours, theirs, strict=True):
        assert [(each.shape, each.dtype) for each in level] == [(each.shape, each.dtype) for each in real]


# Of all weights, float32 ones are held, which torch casts.
WHOLE = {"train__method": "full", "train__towers": {**FROZEN, "language": "train"}}


@pytest.mark.parametrize(
    ("name", "more"), [("float32", {}), ("bfloat16", {}), ("bfloat16", WHOLE)], ids=["32", "16", "cast"]
)
def test_the_towers_hold_what_they_hold_for_real(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch, name: str, more: dict[str, Any]
) -> None:
    given, dtype = Foreseen(new_training(**{**SETTINGS, **more}, train__dtype=name)), DTYPES[name]
    recipe = given.training.recipe
    image_tokens = given.counts[:, 1].tolist()
    order = in_order(given.shown, image_tokens)
    # The largest by itself, the last one by itself, and all between at a time.
    monkeypatch.setattr(finetune.features, "TOKENS", sum(image_tokens[number] for number in order[1:-1]))
    model = load_model(recipe.base.path, torch.float32 if more else dtype).requires_grad_(False)
    most, sizes = 0, list[int]()
    for group in groups(((number, number) for number in order), image_tokens):
        rows = [given.encode(number) for number in group]
        ledger = Ledger()
        for each in [*model.parameters(), *model.buffers()]:
            ledger.leave_out(each)
        # As the trainer computes: in bfloat16 under autocast.
        with ledger, torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            for row in rows:
                for values in row.images.values():
                    ledger.count(values)
            sizes += [each.nbytes for each in image_features(model, rows, dtype)]
        most = max(most, *ledger.held)
    kept = given.kept()
    assert kept is not None
    assert kept.held == pytest.approx(most, rel=0.02)
    assert kept.nbytes == round(all_of(sizes[0], order[0], order, image_tokens))
    # DeepSpeed computes in the weights' dtype: nothing is cast.
    plain = given.kept(replace(given.launcher, kind="DEEPSPEED", zero_stage=2))
    assert plain is not None
    assert (plain.held < 0.9 * kept.held) == bool(more)


def test_rows_without_an_image_have_none_to_keep(foreseen: Foreseen) -> None:
    without = foreseen.counts.copy()
    without[:, 1] = 0
    assert foreseen.kept(counts=without) is None


def test_where_none_will_be_kept_none_are_foreseen(new_training: TrainingMaker, foreseen: Foreseen) -> None:
    """As the tests of those that are kept have it, each with the same settings."""
    assert foreseen.kept() is not None
    for given in (
        {"train__image_features_gib": 1e-6},
        {"train__max_steps": 1},
        {"train__towers": {**FROZEN, "connector": "adapt"}},
        {"train__towers": {**FROZEN, "vision": "adapt"}},
    ):
        assert Foreseen(new_training(**{**SETTINGS, **given})).kept() is None
    assert foreseen.kept(replace(foreseen.launcher, processes=2)) is None


def test_when_features_may_be_kept(foreseen: Foreseen) -> None:
    """Each condition by itself, at its edge."""
    recipe, shown = foreseen.training.recipe, list(range(64))

    def may(launcher: Launcher = foreseen.launcher, dropout: Any = 0.0, **given: Any) -> bool:
        settings = {"max_steps": 0, "epochs": 2.0, "batch_size": 16, **given}
        asked = recipe.model_copy(update={"train": recipe.train.model_copy(update=settings)})
        model = load_skeleton(recipe.base.path)
        model.config.vision_config.beside = {"drop_path": dropout}
        return may_keep(asked, launcher, model, shown)

    assert may()
    # Four steps show each row once; of preferences one step shows a quarter of the rows four times.
    assert (may(epochs=1.0), may(max_steps=4), may(max_steps=5)) == (False, False, True)
    assert (may(max_steps=1, objective="dpo"), may(max_steps=2, objective="dpo")) == (False, True)
    assert not may(dropout=0.1)
    assert not may(replace(foreseen.launcher, kind="FSDP"))
    assert not may(replace(foreseen.launcher, processes=2))
    assert not may(image_features_gib=0)


def planned(new_training: TrainingMaker, **settings: Any) -> Any:
    training = new_training(**{**SETTINGS, **settings})
    return plan(training.recipe, training.dataset)


def test_the_plan_has_no_tower_in_its_steps(new_training: TrainingMaker) -> None:
    kept, anew = planned(new_training), planned(new_training, train__image_features_gib=0)
    assert kept.image_features > 0
    assert anew.image_features == anew.memory.features == 0
    # The images of a step's rows, as pixels and as they pass through the tower, are in the other alone.
    assert 0 < kept.memory.activations < 0.9 * anew.memory.activations
    assert kept.memory.features > 0
    # Two thousand tokens at a time are more than this model's whole step.
    assert kept.memory.total == kept.memory.weights + kept.memory.features
    assert (kept.memory.weights, kept.memory.logits) == (anew.memory.weights, anew.memory.logits)


def test_packs_are_equal_in_what_the_steps_compute(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tokens of the language model, where the towers have seen the images before."""
    given = Foreseen(new_training(**SETTINGS, train__pack_length=600))
    recipe, source = given.training.recipe, given.training.recipe.base.path
    arguments = training_arguments(recipe, given.launcher, given.training.home.root / "work")

    def work() -> Any:
        packs = pack_rows(
            recipe,
            given.launcher,
            given.training.dataset,
            source,
            given.encoder,
            load_skeleton(source),
            given.counts,
            arguments,
        )
        assert packs is not None
        packing = packs.plan.packing
        return packing.work - packing.tokens

    assert not np.any(work())
    assert plan(recipe, given.training.dataset).image_features > 0
    monkeypatch.setattr(finetune.kept, "may_keep", lambda *_: False)
    assert np.all(work()[given.counts[given.shown, 1] > 0] > 0)
