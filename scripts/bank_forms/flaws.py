"""The flaws of a real hand-over: what people, scanners and exports get wrong, at random places."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FLAWS = (
    "missing image",
    "truncated jpeg",
    "empty answer",
    "image token in the label",
    "broken json",
    "repeated row",
    "copied image in a group",
    "copied image across groups",
)


@dataclass(frozen=True)
class Planted:
    """One planted flaw: what it is, the 1-based line of labels.jsonl, and the ids of the rows concerned."""

    flaw: str
    line: int
    ids: tuple[str, ...]


def plant(
    root: Path, rows: list[dict], each: int, rng: np.random.Generator
) -> tuple[list[str], list[Planted]]:
    """Spoil `each` rows in every way of FLAWS, on disk under `root` and in the text of the labels.

    Returns the lines of labels.jsonl and what was planted. Raises ValueError where there are too few rows, or
    too few JPEG files to truncate.
    """
    if len({row["group"] for row in rows}) < 2:
        raise ValueError("one customer is too few: an image cannot be copied across groups")
    if len(rows) < 4 * each * len(FLAWS):
        raise ValueError(f"{len(rows)} forms are too few to plant {each} of each of {len(FLAWS)} flaws")
    order = [int(index) for index in rng.permutation(len(rows))]
    scans = [index for index in order if image_of(rows[index]).endswith(".jpg")][:each]
    if len(scans) < each:
        raise ValueError(f"only {len(scans)} of {len(rows)} forms are JPEG scans; {each} are to be truncated")
    rest = iter(index for index in order if index not in scans)
    chosen = {flaw: [next(rest) for _ in range(each)] for flaw in FLAWS if flaw != "truncated jpeg"}
    chosen["truncated jpeg"] = scans
    entries = [Entry(json.dumps(row), row["id"]) for row in rows]
    copies: list[tuple[int, Entry]] = []
    for flaw in FLAWS:
        for index in chosen[flaw]:
            row = rows[index]
            if flaw == "missing image":
                (root / image_of(row)).unlink()
            elif flaw == "truncated jpeg":
                scan = root / image_of(row)
                scan.write_bytes(scan.read_bytes()[: scan.stat().st_size * 3 // 5])
            elif flaw == "empty answer":
                entries[index] = Entry(json.dumps(with_answer(row, "")), row["id"], flaw)
            elif flaw == "image token in the label":
                entries[index] = Entry(
                    json.dumps(with_answer(row, answer_of(row) + "<|image_pad|>")), row["id"], flaw
                )
            elif flaw == "broken json":
                text = json.dumps(row)
                entries[index] = Entry(text[: len(text) // 2], row["id"], flaw)
            else:
                other = next(rows[at]["group"] for at in order if rows[at]["group"] != row["group"])
                copies.append((index, copy_of(root, row, other, flaw)))
            if flaw in ("missing image", "truncated jpeg"):
                entries[index] = Entry(entries[index].text, row["id"], flaw)
    for after, entry in sorted(copies, key=lambda item: item[0], reverse=True):
        place = int(rng.integers(after + 1, len(entries) + 1))
        entries.insert(place, entry)
    planted = [
        Planted(entry.flaw, line, tuple(dict.fromkeys((entry.id, *entry.of))))
        for line, entry in enumerate(entries, start=1)
        if entry.flaw
    ]
    return [entry.text for entry in entries], planted


@dataclass(frozen=True)
class Entry:
    """A line of labels.jsonl: its text, the id of its row, its flaw if it has one, and the ids it copies."""

    text: str
    id: str
    flaw: str = ""
    of: tuple[str, ...] = ()


def copy_of(root: Path, row: dict, other_group: str, flaw: str) -> Entry:
    """The line that repeats `row` word for word, or only its image, in its own or another group."""
    if flaw == "repeated row":
        return Entry(json.dumps(row), row["id"], flaw)
    copy_id = f"{row['id']}-copy"
    image = image_of(row)
    copied = str(Path(image).with_stem(Path(image).stem + "-copy"))
    shutil.copyfile(root / image, root / copied)
    group = row["group"] if flaw == "copied image in a group" else other_group
    again = with_image(row, copied) | {"id": copy_id, "group": group}
    return Entry(json.dumps(again), copy_id, flaw, (row["id"],))


def image_of(row: dict) -> str:
    """The path of a row's image, relative to the labels."""
    return row["messages"][0]["content"][0]["path"]


def answer_of(row: dict) -> str:
    """A row's label."""
    return row["messages"][1]["content"][0]["text"]


def with_image(row: dict, path: str) -> dict:
    """The row with another image."""
    question, answer = row["messages"]
    content = [{"type": "image", "path": path}, *question["content"][1:]]
    return row | {"messages": [question | {"content": content}, answer]}


def with_answer(row: dict, text: str) -> dict:
    """The row with another label."""
    question, answer = row["messages"]
    return row | {"messages": [question, answer | {"content": [{"type": "text", "text": text}]}]}
