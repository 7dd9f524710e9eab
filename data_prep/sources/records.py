"""Sources that are one file of JSON rows: what their readers share."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from data_prep.refusal import Flaw, quoted
from data_prep.sources.folder import FolderSource, file_facts
from data_prep.sources.json_lines import MAX_ROW_BYTES, Record, is_list, read_records
from data_prep.sources.source import Found
from lensmith.files import digest_json
from lensmith.sample import Image, Message, Origin, Sample, Video
from lensmith.section import Section

ORIGIN_FIELDS = ("source", "licence", "consent", "labeller", "guideline", "labelled_at")
_DIGEST_CHARACTERS = 16


class RowOptions(Section):
    """Where a row of a chat format says what the format itself has no place for."""

    id: str = Field(default="", description="field with the row's id; `id` where given, else a digest")
    group: str = Field(
        default="",
        description="field with what must stay together; `group` where given, else the first image or video",
    )
    folder: str = Field(default="", description="folder of the images, relative to the file")


class Unusable(Exception):
    """A row cannot be read: its flaws."""

    def __init__(self, *flaws: Flaw) -> None:
        self.flaws = flaws
        super().__init__("; ".join(flaw.what for flaw in flaws))


class RecordSource(FolderSource):
    """A file with a JSON row a line, or one list of rows. A subclass says how a row becomes samples."""

    max_row_bytes = MAX_ROW_BYTES

    def __init__(self, path: Path, folder: str = "") -> None:
        super().__init__(path.parent / folder)
        self.path = path
        self.name = path.name

    @abstractmethod
    def samples(self, record: Record) -> Iterator[Sample]:
        """What a row says. Raises Unusable where it says nothing that can be learned."""

    @abstractmethod
    def row_id(self, value: Any) -> str:
        """The id that a row is known by before it is read; "" where it has none."""

    def rows(self) -> Iterator[Found]:
        """Every row, in order. Raises InputError where the file is missing, empty or UTF-16."""
        unit = " row " if is_list(self.path) else ":"
        for record in read_records(self.path, self.max_row_bytes):
            place = f"{self.name}{unit}{record.number}"
            if record.flaws:
                yield Found(place, "", None, record.flaws)
            else:
                yield from self.found(record, place)

    def found(self, record: Record, place: str) -> Iterator[Found]:
        """What a row that is JSON gives."""
        try:
            for sample in self.samples(record):
                yield Found(place, sample.id, sample)
        except Unusable as error:
            yield Found(place, self.row_id(record.value), None, error.flaws)

    def facts(self) -> dict[str, Any]:
        return file_facts(self.path)


class ChatSource(RecordSource):
    """A file of rows in a chat format, whose options say where a row names itself."""

    options_kind = RowOptions

    def __init__(self, path: Path, options: RowOptions | None = None) -> None:
        self.options = options or RowOptions()
        super().__init__(path, self.options.folder)

    def row_id(self, value: Any) -> str:
        return shown_id(value, self.options.id)


def object_of(value: Any) -> dict[str, Any]:
    """The row as an object. Raises Unusable where it is none."""
    if not isinstance(value, dict):
        raise Unusable(schema("the row is not a JSON object", "export the row again"))
    return value


def schema(what: str, mend: str = "see the format in the guide") -> Flaw:
    """A flaw of a row's shape."""
    return Flaw("schema", what, mend)


def lookup(value: Any, dotted: str) -> Any:
    """What stands at `dotted` ("data.form.id") in nested objects; None where nothing does."""
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def name_at(row: Mapping[str, Any], dotted: str) -> str:
    """The id or group at `dotted`; a whole number is taken as text.

    Raises Unusable where it is missing, empty, or no plain text.
    """
    found = lookup(row, dotted)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str) or not found.strip():
        what = "is missing" if found is None else f"is {quoted(str(found))}"
        raise Unusable(schema(f"{dotted} {what}", f"give every row a text or whole number there: {dotted}"))
    if not found.isprintable():
        raise Unusable(schema(f"{dotted} {quoted(found)} holds control characters", "use plain characters"))
    return found


def shown_id(row: Any, dotted: str) -> str:
    """The id for a report on a row that could not be read; "" where there is none."""
    found = lookup(row, dotted or "id")
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) and found.isprintable() else ""


def build_sample(
    row: Mapping[str, Any],
    options: RowOptions,
    messages: tuple[Message, ...],
    known: frozenset[str],
    tools: tuple[dict[str, Any], ...] = (),
) -> Sample:
    """The sample of a chat row.

    Without an id it is named by a digest of its content, so that rows handed over later rename none.
    `meta` is taken whole; of other fields that the format does not know (not in `known`) the plain values
    (text, numbers, true, false) are kept in it and nested ones left behind. Raises Unusable as `name_at`
    does.
    """
    given = options.id or ("id" if "id" in row else "")
    sample_id = name_at(row, given) if given else f"row-{digest_json(row)[:_DIGEST_CHARACTERS]}"
    grouped = options.group or ("group" if "group" in row else "")
    if grouped:
        group = name_at(row, grouped)
    else:
        group = next(
            (part.path for each in messages for part in each.parts if isinstance(part, Image | Video)),
            sample_id,
        )
        group = sample_id if INLINE.fullmatch(group) else group
    meta = {
        name: value
        for name, value in row.items()
        if name not in known and name not in _FIELDS and isinstance(value, str | int | float | bool)
    }
    own = row.get("meta")
    if isinstance(own, dict):
        meta |= own
    return Sample(sample_id, group, messages, meta, tools, origin_of(row.get("origin")))


_FIELDS = frozenset({"id", "group", "meta", "origin"})
# How a picture that is typed into a row is called: file@offset+size#number, in bytes.
INLINE = re.compile(r".*@(\d+)\+(\d+)#(\d+)", re.DOTALL)


def origin_of(value: Any) -> Origin:
    """Who labelled a row, under what terms: an object with the fields of `Origin`; others are left behind."""
    if not isinstance(value, dict):
        return Origin()
    found = {name: value[name] for name in ORIGIN_FIELDS if isinstance(value.get(name), str)}
    return Origin(**found)


def shape_flaws(error: ValidationError) -> tuple[Flaw, ...]:
    """What pydantic found, as flaws."""
    flaws: list[Flaw] = []
    for each in error.errors():
        where = ""
        for part in each["loc"]:
            where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
        if each["type"] == "missing":
            flaws.append(schema(f"{where} is missing", "add it"))
        else:
            message = each["msg"].removeprefix("Value error, ")
            flaws.append(schema(f"{where or 'the row'}: {message[:1].lower()}{message[1:]}"))
    return tuple(flaws)
