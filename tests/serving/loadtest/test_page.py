"""The page shows every level, both sides, and nothing that a name could smuggle in."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.loadtest.page import _round_up, ratio, write_page
from serving.loadtest.result import Load, LoadTest, Side
from tests.serving.loadtest.results import measured, result


def shown(folder: Path, test: LoadTest) -> str:
    write_page(folder, test)
    return (folder / "page.html").read_text()


def against(test: LoadTest, side: Side, **more: object) -> LoadTest:
    return test.model_copy(update={"against": side.model_copy(update=more)})


def test_one_release(tmp_path: Path) -> None:
    page = shown(
        tmp_path, result([measured(1), measured(2, failures=3), measured(4, output_tokens_per_s=81)])
    )
    assert "Load test of bank-forms" in page
    assert page.count("<polyline") == 5
    assert "4 in flight</strong>" in page, "where it is saturated"
    assert "10 / 30 / 60" in page
    assert 'class="bad">3<' in page
    assert "Against each other" not in page
    assert "<span>tokens a second at most" in page
    assert "2 CPU cores" in page


def test_merged_against_adapter(tmp_path: Path) -> None:
    test = result([measured(1), measured(2)])
    level = measured(1, output_tokens_per_s=32.0, failures=2)
    both = against(test, test.side, mode="adapter", levels=[level])
    assert ratio(both) == [(Load(concurrency=1), 1.25)]
    page = shown(tmp_path, both)
    assert "throughput of merged over adapter" in page
    assert page.count("<polyline") == 10
    assert "merged: tokens a second at most" in page
    assert 'class="bad">2</strong><span>of 120 requests failed' in page, "of either"
    same_mode = shown(tmp_path, against(test, test.side, release="d" * 64))
    assert f"merged {'d' * 12}" in same_mode


def test_rates_and_levels_without_an_answer(tmp_path: Path) -> None:
    rate = measured(1, load=Load(rate=2.5))
    none = measured(
        1,
        load=Load(rate=5.0),
        failures=40,
        output_tokens_per_s=0.0,
        first_token_ms=None,
        between_tokens_ms=None,
        latency_ms=None,
    )
    page = shown(tmp_path, result([rate, none]))
    assert "requests a second" in page
    assert "2.5 a second" in page


def test_names_are_text(tmp_path: Path) -> None:
    hostile = result([measured(1)]).model_copy(update={"name": "<script>alert(1)</script>"})
    assert "<script>" not in shown(tmp_path, hostile)


@pytest.mark.parametrize(
    ("value", "top"), [(0.3, 0.4), (1, 1), (7, 8), (81, 100), (410, 500), (1e-9, 1e-9), (0.0, 1.0)]
)
def test_scales_end_above_every_value(value: float, top: float) -> None:
    assert _round_up(value) == pytest.approx(top)
    assert _round_up(value) >= value
