"""Which matrices of a large model are looked at, and how likely a fault is missed."""

from __future__ import annotations

import itertools
from math import comb

import pytest

from finetune.proving.sample import Matrix, choose, missed

SEED = "a model's id"


def matrices() -> list[Matrix]:
    """Three layers of eight experts, a linear each in two towers, embeddings; a shard a layer."""
    found = [Matrix("embed_tokens.weight", "embed_tokens.weight", 0, 9, "layer-0", "language", always=True)]
    for layer in range(3):
        for tower, name in itertools.product(("vision", "language"), ("q", "v")):
            whole = f"{tower}.{layer}.{name}.weight"
            found.append(Matrix(whole, whole, 0, 4, f"layer-{layer}", tower))
        for parameter, number in itertools.product(("gate_up", "down"), range(8)):
            disk = f"language.{layer}.experts.{parameter}"
            found.append(Matrix(f"{disk}[{number}]", disk, number, 1, f"layer-{layer}", "language", disk))
    return found


def test_something_of_everything_is_looked_at_whatever_is_drawn() -> None:
    every = matrices()
    chosen = choose(every, SEED, 0).matrices
    assert every[0] in chosen
    for of in ("shard", "kind", "experts"):
        assert {getattr(each, of) for each in chosen} == {getattr(each, of) for each in every}
    assert len(chosen) < len(every) / 2


def test_the_models_id_draws() -> None:
    every = matrices()
    drawn = choose(every, SEED, 12)
    assert drawn == choose(every[::-1], SEED, 12), "in whatever order they come"
    assert {each.name for each in drawn.matrices} != {
        each.name for each in choose(every, "another's", 12).matrices
    }
    assert drawn.facts() | {"all_missed_of": {}} == {
        "matrices": 61,
        "sampled": len(drawn.matrices),
        "drawn": 12,
        "drawn_by": "SHA-256 of the model's id and the matrix's name",
        "all_missed_of": {},
    }
    assert choose(every, SEED, 10_000).drawn == 61
    assert len(choose(every, SEED, 10_000).matrices) == 61


def test_every_matrix_is_drawn_as_often() -> None:
    every = [Matrix(f"linear.{at}", f"linear.{at}", 0, 4, "one", "language") for at in range(61)]
    counts = dict.fromkeys((each.name for each in every), 0)
    for seed in range(400):
        for each in choose(every, str(seed), 20).matrices:
            counts[each.name] += 1
    # 20 of 61 are 131 of 400; five standard deviations are 47.
    assert all(84 < count < 178 for count in counts.values()), counts


@pytest.mark.parametrize("wrong", [1, 2, 10, 41, 42, 61])
def test_how_likely_all_are_missed(wrong: int) -> None:
    exact = comb(61 - wrong, 20) / comb(61, 20)
    assert missed(61, 20, wrong) == pytest.approx(exact, rel=1e-2)


def test_what_the_constant_claims() -> None:
    """24,064 matrices of Qwen3-VL-235B-A22B's experts, 1,024 of them drawn."""
    assert 1 / missed(94 * 128 * 2, 1024, 240) == pytest.approx(35_000, rel=0.1)
