"""What the peer leaves behind is read, and a run that trained something else is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peer, peer_environment
from benchmarks.train_peer import TASK, TOLERANCE, check, ratio_of, speeds, walls
from tests.benchmarks.runs import KEYS, committed

SMALL = replace(TASK, rows=8, epochs=2, step=4, batch=2)
LOG = """\
Will use dtype=torch.float32 as defined in model's config object
Using torch SDPA for faster training and inference.
Set vision model not trainable: ['visual.blocks'].
Set multi model projector not trainable: ['visual.merger'].
trainable params: 71,680 || all params: 2,637,824 || trainable%: 2.7174
"""
ROWS = [([5, 6, 7], [-100, 6, 7]), ([5, 8], [-100, 8])]
THEIRS = [{"input_ids": [*ids, 3], "labels": [*labels, 3]} for ids, labels in ROWS]
SHAPES: dict[str, tuple[int, ...]] = {"q.lora_A": (8, 128), "q.lora_B": (128, 8)}


def leave(out: Path, log: str = LOG, steps: int = 4) -> Path:
    """What a run of `SMALL` leaves in the directory `out`."""
    (out / "trained").mkdir()
    (out / "log.txt").write_text(log)
    (out / "trained/trainer_state.json").write_text(json.dumps({"global_step": steps}))
    (out / "trained/train_results.json").write_text(json.dumps({"train_runtime": 8.0}))
    return out


def test_a_run_is_read_by_its_own_clock(tmp_path: Path) -> None:
    assert peer.read(leave(tmp_path), SMALL, 7.0, 900.0) == peer.Run(2.0, 7.0, 900.0, 71_680)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Will use dtype", "float32 weights"),
        ("Using torch SDPA", "sdpa attention"),
        ("Set vision model", "the vision tower frozen"),
        ("Set multi model", "the connector frozen"),
        ("trainable params", "how many parameters it trains"),
    ],
)
def test_a_log_that_does_not_say_it_is_refused(tmp_path: Path, line: str, told: str) -> None:
    log = "\n".join(each for each in LOG.splitlines() if not each.startswith(line))
    with pytest.raises(SystemExit, match=told):
        peer.read(leave(tmp_path, log), SMALL, 7.0, 900.0)


def test_another_number_of_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="it made 3 steps, 4 were asked for"):
        peer.read(leave(tmp_path, steps=3), SMALL, 7.0, 900.0)


# In the place of the peer's interpreter: it computes for a while before its training begins, leaves a run.
STANDS_IN = """\
#!{python}
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[-1]).parent
(folder / "trained").mkdir()
while time.process_time() < 0.6:
    pass
