"""Rows of a table as samples: which column is the answer, which the id, which belongs to the meta."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from data_prep.refusal import Flaw, quoted
from data_prep.sources.options import Names, missing_names
from data_prep.sources.source import Found
from lensmith.errors import InputError
from lensmith.sample import Image, Message, Origin, Sample, Text
from lensmith.section import Section
from lensmith.strict_json import parse_strict_json


class OriginColumns(Section):
    """The columns that say where a row comes from; empty where no column does."""

    source: str = Field(default="", description="column with the row's source")
    licence: str = Field(default="", description="column with its licence")
    consent: str = Field(default="", description="column with the consent it is used under")
    labeller: str = Field(default="", description="column with who labelled it")
    guideline: str = Field(default="", description="column with the version of the guideline")
    labelled_at: str = Field(default="", description="column with the date of labelling")


class ColumnOptions(Section):
    """Which columns make the conversation of a row."""

    answer: str = Field(default="", description="column with the finished answer")
    answer_fields: Names = Field(default=(), description="columns that become the keys of a JSON answer")
    typed_fields: Names = Field(
        default=(), description="of answer_fields: read as JSON values (numbers, true, lists), not as text"
    )
    empty_fields: bool = Field(default=True, description='an empty cell of answer_fields is kept as ""')
    prompt: str = Field(default="", description="the question of every row")
    prompt_column: str = Field(default="", description="column with each row's question")
    system: str = Field(default="", description="system prompt of every row")
    id: str = Field(default="", description="column with the row's id; the image's name where empty")
    group: str = Field(default="", description="column with the row's group; the image's file where empty")
    meta: Names = Field(default=(), description="columns kept with the row")
    origin: OriginColumns = Field(default_factory=OriginColumns, description="columns with the row's origin")

    @model_validator(mode="after")
    def _one_way(self) -> ColumnOptions:
        self.check_one_way()
        return self

    def check_one_way(self) -> None:
        """Raises ValueError where the options name no answer or question, or more than one."""
        if bool(self.answer) == bool(self.answer_fields):
            raise ValueError("name either answer (one column) or answer_fields (columns of a JSON answer)")
        if bool(self.prompt.strip()) == bool(self.prompt_column):
            raise ValueError("give either prompt (one question for all rows) or prompt_column")
        if unknown := [name for name in self.typed_fields if name not in self.answer_fields]:
            raise ValueError(f"typed_fields names {', '.join(unknown)}, which answer_fields does not")

    def named(self) -> list[tuple[str, str]]:
        """(option, column) for every column that the options name; "" where an option names none."""
        return [
            ("answer", self.answer),
            ("prompt_column", self.prompt_column),
            ("id", self.id),
            ("group", self.group),
            *(("answer_fields", name) for name in self.answer_fields),
            *(("meta", name) for name in self.meta),
            *((f"origin.{option}", name) for option, name in self.origin.model_dump().items()),
        ]


def check_columns(where: str, named: Sequence[tuple[str, str]], known: Sequence[str]) -> None:
    """Raises InputError with every column that `named` names and `known` lacks, and its likely name."""
    if problems := missing_names(named, [name for name in known if name], "column"):
        raise InputError(f"{where} lacks columns that the options name", problems)


def plain(value: Any) -> Any:
    """A cell's value as JSON has it: dates in ISO 8601, whole numbers without a point, bytes as a length."""
    match value:
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return str(value)
        case decimal.Decimal():
            return str(value)
        case float() if not math.isfinite(value):
            return None
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case bytes():
            return f"{len(value)} bytes"
        case list() | tuple():
            return [plain(each) for each in value]
        case dict():
            return {str(key): plain(each) for key, each in value.items()}
        case _:
            return value


def as_text(value: Any) -> str:
    """A cell as the text that people read in it; "" for an empty one."""
    value = plain(value)
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)


def sample_of(
    options: ColumnOptions,
    record: Mapping[str, Any],
    place: str,
    images: Sequence[Image],
    names: tuple[str, str],
) -> Found:
    """The row of `record`, whose images come before its question.

    `names` are the id and the group of a row where the options name no column for them.
    """
    flaws: list[Flaw] = []
    row, group = identity(options, record, names, flaws)
    prompt = as_text(record[options.prompt_column]) if options.prompt_column else options.prompt
    if not prompt.strip():
        mend = f"fill the column {quoted(options.prompt_column)}"
        flaws.append(Flaw("empty_message", "the question is empty", mend))
    if not images:
        flaws.append(Flaw("no_image", "the row names no image", "name the image's file"))
    answer = _answer(options, record, flaws)
    # Half a surrogate pair stands for a byte or an escape that was no character.
    if any(_not_text(text) for text in (row, group, prompt, answer, *(image.path for image in images))):
        flaws.append(Flaw("not_utf8", "holds bytes or escapes that are no character", "save it as UTF-8"))
    if flaws:
        return Found(place, row if row.isprintable() else "", None, tuple(flaws))
    messages = [
        Message("user", (*images, Text(prompt))),
        Message("assistant", (Text(answer),)),
    ]
    if options.system:
        messages.insert(0, Message("system", (Text(options.system),)))
    meta, origin = kept(options, record)
    return Found(place, row, Sample(row, group, tuple(messages), meta, (), origin))


def identity(
    options: ColumnOptions, record: Mapping[str, Any], names: tuple[str, str], flaws: list[Flaw]
) -> tuple[str, str]:
    """The row's id and group, `names` where the options name no column; what is wrong is put to `flaws`."""
    row = as_text(record[options.id]).strip() if options.id else names[0]
    group = as_text(record[options.group]).strip() if options.group else names[1]
    for name, value, column in (("id", row, options.id), ("group", group, options.group)):
        if not value and column:
            flaws.append(Flaw("schema", f"{name} is empty", f"fill the column {quoted(column)}"))
        elif not value.isprintable():
            flaws.append(Flaw("schema", f"{name} {quoted(value)} holds control characters", "use plain ones"))
    return row, group


def kept(options: ColumnOptions, record: Mapping[str, Any]) -> tuple[dict[str, Any], Origin]:
    """What the options keep of a row: its meta and its origin."""
    origin = {key: as_text(record[column]) for key, column in options.origin.model_dump().items() if column}
    return {name: plain(record[name]) for name in options.meta}, Origin(**origin)


def _answer(options: ColumnOptions, record: Mapping[str, Any], flaws: list[Flaw]) -> str:
    if options.answer:
        answer = as_text(record[options.answer])
        if not answer.strip():
            flaws.append(Flaw("empty_answer", "the answer is empty", f"fill the column {options.answer!r}"))
        return answer
    fields: dict[str, Any] = {}
    for name in options.answer_fields:
        text = as_text(record[name])
        if not text and not options.empty_fields:
            continue
        fields[name] = text
        if name in options.typed_fields:
            try:
                fields[name] = parse_strict_json(text) if text else None
            except ValueError as error:
                what = f"the column {quoted(name)} holds {quoted(text)}, which is no JSON value: {error}"
                flaws.append(Flaw("schema", what, "write a number, true, false or a list"))
    if not any(value not in ("", None) for value in fields.values()):
        flaws.append(Flaw("empty_answer", "every field of the answer is empty", "fill them, or drop the row"))
    return json.dumps(fields, ensure_ascii=False)


def _not_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
