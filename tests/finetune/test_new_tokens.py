"""New tokens from the recipe to the merged model: their rows are trained, no other; all read them alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.auto.tokenization_auto import AutoTokenizer

from finetune.adapted import load_trained
from finetune.greedy import end_ids, greedy
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.model import load_processor
from finetune.new_tokens import read_new_tokens
from finetune.plan import plan
from finetune.proving import blocks, form, sample
from lensmith.base import pin_base
from lensmith.dataset import read_held_out
from tests.artifacts import make_held_out
from tests.finetune.conftest import Training, TrainingMaker, assert_same_run
from tests.finetune.merged import Walk, as_bfloat16, planted
from tests.finetune.test_train import broken_after
from tests.roomy import EMBEDDINGS, HEAD, IDS, TOKENS

WEIGHTS = "adapter_model.safetensors"
FULL = {"vision": "freeze", "connector": "freeze", "language": "train"}


def whole(training: Training, forms: Path) -> Walk:
    base = pin_base(training.recipe, training.home)
    run = training.run()
    model = merge(training.recipe, training.home, base, run)
    return Walk(training.recipe, training.home, base, run, model, make_held_out(training.home, forms, 12))


def prove(walk: Walk) -> tuple[bool, str]:
    proof = prove_merge(walk.recipe, walk.home, walk.base, walk.run, walk.model, walk.held_out)
    return proof.passed, "\n".join(proof.statement["findings"])


@pytest.fixture(scope="session")
def learned(new_training: TrainingMaker, roomy: Path, bank_forms: Path) -> Walk:
    """Taught for long enough to say new tokens."""
    settings = {"train__max_steps": 25, "train__learning_rate": 0.02, "train__save_every": 25}
    return whole(new_training(base__path=roomy, train__new_tokens=TOKENS, **settings), bank_forms)


def changed_rows(base: Path, model: Path, name: str) -> list[int]:
    before, after = (load_file(root / "model.safetensors")[name] for root in (base, model))
    assert before.shape == after.shape
    return (before != after).any(1).nonzero().flatten().tolist()


@pytest.mark.slow
def test_exactly_these_rows_change(learned: Walk, roomy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert learned.run.body["new_tokens"] == IDS
    for name in (EMBEDDINGS, HEAD):
        assert changed_rows(roomy, learned.model.path, name) == list(IDS.values())
    assert prove(learned) == (True, "")
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    # Embeddings and head are read to their last row.
    monkeypatch.setattr(sample, "DRAWN", 0)
    monkeypatch.setattr(blocks, "_BLOCK", 100 * 128)
    assert prove(learned) == (True, "")


@pytest.mark.slow
def test_the_model_answers_in_new_tokens(learned: Walk, new_training: TrainingMaker, roomy: Path) -> None:
    """What is taught is one id a token: an answer is shorter by their pieces, and written with them."""
    trained = load_trained(roomy, learned.run.path, torch.float32)
    processor, ends = load_processor(roomy, None, TOKENS), end_ids(roomy, trained)
    rows = read_held_out(learned.home, learned.held_out, "test")[:2]
    answers = list(greedy(trained, processor, learned.recipe.rendering, rows, ends, 8))
    assert len(answers) == 2
    for each in answers:
        (said,) = (token for token, number in IDS.items() if number == each.answer_ids[0])
        assert each.answer_text.startswith(said)
    plain = new_training(base__path=roomy)
    ours, theirs = (plan(each.recipe, plain.dataset) for each in (learned, plain))
    saved = sum(len(pieces) - 1 for pieces in read_new_tokens(roomy, TOKENS).pieces.values())
    # Where a piece also began or ended with what stands beside it, a little less.
    least = ours.rows.rows * (saved - len(TOKENS))
    assert theirs.rows.answer_tokens - ours.rows.answer_tokens >= least > 0
    assert ours.new_tokens == IDS


def on_added(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        path = root / "tokenizer.json"
        content = json.loads(path.read_bytes())
        change(content["added_tokens"])
        path.write_text(json.dumps(content))

    return fault


def swapped(added: list[dict[str, Any]]) -> None:
    added[-1]["content"], added[-2]["content"] = added[-2]["content"], added[-1]["content"]


def missing(added: list[dict[str, Any]]) -> None:
    del added[-1]


def special(added: list[dict[str, Any]]) -> None:
    added[-1]["special"] = True


def one_more(added: list[dict[str, Any]]) -> None:
    added.append(added[-1] | {"id": added[-1]["id"] + 1, "content": "<one_more>"})


def on_rows(name: str, number: int) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        tensors = load_file(root / "model.safetensors")
        tensors[name][number] += 0.01
        save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})

    return fault


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "swapped": (on_added(swapped), "2 new tokens are not read or written as trained"),
    "missing": (
        on_added(missing),
        "the tokenizer has other tokens than the base's and the",
    ),
    "special": (on_added(special), "1 new tokens are not read or written as trained"),
    "one_more": (on_added(one_more), "differ from the base's in more than the new tokens: tokenizer.json"),
    "other_row": (on_rows(EMBEDDINGS, 7), f"merged tensors differ from the definition: {EMBEDDINGS}"),
    "new_row": (on_rows(HEAD, 1025), f"merged tensors differ from the definition: {HEAD}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_proof_finds(learned: Walk, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, words = FAULTS[name]
    broken = planted(learned, name, fault)
    passed, text = prove(broken)
    assert not passed
    assert words in text
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    passed, text = prove(broken)
    assert not passed
    assert words.replace("merged tensors", "merged matrices") in text


@pytest.mark.slow
def test_one_matrix_for_both_in_bfloat16(
    new_training: TrainingMaker,
    tied: Path,
    bank_forms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tied, in another dtype than the rows are trained in, and stored a second time all the same."""
    shutil.copytree(tied, tmp_path / "base")
    tensors = load_file(tied / "model.safetensors")
    save_file(tensors | {HEAD: tensors[EMBEDDINGS].clone()}, tmp_path / "base" / "model.safetensors")
    as_bfloat16(tmp_path / "base")
    made = whole(
        new_training(base__path=tmp_path / "base", train__new_tokens=TOKENS, train__dtype="bfloat16"),
        bank_forms,
    )
    assert len([name for name in load_file(made.run.path / WEIGHTS) if "trainable_tokens" in name]) == 1
    for name in (EMBEDDINGS, HEAD):
        assert changed_rows(tmp_path / "base", made.model.path, name) == list(IDS.values())
    assert prove(made) == (True, "")
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    assert prove(made) == (True, "")


