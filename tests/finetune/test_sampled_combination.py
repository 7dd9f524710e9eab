"""The merge proof of several adapters on a model that cannot be held: their combination, matrix by matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.proving import blocks, form
from tests.finetune.merged import as_bfloat16, walk
from tests.finetune.test_combined_proof import (
    Several,
    density_ignored,
    doubled,
    one_left_out,
    order_changed,
    run_alone,
    signs_not_elected,
    two_more,
)

pytestmark = pytest.mark.slow
METHODS = {
    "linear": {},
    "ties": {"density": 0.4},
    "dare_linear": {"density": 0.4, "seed": 3},
    "dare_ties": {"density": 0.4, "seed": 3},
}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Several:
    folder = tmp_path_factory.mktemp("several")
    return two_more(walk(folder, tiny_base, bank_forms, as_bfloat16))


@pytest.fixture(scope="module")
def ties(several: Several) -> Several:
    return several.asking("ties", density=0.4)


@pytest.fixture(autouse=True)
def too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    # Several blocks a matrix.
    monkeypatch.setattr(blocks, "_BLOCK", 64 * 128)


@pytest.mark.parametrize("method", METHODS)
def test_a_sound_combination_passes(several: Several, method: str) -> None:
    statement = several.asking(method, **METHODS[method]).prove().statement
    assert statement["findings"] == []
    assert "sampled" in statement["form"]
    assert statement["combination"]["weights"] == [0.7, 0.5, 0.3]
    assert [statement[role]["used_once"] for role in ("adapter", "adapter_1", "adapter_2")] == [52, 36, 78]
    weights = statement["weights"]
    assert weights["sampled"] == weights["bit_equal"] == weights["matrices"] == weights["changed"] == 26
    assert statement["logits"]["computed"] is False


@pytest.mark.parametrize(
    "fault", [doubled, one_left_out, signs_not_elected, density_ignored, order_changed, run_alone]
)
def test_planted_faults_fail(ties: Several, fault: Callable[[Several, Path], None]) -> None:
    statement = ties.planted(fault.__name__, lambda root: fault(ties, root)).prove().statement
    (finding,) = statement["findings"]
    assert "merged matrices differ from the definition" in finding


def test_other_draws_fail(several: Several) -> None:
    drawn = several.asking("dare_linear", density=0.4, seed=3)
    statement = drawn.planted("draws", lambda root: drawn.write(root, seed=2)).prove().statement
    assert "26 merged matrices differ from the definition" in statement["findings"][0]
