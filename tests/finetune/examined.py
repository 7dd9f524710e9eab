"""Watching what a training's examiner asks, and breaking it, in the processes of a training."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tokenizers import Tokenizer

import finetune.examiner
from finetune.examiner import greedy, judge
from lensmith.signals import TERMINATION
from lensmith.trace import TraceRow


def end_anywhere(base: Path) -> None:
    """Let each ninth token end an answer, so that a random model's answers are of many lengths; none that
    the template writes behind the end of a turn."""
    behind = Tokenizer.from_file(str(base / "tokenizer.json")).encode("\n").ids
    path = base / "generation_config.json"
    config = json.loads(path.read_bytes())
    own = config["eos_token_id"]
    ends = [
        *([own] if isinstance(own, int) else own),
        *(each for each in range(0, 1000, 9) if each not in behind),
    ]
    path.write_text(json.dumps({**config, "eos_token_id": sorted(set(ends))}))


@contextlib.contextmanager
def noting() -> Iterator[list[list[str]]]:
    """[row, answer] of each that is judged meanwhile."""
    said: list[list[str]] = []

    def noted(row: str, group: str, label: str, answer: str, kind: Any) -> Any:
        said.append([row, answer])
        return judge(row, group, label, answer, kind)

    with patch.object(finetune.examiner, "judge", noted):
        yield said


@contextlib.contextmanager
def told_while_asking(rank: str) -> Iterator[None]:
    """Process 1 gets SIGTERM when it has the first answer of an evaluation."""

    def asked(*given: Any, **named: Any) -> Iterator[TraceRow]:
        for row in greedy(*given, **named):
            if rank == "1":
                TERMINATION.note(signal.SIGTERM, None)
            yield row

    try:
        with patch.object(finetune.examiner, "greedy", asked):
            yield
    finally:
        TERMINATION.told = False
