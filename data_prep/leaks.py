"""The proof that no split shares a group, an exact image or a row id with another.

Recomputed from the files as they were read back: every image is decoded and digested once more, so a fault in
the splitting, the duplicate check or the writing shows here, whatever they reported. Only bytes that an
earlier proof decoded are not decoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Request
from data_prep.proven import Proven
from data_prep.refusal import Flaw, quoted
from data_prep.sight import SHOW, show
from data_prep.split import SplitName
from data_prep.written import Written
from lensmith.errors import IntegrityError, Problem
from lensmith.images import STORED, BadImage
from lensmith.progress import Progress
from lensmith.row_file import RowFile

_SHOWN = 5
# Fewer bytes of PNG than these are decoded here.
_FEW_BYTES = 4_000_000
WHAT = ("groups", "images", "ids")


def prove_no_leaks(files: Mapping[SplitName, Written], proven: Proven) -> dict[str, dict[str, int]]:
    """Count what each two of the splits' files share: all counts are zero, or this raises.

    Returns {"train and validation": {"groups": 0, "images": 0, "ids": 0}, ...}.
    Raises IntegrityError with every overlap, and with every image that is not the one it states.
    """
    problems: list[Problem] = []
    seen: dict[SplitName, dict[str, np.ndarray]] = {}
    with DecoderPool(STORED, work=SHOW) as pool:
        for split, written in files.items():
            # One at a time: what is read of a mapped file counts as memory while it is open.
            rows = RowFile(written.path)
            shown = _shown(rows, split, written, pool, proven)
            problems += _misstated(rows, split, shown)
            images = _unique(each[:16] for each in shown)
            seen[split] = {"groups": _names(rows, "group"), "images": images, "ids": _names(rows, "id")}
    report: dict[str, dict[str, int]] = {}
    for left, right in combinations(files, 2):
        shared = {what: np.intersect1d(seen[left][what], seen[right][what]) for what in WHAT}
        report[f"{left} and {right}"] = {what: len(shared[what]) for what in WHAT}
        for what, digests in shared.items():
            if len(digests):
                named = ", ".join(map(quoted, _spelled(RowFile(files[left].path), what, digests)))
                problems.append(
                    Problem(f"{len(digests)} shared {what}, the first {named}", f"{left} and {right}")
                )
    if problems:
        raise IntegrityError("the splits are not apart: no dataset was written", problems)
    return report


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _unique(digests: Iterable[bytes]) -> np.ndarray:
    """Sorted, each once: 16 bytes a name, where Python's own sets would take a hundred."""
    return np.unique(np.array(list(digests), dtype="V16"))


def _names(rows: RowFile, column: str) -> np.ndarray:
    return _unique(_digest(text) for (values,) in rows.columns(column) for text in values.to_pylist())


def _shown(rows: RowFile, split: str, written: Written, pool: DecoderPool, proven: Proven) -> list[bytes]:
    """What each image really shows, the digest of its pixels; nothing for one that cannot be decoded."""
    digests = [each.tobytes() for each in written.digests]
    known = [proven.find(digest) for digest in digests]
    new = [place for place, each in enumerate(known) if each is None]
    size = sum(len(rows.image(place).png) for place in new)
    requests = (Request(f"{split} image {place}", rows.png(place)) for place in new)
    # A worker costs a fifth of a second to start.
    answers = pool.facts(requests) if size > _FEW_BYTES else (_show(rows.png(place)) for place in new)
    with Progress(f"{split} pictures proven", len(new)) as progress:
        for place, found in zip(new, answers, strict=True):
            known[place] = b"" if isinstance(found, Flaw) else found
            progress.add()
    found = [each or b"" for each in known]
    proven.keep((digests[place], found[place]) for place in new if found[place])
    return found


def _show(png: bytes) -> bytes:
    try:
        return show(png, STORED)
    except BadImage:
        return b""


def _misstated(rows: RowFile, split: str, shown: list[bytes]) -> list[Problem]:
    """The rows with an image that is not what it, or the row, states."""
    stated = [text for (values,) in rows.image_columns("digest") for text in values.to_pylist()]
    wrong = {text for text, found in zip(stated, shown, strict=True) if bytes.fromhex(text) != found}
    problems: list[Problem] = []
    places = (each for (values,) in rows.columns("images") for each in values.to_pylist())
    for sample, images in zip(rows.samples(), places, strict=True):
        there = [stated[place] for place in images]
        if there != [image.digest for image in sample.images] or wrong.intersection(there):
            problems.append(Problem("shows another image than it states", f"{split} row {quoted(sample.id)}"))
    return problems


def _spelled(rows: RowFile, what: str, digests: np.ndarray) -> list[str]:
    """A few of the shared names, as they are written."""
    wanted = set(digests.tolist())
    if what == "images":
        names = (text for (values,) in rows.image_columns("digest") for text in values.to_pylist())
        found = {text for text in names if bytes.fromhex(text)[:16] in wanted}
    else:
        column = {"groups": "group", "ids": "id"}[what]
        names = (text for (values,) in rows.columns(column) for text in values.to_pylist())
        found = {text for text in names if _digest(text) in wanted}
    return sorted(found)[:_SHOWN]
