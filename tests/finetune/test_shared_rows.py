"""Workers keep rows together: each is encoded once, and learned as without workers."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler
from trl.trainer.sft_config import SFTConfig

import finetune.train
from finetune.arguments import training_arguments
from finetune.collate import COLUMN, FILLER, EncodedRows, training_rows
from finetune.encoded import IGNORED, Encoded
from finetune.shared_rows import SharedRows
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_train import broken_after
from tests.finetune.tiny_models import row as made_of_numbers

NUMBER_OF_ROWS = 12
# More than two epochs.
SETTINGS: dict[str, Any] = {"train__max_steps": 10, "train__batch_size": 16, "train__log_every": 1}


def row_at(number: int) -> Encoded:
    return made_of_numbers(number, 20, 3 + number % 4, ((4, 6),) if number % 3 else ())


def same(ours: Encoded, theirs: Encoded) -> bool:
    pairs = [(ours.tokens, theirs.tokens), (ours.images, theirs.images)]
    pairs.append(({"labels": ours.labels}, {"labels": theirs.labels}))
    pairs.append(({"positions": ours.positions}, {"positions": theirs.positions}))
    for one, other in pairs:
        if one.keys() != other.keys():
            return False
        for name, each in one.items():
            if (each is None) is not (other[name] is None):
                return False
            if each is not None and not (each.dtype == other[name].dtype and torch.equal(each, other[name])):
                return False
    if (ours.row, ours.pictures) != (theirs.row, theirs.pictures):
        return False
    if ours.rejected is None or theirs.rejected is None:
        return ours.rejected is theirs.rejected
    return same(ours.rejected, theirs.rejected)


def test_a_row_comes_back_whole() -> None:
    shown, plain = row_at(1), row_at(3)
    # As rows are with positions, which may be a part of others' memory; and as pairs are.
    placed = replace(shown, positions=torch.arange(60).reshape(20, 3).T[:, :11], pictures=1)
    counted = replace(plain, row="Zeile ß", positions=torch.zeros(0, 24, dtype=torch.int64))
    other = replace(shown, row="other", labels=shown.labels.flip(0))
    paired = replace(shown, images={**shown.images}, rejected=other)
    kept = SharedRows(4, 1 << 20)
    for number, row in enumerate([plain, placed, counted, paired]):
        assert kept.get(number) is None
        kept.put(number, row)
    for number, row in enumerate([plain, placed, counted, paired]):
        found = kept.get(number)
        assert found is not None
        assert same(found, row)
        assert not same(found, replace(row, row="another"))
    pair = kept.get(3)
    assert pair is not None
    assert pair.rejected is not None
    assert pair.rejected.images["pixel_values"] is pair.images["pixel_values"], "held once"


def test_a_row_that_is_there_takes_no_more_room() -> None:
    row, other = row_at(1), row_at(2)
    # Beside their tensors rows take the names of these.
    kept = SharedRows(2, row.nbytes + other.nbytes + 2000)
    for _ in range(3):
        kept.put(0, row)
    kept.put(1, other)
    assert kept.get(1) is not None


class Rows:
    """Rows by number, as a split gives them: numbers in place of rows."""

    def __len__(self) -> int:
        return NUMBER_OF_ROWS

    def __getitem__(self, number: int) -> int:
        return number

    def epoch(self) -> list[int]:
        return list(range(NUMBER_OF_ROWS))


class Noting:
    """Encodes numbers; each is noted in a file, whichever process asks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def encode(self, number: int) -> Encoded:
        note(self.path, number)
        return row_at(number)

    def asked(self) -> Counter[int]:
        return asked(self.path)


def note(path: Path, number: int) -> None:
    # One write to the end of a file is whole, whoever else writes there.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{number}\n".encode())
    os.close(file)


def asked(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text().split()))


