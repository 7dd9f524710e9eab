"""A model that learned an exam's rows is noticed, by group and by picture, through whatever made it."""

from __future__ import annotations

import json

import pytest

from lensmith.artifact import Artifact
from lensmith.dataset import HELD_OUT_FILE, split_file
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.overlap import check_unlearned, learned_rows
from lensmith.row_file import Row, write_rows
from lensmith.sample import Image, Message, Sample, Text


def row(name: str, group: str, digest: str) -> Row:
    asked = Message("user", (Image(f"{name}.png", digest, (8, 8)), Text("Read.")))
    return Row(Sample(name, group, (asked, Message("assistant", (Text("7"),)))), (b"png",))


@pytest.fixture
def model(home: Home) -> Artifact:
    """A model, made from a run, made from a dataset of two training rows and a validation row."""
    with home.create("dataset", "a" * 64, {}) as dataset:
        write_rows(
            dataset.path / split_file("train"), [row("a", "customer-1", "aa"), row("b", "customer-2", "bb")]
        )
        write_rows(dataset.path / split_file("validation"), [row("c", "customer-3", "cc")])
    with home.create("run", "b" * 64, {"dataset": dataset.artifact}) as run:
        pass
    with home.create("model", "c" * 64, {"run": run.artifact}) as merged:
        pass
    return merged.artifact


def exam(home: Home, *rows: Row) -> Artifact:
    with home.create("held_out", "d" * 64, {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, rows)
        draft.body.update(rows=len(rows))
    return draft.artifact


def test_another_exam_is_fair(home: Home, model: Artifact) -> None:
    # What only stood in validation was not learned.
    assert learned_rows(home, model, exam(home, row("d", "customer-3", "cc"), row("e", "new", "ee"))) == 0


def test_rows_of_learned_groups_and_pictures_count_once_each(home: Home, model: Artifact) -> None:
    sealed = exam(
        home,
        row("d", "customer-1", "dd"),
        row("e", "new", "bb"),
        row("f", "customer-2", "aa"),
        row("g", "new", "ff"),
    )
    assert learned_rows(home, model, sealed) == 3
    reads = [json.loads(line) for line in (home.root / "held_out_reads.jsonl").read_text().splitlines()]
    assert [read["reason"] for read in reads] == ["whether the model in production was trained on its rows"]


def test_a_base_learned_nothing_that_is_known(home: Home, model: Artifact) -> None:
    with home.create("base", "e" * 64, {}) as base:
        pass
    assert learned_rows(home, base.artifact, exam(home, row("d", "customer-1", "aa"))) == 0
    assert not (home.root / "held_out_reads.jsonl").exists()


def test_what_is_merged_must_not_know_the_exam(home: Home, model: Artifact) -> None:
    with home.create("adapter", "e" * 64, {}) as outside:
        pass
    sealed = exam(home, row("d", "customer-1", "dd"), row("e", "new", "ee"))
    check_unlearned(home, [outside.artifact], sealed)
    with pytest.raises(InputError, match="has learned rows of this recipe's exam") as caught:
        check_unlearned(home, [outside.artifact, model], sealed)
    assert f"{model.short}: was trained on 1 of the 2 rows" in str(caught.value)
    assert outside.artifact.short not in str(caught.value)
