"""Which format a file or folder has, and why, in words for whoever handed it over."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.sources.json_lines import read_records
from data_prep.sources.json_stream import pieces
from data_prep.sources.sheet import sniff_delimiter
from lensmith.errors import InputError, Problem

# How many files of a folder are looked at, and pieces of a JSON object.
_MAX_LOOKS = 2000
# How many files are named to choose from.
_MAX_NAMED = 5
# How many rows of a file are looked at.
_MAX_ROWS = 20
_HEAD_BYTES = 1024
LABEL_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".xlsm")
_SEEN = (
    "a JSON file of Label Studio, COCO, LLaVA, ShareGPT or OpenAI messages",
    "a .jsonl file whose rows have messages or conversations",
    "a .csv or .xlsx table",
    "Parquet files, or a folder saved by `datasets`",
    "webdataset shards (.tar)",
    "a folder with PDFs or DICOM files and a table of labels",
    "a .zip of a file of labels and its images",
)


@dataclass(frozen=True)
class Candidate:
    """`path` read as `format`; `why` ends the sentence "it is this format, because ..."."""

    path: Path
    format: str
    why: str

    def __str__(self) -> str:
        return f"{self.path.name}: {TITLES[self.format]}, because {self.why}"


TITLES = {
    "lensmith": "Lensmith's own JSONL",
    "openai": "OpenAI messages",
    "sharegpt": "ShareGPT",
    "llava": "LLaVA",
    "coco": "COCO",
    "label_studio": "Label Studio",
    "csv": "a CSV table",
    "excel": "an Excel table",
    "parquet": "Parquet",
    "datasets": "a saved dataset",
    "webdataset": "webdataset shards",
    "pdf": "a folder of PDFs",
    "dicom": "a folder of DICOM files",
}


def detect(path: Path) -> Candidate:
    """The one format that `path` has; for a folder with one file of labels, that file's.

    Raises InputError where there is nothing, where nothing is recognised (with what was looked for), or
    where several formats would do (with each and why).
    """
    found = candidates(path)
    if len(found) == 1:
        return found[0]
    if not found:
        problems = [*_lie_further_down(path), *(Problem("looked for", mend=each) for each in _SEEN)]
        raise InputError(f"{path} has no format that is known: name it with `format`", problems)
    problems = [Problem(str(each), mend=f"path: {each.path.name}, format: {each.format}") for each in found]
    raise InputError(f"{path} can be read in {len(found)} ways: say in the recipe which is meant", problems)


def _lie_further_down(folder: Path) -> list[Problem]:
    """Archives in a folder, and what may be labels in the folders below: they are named themselves."""
    inside = itertools.islice(folder.rglob("*"), _MAX_LOOKS) if folder.is_dir() else ()
    named: list[Problem] = []
    for each in sorted(inside):
        place = each.relative_to(folder).as_posix()
        if is_archive(each, None):
            named.append(
                Problem("an archive is named itself, not its folder", place, f"path: {folder.name}/{place}")
            )
        elif each.parent != folder and each.suffix.lower() in LABEL_ENDINGS and each.is_file():
            what = "labels are looked for in the folder itself, not below it"
            named.append(Problem(what, place, f"path: {folder.name}/{place}"))
    return named[:_MAX_NAMED]


def candidates(path: Path) -> list[Candidate]:
    """Every way in which `path` can be read. Raises InputError where there is nothing."""
    if path.is_dir():
        return list(_of_folder(path))
    if not path.is_file():
        raise InputError(f"{path} is not there", [Problem("no such file or folder")])
    return list(_of_file(path))


def is_archive(path: Path, format_name: str | None) -> bool:
    """Whether `path`, to be read as `format_name`, is a zip or tar to look for labels in.

    A tar whose format is not given holds webdataset samples.
    """
    kind = _by_content(_head(path)) if path.is_file() else ""
    if kind == "zip":
        return not _is_workbook(path)
    return (kind == "gzip" and format_name != "webdataset") or (
        kind == "webdataset" and format_name not in (None, "webdataset")
    )


def _of_folder(folder: Path) -> Iterator[Candidate]:
    for markers in (("dataset_dict.json",), ("state.json", "dataset_info.json")):
        if all((folder / marker).is_file() for marker in markers):
            yield Candidate(folder, "datasets", f"it holds {markers[0]}, which `datasets` writes")
            return
    # All names in the folder itself: labels may stand behind any number of images.
    own = sorted(each for each in folder.iterdir() if each.is_file())
    tables = [each for each in own if each.suffix.lower() in LABEL_ENDINGS]
    below = (each for each in folder.rglob("*") if each.parent != folder and each.is_file())
    files = [*own[:_MAX_LOOKS], *itertools.islice(below, _MAX_LOOKS)]
    counted: dict[str, list[Path]] = {"parquet": [], "webdataset": [], "pdf": [], "dicom": []}
    for file in files:
        kind = _by_content(_head(file))
        if kind in counted and file not in tables:
            counted[kind].append(file)
    for kind, noun in (("parquet", "Parquet file"), ("webdataset", "tar file")):
        if found := counted[kind]:
            yield Candidate(folder, kind, f"it holds {_several(found, noun)}, such as {found[0].name}")
    documents = [(kind, counted[kind]) for kind in ("pdf", "dicom") if counted[kind]]
    for kind, found in documents:
        # A DICOM file's name may be its patient's: only the count is told.
        yield Candidate(folder, kind, f"it holds {_several(found, 'PDF' if kind == 'pdf' else 'DICOM file')}")
    if not documents:
        for table in tables:
            yield from _of_file(table)


def _several(found: list[Path], noun: str) -> str:
    return f"{len(found)} {noun}{'s' if len(found) > 1 else ''}"


def _of_file(path: Path) -> Iterator[Candidate]:
    head = _head(path)
    ending = path.suffix.lower()
    kind = _by_content(head)
    if kind == "parquet":
        yield Candidate(path, "parquet", "it begins as Parquet files do (PAR1)")
    elif kind == "webdataset":
        yield Candidate(path, "webdataset", "it is a tar file")
    elif kind == "zip":
        if _is_workbook(path):
            yield Candidate(path, "excel", "it holds an Excel workbook")
    elif kind in ("pdf", "dicom"):
        return
    elif ending in (".jsonl", ".ndjson"):
        yield from _of_rows(path, _first_rows(path), "row")
    elif head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        yield from _of_rows(path, _first_rows(path), "item")
    elif ending == ".json":
        yield from _of_object(path)
    elif ending in (".csv", ".tsv"):
        names = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
        cells = names[sniff_delimiter(head.decode("utf-8", "replace").split("\n")[0])]
        yield Candidate(path, "csv", f"it ends in {ending} and its first line has {cells}")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError:
        # Whoever opens it says why it cannot be read.
        return b""


def _by_content(head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[257:262] == b"ustar":
        return "webdataset"
    # An empty one has nothing but its end.
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # The mark may stand anywhere in the first 1024 bytes (ISO 32000-1, annex H).
    if b"%PDF-" in head:
        return "pdf"
    return "dicom" if head[128:132] == b"DICM" else ""


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def _first_rows(path: Path) -> list[dict[str, Any]]:
    """The first objects of a list, or of lines: what is none is refused later, and costs no other."""
    values = (record.value for record in itertools.islice(read_records(path), _MAX_LOOKS))
    return list(itertools.islice((value for value in values if isinstance(value, dict)), _MAX_ROWS))


def _of_rows(path: Path, rows: list[dict[str, Any]], noun: str) -> Iterator[Candidate]:
    """What the first rows of a JSONL file or JSON list say."""
    if not rows:
        return
    row = rows[0]
    # Its reader says what to export instead.
    if {"annotation_id", "annotator"} <= row.keys():
        yield Candidate(path, "label_studio", f"its first {noun} has 'annotator' and 'annotation_id'")
        return
    if isinstance(row.get("data"), dict) and (marks := row.keys() & {"annotations", "completions"}):
        yield Candidate(path, "label_studio", f"its first task has {sorted(marks)[0]!r} and 'data'")
    elif isinstance(row.get("conversations"), list):
        if "image" in row:
            yield Candidate(path, "llava", f"its first {noun} has 'conversations' and 'image'")
        else:
            yield Candidate(path, "sharegpt", f"its first {noun} has 'conversations'")
    elif isinstance(row.get("messages"), list):
        # The one that lacks its id or group may be the first; some rows of OpenAI messages have both.
        named = sum({"id", "group", "messages"} <= each.keys() for each in rows)
        if noun == "row" and 2 * named > len(rows) and not any(map(_names_image_urls, rows)):
            yield Candidate(path, "lensmith", "most of its first rows have 'id', 'group' and 'messages'")
        elif _is_sharegpt(row["messages"]):
            yield Candidate(path, "sharegpt", f"the first {noun}'s 'messages' have 'from' and 'value'")
        else:
            yield Candidate(path, "openai", f"its first {noun} has 'messages'")


def _names_image_urls(row: dict[str, Any]) -> bool:
    """Whether a message has a part that only OpenAI messages have."""
    messages = row["messages"] if isinstance(row.get("messages"), list) else []
    contents = [each.get("content") for each in messages if isinstance(each, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)


def _is_sharegpt(messages: list[Any]) -> bool:
    return bool(messages) and isinstance(messages[0], dict) and {"from", "value"} <= messages[0].keys()


def _of_object(path: Path) -> Iterator[Candidate]:
    for piece in itertools.islice(pieces(path), _MAX_LOOKS):
        fields = piece.value.keys() if isinstance(piece.value, dict) else set()
        if piece.key == "images" and "file_name" in fields:
            yield Candidate(path, "coco", "it has 'images' with 'file_name'")
            return
        if piece.key == "annotations" and "image_id" in fields:
            yield Candidate(path, "coco", "it has 'annotations' with 'image_id'")
            return