def two_epochs(rows: EncodedRows, workers: int) -> list[Encoded]:
    """What a loader gives in two epochs, each in an order of its own."""
    shown = training_rows(rows)
    loader = DataLoader(
        shown,  # pyright: ignore[reportArgumentType]
        batch_size=2,
        # The loader draws from its own generator as often as it starts workers.
        sampler=RandomSampler(shown, generator=torch.Generator().manual_seed(5)),
        collate_fn=list,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return [row[COLUMN] for _ in range(2) for batch in loader for row in batch]


@pytest.fixture
def noting(tmp_path: Path) -> Noting:
    return Noting(tmp_path / "encoded")


def test_each_row_is_encoded_once_for_all_workers(noting: Noting) -> None:
    given = two_epochs(EncodedRows(Rows(), noting, workers=2), workers=2)
    assert noting.asked() == Counter(range(NUMBER_OF_ROWS))
    noting.path.unlink()
    alone = two_epochs(EncodedRows(Rows(), noting), workers=0)
    assert noting.asked() == Counter(range(NUMBER_OF_ROWS))
    assert len(given) == len(alone) == 2 * NUMBER_OF_ROWS
    assert all(same(*pair) for pair in zip(given, alone, strict=True))


def test_all_workers_together_keep_to_the_limit(noting: Noting) -> None:
    largest = max(row_at(number).nbytes for number in range(NUMBER_OF_ROWS))
    rows = EncodedRows(Rows(), noting, cache_bytes=4 * largest, workers=2)
    two_epochs(rows, workers=2)
    assert rows.shared is not None
    kept = [number for number in range(NUMBER_OF_ROWS) if rows.shared.get(number) is not None]
    assert 0 < len(kept) < NUMBER_OF_ROWS
    assert sum(row_at(number).nbytes for number in kept) <= 4 * largest
    assert noting.asked() == Counter(range(NUMBER_OF_ROWS)) + Counter(set(range(NUMBER_OF_ROWS)) - {*kept})
    none = EncodedRows(Rows(), noting, cache_bytes=0, workers=2)
    assert none.shared is not None
    none({"row": [0]})
    assert none.shared.get(0) is None


def test_the_row_that_fills_is_the_first_one_without_labels(noting: Noting) -> None:
    rows = EncodedRows(Rows(), noting, workers=2)
    ((filler,), (first,)) = (rows({"row": [number]})[COLUMN] for number in (FILLER, 0))
    assert bool((filler.labels == IGNORED).all())
    assert same(first, row_at(0))


@pytest.fixture(scope="module")
def alone(new_training: TrainingMaker) -> Training:
    training = new_training(**SETTINGS)
    training.run()
    return training


@pytest.fixture
def encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trainings have two workers, as on a GPU; the file names each row when it is encoded."""
    path = tmp_path / "encoded"
    encode = EncodedRows.encoded

    def arguments(*given: Any) -> SFTConfig:
        made = training_arguments(*given)
        made.dataloader_num_workers, made.dataloader_persistent_workers = 2, True
        return made

    def noted(self: EncodedRows, number: int) -> tuple[int, Encoded]:
        note(path, number)
        return encode(self, number)

    monkeypatch.setattr(finetune.train, "training_arguments", arguments)
    monkeypatch.setattr(EncodedRows, "encoded", noted)
    return path


@pytest.mark.slow
def test_a_training_with_workers_is_the_same(
    new_training: TrainingMaker, alone: Training, encoded: Path
) -> None:
    training = new_training(**SETTINGS)
    assert training.losses() == alone.losses()
    assert training.run().id == alone.run().id
    rows = training.dataset.body["rows"]["train"]
    assert asked(encoded) == Counter(range(rows))
    assert 2 * rows < 10 * 16


@pytest.mark.slow
def test_packed_and_resumed_it_is_the_same(
    new_training: TrainingMaker, alone: Training, encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training(**SETTINGS, train__pack_length=600)
    broken_after(6, training, monkeypatch)
    first = asked(encoded)
    assert max(first.values()) == 1
    assert training.losses() == pytest.approx(alone.losses(), abs=1e-5)
    assert training.run().record()["resumed_at"] == 6
    # The process that goes on has forgotten them.
    assert max((asked(encoded) - first).values()) == 1
