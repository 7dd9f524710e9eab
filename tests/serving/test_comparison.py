"""Equality of one row: each check has a mutant that only it can find."""

from __future__ import annotations

from typing import Any

import pytest

from lensmith.trace import TraceRow
from serving.comparison import Bounds, compare, first_difference, is_live

EXACT = Bounds(margin=0.0, logprob=1e-3, source="test")
ROUGH = Bounds(margin=0.25, logprob=0.1, source="test")
PAD = 9


def row(**changes: Any) -> TraceRow:
    content = {
        "row": "form-1",
        "group": "customer-1",
        "image_digests": ["a" * 64],
        "prompt_ids": [1, PAD, PAD, PAD, PAD, 2, 3],
        "image_tokens": 4,
        "answer_ids": [5, 6, 7],
        "answer_text": "567",
        "answer_logprobs": [-0.1, -0.2, -0.3],
        "margins": [2.0, 0.2, 3.0],
        "finish": "stop",
    }
    return TraceRow.model_validate(content | changes)


def kinds(served: TraceRow, reference: TraceRow, bounds: Bounds = EXACT) -> list[str]:
    return [each.what for each in compare(served, reference, None, bounds).differences]


def test_equal_rows_are_equal() -> None:
    compared = compare(row(), row(answer_logprobs=[-0.1, -0.2, -0.3005]), None, EXACT)
    assert compared.differences == ()
    assert not compared.allowed
    assert compared.noise == pytest.approx(5e-4)


def test_another_picture() -> None:
    assert kinds(row(), row(image_digests=["b" * 64])) == ["image"]


def test_another_pixel_budget_is_not_called_another_template() -> None:
    served = row(prompt_ids=[1, PAD, PAD, 2, 3], image_tokens=2)
    (difference,) = compare(served, row(), None, EXACT).differences
    assert difference.what == "image tokens"
    assert "pixel budget" in difference.cause
    assert difference.detail == "2, 4 in the reference"


def test_another_template() -> None:
    (difference,) = compare(row(prompt_ids=[1, PAD, PAD, PAD, PAD, 2, 4]), row(), None, EXACT).differences
    assert difference.what == "prompt"
    assert "chat template" in difference.cause
    assert "first at token 6: 4, 3 in the reference" in difference.detail


def test_a_longer_prompt_is_another_prompt() -> None:
    assert kinds(row(prompt_ids=[*row().prompt_ids, 3]), row()) == ["prompt"]


def test_budget_and_template_are_both_named() -> None:
    served = row(prompt_ids=[1, 1, 7, PAD, PAD, 2, 3], image_tokens=2)
    assert kinds(served, row()) == ["image tokens", "prompt"]


def test_another_answer() -> None:
    assert kinds(row(answer_ids=[5, 6, 8]), row()) == ["answer"]
    assert kinds(row(answer_ids=[5, 6]), row()) == ["answer"]
    assert kinds(row(answer_ids=[5, 6, 7, 8]), row()) == ["answer"]


def test_float32_allows_no_difference_however_small_the_lead() -> None:
    assert kinds(row(answer_ids=[5, 8, 7]), row(margins=[2.0, 1e-9, 3.0])) == ["answer"]


def test_low_precision_may_part_only_where_the_reference_was_undecided() -> None:
    parted = compare(row(answer_ids=[5, 8, 8]), row(), None, ROUGH)
    assert parted.allowed
    assert parted.differences == ()
    # The lead of 3.0 at the last token decides.
    assert kinds(row(answer_ids=[5, 6, 8]), row(), ROUGH) == ["answer"]
    assert kinds(row(answer_ids=[5, 6, 7, 8]), row(), ROUGH) == ["answer"]


def test_log_probabilities_up_to_the_first_difference_agree() -> None:
    assert kinds(row(answer_logprobs=[-0.1, -0.4, -0.3]), row()) == ["log-probability"]
    assert kinds(row(answer_logprobs=[-0.1, -0.4, -0.3]), row(), ROUGH) == ["log-probability"]
    # After the first difference both answer different texts.
    assert kinds(row(answer_ids=[5, 8, 8], answer_logprobs=[-0.1, -2.0, -2.0]), row(), ROUGH) == []


def test_the_base_s_answer_is_called_an_adapter_not_applied() -> None:
    base = row(answer_ids=[5, 6, 8])
    (difference,) = compare(base, row(), base, EXACT).differences
    assert "the adapter is not applied" in difference.cause
    (difference,) = compare(row(answer_ids=[5, 6, 4]), row(), base, EXACT).differences
    assert "a part of the adapter left out" in difference.cause


def test_what_an_engine_does_with_images_is_named_for_rows_with_images() -> None:
    changed = {"answer_ids": [5, 6, 4]}
    (difference,) = compare(row(**changed), row(), None, EXACT, "causal over images").differences
    assert difference.cause == "causal over images"
    far = row(answer_logprobs=[-0.1, -0.2, -0.4])
    (difference,) = compare(far, row(), None, EXACT, "causal over images").differences
    assert difference.cause == "causal over images"
    text = {"prompt_ids": [1, 2], "image_tokens": 0, "image_digests": []}
    (difference,) = compare(
        row(**text, **changed), row(**text), None, EXACT, "causal over images"
    ).differences
    assert "other weights" in difference.cause
    base = row(**changed)
    (difference,) = compare(base, row(), base, EXACT, "causal over images").differences
    assert "the adapter is not applied" in difference.cause


def test_a_token_that_was_not_the_most_probable_fails_in_any_precision() -> None:
    """Where the reference was undecided, too: no noise puts a token before a more probable one."""
    sampled = row(answer_ids=[5, 8, 8], margins=[2.0, -0.01, 3.0])
    for bounds in (EXACT, ROUGH):
        (difference,) = compare(sampled, row(), None, bounds).differences
        assert (difference.what, "generation_config.json" in difference.cause) == ("greedy decoding", True)
        assert "token 1 was 0.01 nats less probable" in difference.detail


def test_an_answer_is_live_where_it_parts_from_the_base_s_beyond_noise() -> None:
    base = row(margins=[2.0, 0.2, 3.0])
    assert not is_live(row(), base, EXACT)
    assert is_live(row(answer_ids=[5, 8, 8]), base, EXACT)
    assert not is_live(row(answer_ids=[5, 8, 8]), base, ROUGH), "the base itself was undecided there"
    assert is_live(row(answer_ids=[5, 6, 8]), base, ROUGH)
    assert is_live(row(answer_ids=[5, 6, 7, 8]), base, ROUGH)


def test_first_difference() -> None:
    assert first_difference([], []) is None
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1, 3]) == 1
    assert first_difference([1], [1, 3]) == 1
