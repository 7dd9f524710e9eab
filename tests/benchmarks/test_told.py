"""What the pages tell of the benchmarks is what was measured last, and keeps what was promised."""

from __future__ import annotations

import re

import pytest

from benchmarks.merge_proof import MORE_MB
from tests.benchmarks.runs import committed
from tests.conftest import ROOT

# By the beginning of a line of docs/training.md what of a committed result stands in it, in this order.
TABLE: list[tuple[str, str, str]] = [
    (
        "tiny model, mixed images and answers, LoRA on the language model with frozen towers: samples",
        "train_small",
        "{ours:.1f} {baseline:.1f} {ratio:.1f}",
    ),
    ("the same: peak memory", "train_small", "{ours_peak_mb:,} {baseline_peak_mb:,}"),
    (
        "the same, LoRA on all linears, those of the towers too: samples a second",
        "train_small",
        "{ratio_all:.1f}",
    ),
    ("vocabulary of 151,936: samples", "train_vocab", "{ours:.1f} {baseline:.2f} {ratio:.1f}"),
    ("vocabulary of 151,936: peak", "train_vocab", "{ours_peak_mb:,} {baseline_peak_mb:,}"),
    (
        "merging 4.26",
        "merge_dense",
        "{ours:.1f} {ours_peak_mb:,} {baseline:.1f} {baseline_peak_mb:,} {ratio:.1f}",
    ),
    (
        "merging 6.06",
        "merge_fused",
        "{ours:.1f} {ours_peak_mb:,} {baseline:.1f} {baseline_peak_mb:,} {ratio:.1f}",
    ),
    (
        "merging 5.73",
        "merge_apart",
        "{ours:.1f} {ours_peak_mb:,} {baseline:.1f} {baseline_peak_mb:,} {ratio:.1f}",
    ),
    (
        "merging 7.07",
        "merge_double",
        "{ours:.1f} {ours_peak_mb:,} {baseline:.1f} {baseline_peak_mb:,} {ratio:.1f}",
    ),
    ("`plan` on 100,000 rows", "plan", "{ours:.0f} {baseline:,.0f} {ratio:.0f}"),
    ("first step after a resume", "resume", "{ours:.1f} {baseline:.1f} {ratio:.2f}"),
]
TEXT: list[tuple[str, str, str]] = [
    (
        "training.md",
        "train_peer",
        "{ours:.1f} against {baseline:.1f} samples a CPU second, {ratio:.1f} times",
    ),
    ("training.md", "train_peer", "losses of {ours_loss:.2f} and {baseline_loss:.2f} nats"),
    ("training.md", "train_peer", "in {ours_peak_mb:,} against {baseline_peak_mb} MB"),
    ("ml-engineers.md", "predict_large", "{ratio:.1f} times as fast as transformers' `generate` one by one"),
    ("ml-engineers.md", "predict_large", "and {ratio_batched:.1f} times as fast as in batches of 32"),
    ("ml-engineers.md", "predict_large", "({ratio_with_start:.2f} and {ratio_batched_with_start:.1f} times"),
]


@pytest.mark.parametrize(("begin", "name", "figures"), TABLE)
def test_a_line_of_the_table(begin: str, name: str, figures: str) -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith(f"| {begin}")]
    assert len(lines) == 1
    behind = lines[0].partition("|")[2].partition("|")[2]
    told = re.findall(r"\d[\d,]*(?:\.\d+)?", behind)
    wanted = figures.format(**committed(name)).split()
    assert told[: len(wanted)] == wanted


@pytest.mark.parametrize(("page", "name", "words"), TEXT)
def test_a_sentence(page: str, name: str, words: str) -> None:
    text = " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())
    assert words.format(**committed(name)) in text


def test_what_was_promised() -> None:
    small, vocabulary, predict = map(committed, ("train_small", "train_vocab", "predict_large"))
    merges = [committed(f"merge_{case}") for case in ("dense", "fused", "apart", "double")]
    assert small["ratio"] >= small["asked_ratio"] == 2.0
    # What the promise is of; with the towers' linears it is kept less, which is told beside it.
    assert small["adapted"] == "language"
    assert 1.0 < small["ratio_all"] < small["ratio"]
    assert vocabulary["ratio"] >= vocabulary["asked_ratio"] == 4.0
    assert vocabulary["ours_peak_mb"] <= 0.5 * vocabulary["baseline_peak_mb"]
    for each in merges:
        assert each["ratio"] >= 5.0
        assert each["of_a_copy"] <= 1.5
        assert each["ours_peak_mb"] <= 500
    proof = committed("merge_proof_dense")
    assert proof["ratio"] > 1.0
    for way in ("lora", "ties"):
        assert proof[f"{way}_proof_peak_mb"] - proof[f"{way}_imports_peak_mb"] <= MORE_MB
    assert predict["ratio"] >= predict["asked_ratio"] == 4.0
    assert predict["ratio_batched"] >= predict["asked_ratio_batched"] == 1.7