print({log!r} + "***** Running training *****", flush=True)
time.sleep(0.3)
print("Training completed.", flush=True)
time.sleep(0.3)
(folder / "trained/trainer_state.json").write_text(json.dumps({{"global_step": 4}}))
(folder / "trained/train_results.json").write_text(json.dumps({{"train_runtime": 8.0}}))
"""


@pytest.mark.slow
def test_the_cpu_time_of_starting_up_does_not_count(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(STANDS_IN.format(python=sys.executable, log=LOG))
    python.chmod(0o755)
    run = peer.train(python, SMALL, tmp_path, tmp_path / "out")
    assert 0 <= run.cpu_s < 0.3
    assert run.peak_mb > 1


def test_a_peer_that_fails_is_told_with_its_last_lines(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such template; exit 3\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit, match="ended with 3:\nno such template"):
        peer.train(python, SMALL, tmp_path, tmp_path / "out")


def test_rows_are_the_same_but_for_what_ends_them() -> None:
    assert peer.same_rows(ROWS, THEIRS, [3]) == {"ours": 3, "baseline": 5}


@pytest.mark.parametrize(
    "theirs",
    [
        THEIRS[:1],
        [*THEIRS, THEIRS[0]],
        [THEIRS[0], {**THEIRS[1], "input_ids": [5, 9, 3]}],
        [THEIRS[0], {**THEIRS[1], "labels": [5, 8, 3]}],
        [{"input_ids": ids, "labels": labels} for ids, labels in ROWS],
    ],
    ids=["a row fewer", "a row more", "another token", "the question is taught", "the end is missing"],
)
def test_other_rows_are_refused(theirs: list[dict[str, Any]]) -> None:
    with pytest.raises(SystemExit, match="the peer"):
        peer.same_rows(ROWS, theirs, [3])


@pytest.mark.parametrize(
    "theirs",
    [
        {"q.lora_A": (8, 128)},
        {**SHAPES, "visual.lora_A": (8, 128)},
        {**SHAPES, "q.lora_A": (4, 128)},
    ],
    ids=["a linear fewer", "a linear more", "another rank"],
)
def test_another_adapter_is_refused(theirs: dict[str, tuple[int, ...]]) -> None:
    peer.same_adapter(SHAPES, dict(SHAPES))
    with pytest.raises(SystemExit, match=r"1 of 2 LoRA weights"):
        peer.same_adapter(SHAPES, theirs)


def test_another_loss_or_number_of_weights_is_refused() -> None:
    runs, judged = [peer.Run(2.0, 7.0, 900.0, 10)], {"loss": 0.5, "trainable": 10}
    check({"loss": 0.45}, runs, judged)
    with pytest.raises(SystemExit, match=r"0\.200 nats apart"):
        check({"loss": 0.3}, runs, judged)
    with pytest.raises(SystemExit, match=r"it trains \{9\} weights, ours are 10"):
        check({"loss": 0.45}, [peer.Run(2.0, 7.0, 900.0, 9)], judged)


def test_the_ratio_is_the_median_of_pairs() -> None:
    # Of the medians it would be 5: the second pair ran while the machine was busy.
    assert ratio_of([10.0, 2.0, 12.0], [5.0, 1.0, 2.0]) == 2.0


def test_a_pair_is_compared_by_cpu_seconds_and_by_the_wall() -> None:
    ours, theirs = [{"cpu_s": 4.0, "samples_per_s": 3.0}], [peer.Run(1.0, 8.0, 900.0, 10)]
    assert speeds(SMALL, ours, theirs) == [(4.0, 2.0)]
    assert walls(ours, theirs) == [(3.0, 1.0)]


def test_the_peer_is_asked_for_the_task(tmp_path: Path) -> None:
    given = peer.settings(SMALL, tmp_path, tmp_path)
    assert given["per_device_train_batch_size"] * given["gradient_accumulation_steps"] == SMALL.step
    with pytest.raises(ValueError, match="language model alone"):
        peer.settings(replace(SMALL, adapted="all"), tmp_path, tmp_path)


def test_it_gets_our_pictures_and_answers(tmp_path: Path) -> None:
    peer.write_rows(SMALL, tmp_path / "rows")
    rows = json.loads((tmp_path / "rows/rows.json").read_bytes())
    ours = peer.make_rows(SMALL.rows)
    assert [row["output"] for row in rows] == [row.sample.messages[1].text for row in ours]
    assert [(tmp_path / "rows" / row["images"][0]).read_bytes() for row in rows] == [
        row.images[0] for row in ours
    ]


def test_its_packages_are_pinned_and_our_torch_is_among_them() -> None:
    """Of another torch the kernels would be others."""
    pins = [
        line for line in peer_environment.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")
    ]
    assert all("==" in line for line in pins)
    ours = (peer_environment.ROOT / "requirements/cpu.txt").read_text().splitlines()
    assert [line for line in pins if line.startswith("torch==")] == [
        line for line in ours if line.startswith("torch==")
    ]


def test_the_committed_result_is_faster_to_the_same_loss() -> None:
    result = committed("train_peer")
    assert list(result)[: len(KEYS)] == KEYS
    assert result["ratio"] > 1
    assert abs(result["ours_loss"] - result["baseline_loss"]) <= TOLERANCE
    assert result["versions"]["torch"] == result["baseline_versions"]["torch"]
    # The peer's template teaches the line break after every answer too.
    tokens = result["answer_tokens"]
    assert tokens["baseline"] - tokens["ours"] == result["samples"] // 3
