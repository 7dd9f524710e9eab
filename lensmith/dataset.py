"""Reading a dataset artifact and its sealed held-out set. Their files: see `lensmith.row_file`."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass
from typing import Literal

from lensmith.artifact import Artifact
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.row_file import RowFile

Split = Literal["train", "validation"]
HELD_OUT_FILE = "data/held_out.arrow"
READS_LOG = "held_out_reads.jsonl"


def split_file(split: Split) -> str:
    """Where a split's rows are inside a dataset artifact."""
    return f"data/{split}.arrow"


def read_split(dataset: Artifact, split: Split) -> RowFile:
    """The rows of a dataset artifact's split. The held-out rows cannot be reached from here."""
    if dataset.kind != "dataset":
        raise InputError(f"{dataset.short} is not a dataset")
    return RowFile(dataset.path / split_file(split))


def read_held_out(home: Home, held_out: Artifact, reason: str) -> RowFile:
    """The held-out rows; who reads them and why is appended to `<home>/held_out_reads.jsonl` first."""
    if held_out.kind != "held_out":
        raise InputError(f"{held_out.short} is not a held-out set")
    if not reason.strip():
        raise InputError(
            "the held-out rows are read for a stated reason only", [Problem("the reason is empty")]
        )
    log_held_out_read(home, held_out, reason)
    return RowFile(held_out.path / HELD_OUT_FILE)


@dataclass(frozen=True)
class HeldOutRead:
    """One reading of held-out rows: when (UTC) and why."""

    at: str
    reason: str


def held_out_reads(home: Home, held_out: Artifact) -> list[HeldOutRead]:
    """Every reading of a held-out set in this home, oldest first."""
    path = home.root / READS_LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines]
    return [HeldOutRead(each["at"], each["reason"]) for each in entries if each["held_out"] == held_out.id]


def read_asked(home: Home, asked: Artifact, reason: str) -> RowFile:
    """The rows that a model is asked: a held-out set's, logged, or a dataset's validation rows."""
    return read_split(asked, "validation") if asked.kind == "dataset" else read_held_out(home, asked, reason)


def asked_role(asked: Artifact) -> Literal["held_out", "validation"]:
    """How traces and reports name, among their inputs, what was asked."""
    return "validation" if asked.kind == "dataset" else "held_out"


def log_held_out_read(home: Home, held_out: Artifact, reason: str) -> None:
    """Append who reads or copies the held-out rows, and why, to `<home>/held_out_reads.jsonl`."""
    entry = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "held_out": held_out.id,
        "reason": reason,
    }
    handle = os.open(home.root / READS_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, (json.dumps(entry) + "\n").encode())
    finally:
        os.close(handle)