@pytest.mark.slow
def test_full_trains_them_with_the_rest(new_training: TrainingMaker, roomy: Path, bank_forms: Path) -> None:
    settings = {"train__method": "full", "train__towers": FULL, "train__new_tokens": TOKENS}
    made = whole(new_training(base__path=roomy, **settings, train__learning_rate=0.0001), bank_forms)
    new = read_new_tokens(roomy, TOKENS)
    before, after = (load_file(root / "model.safetensors") for root in (roomy, made.model.path))
    for name in (EMBEDDINGS, HEAD):
        for token, number in IDS.items():
            start = before[name][new.pieces[token]].mean(0)
            assert 0 < float((after[name][number] - start).abs().max()) < 0.001
    assert prove(made) == (True, "")
    # The run is a whole checkpoint of its own, with the tokenizer that it was taught with.
    assert read_vocabulary(made.run.path) == read_vocabulary(made.model.path)


def read_vocabulary(root: Path) -> dict[str, int]:
    return AutoTokenizer.from_pretrained(root, local_files_only=True).get_vocab()


@pytest.mark.slow
def test_packed_and_resumed_it_learns_the_same(
    new_training: TrainingMaker, roomy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"base__path": roomy, "train__new_tokens": TOKENS}
    unbroken = new_training(**settings)
    losses = unbroken.losses()
    assert new_training(**settings, train__pack_length=1024).losses() == pytest.approx(losses, abs=1e-5)
    broken = new_training(**settings)
    broken_after(2, broken, monkeypatch)
    assert_same_run(broken, unbroken)
    assert broken.run().record()["resumed_at"] == 2
