"""A schema made ready once, and the flaws of answers that do not fit it."""

from __future__ import annotations

import json
from typing import Any

from referencing import Registry

from data_prep.answer_schema.audit import audit
from data_prep.answer_schema.keywords import FORMATS, TooSlow, validator_class
from data_prep.answer_schema.words import flaws_of
from data_prep.refusal import Flaw, quoted
from lensmith.answer_schema import schema_content
from lensmith.data_settings import Schema
from lensmith.errors import InputError, Problem

_PROBES: tuple[Any, ...] = (None, {}, [], "", 0)


class AnswerSchema:
    """A checked schema. Rows are held against it one by one; it keeps nothing of them."""

    def __init__(self, schema: dict[str, Any], where: str, pattern_seconds: float = 0.05) -> None:
        """Raises InputError with every problem of the schema and its place; `where` names the schema."""
        self.content = schema
        problems = audit(schema, where)
        if not problems:
            # An empty registry: a reference that the audit let through would fail, not be fetched.
            self._validator = validator_class(pattern_seconds)(
                schema, registry=Registry(), format_checker=FORMATS
            )
            try:
                for probe in _PROBES:
                    self._validator.is_valid(probe)
            except RecursionError:
                problems = [Problem("refers to itself without end", where, "break the circle of $ref")]
        if problems:
            raise InputError(f"{where} is not a schema that answers can be checked with", problems)

    def flaws(self, value: Any) -> list[Flaw]:
        """The flaws of a parsed answer, in words, the first ten. `value` is what `json.loads` gives."""
        try:
            if self._validator.is_valid(value):
                return []
            return flaws_of(self._validator.iter_errors(value))
        except TooSlow as slow:
            what = f"the pattern {quoted(slow.pattern)} took too long on it"
            return [
                Flaw(
                    "answer_schema",
                    what,
                    "make the pattern in data.answer_schema simpler, or the text shorter",
                )
            ]
        except RecursionError:
            return [Flaw("answer_schema", "it is nested too deeply", "write it with fewer levels")]

    def check(self, answer: str) -> list[Flaw]:
        """The flaws of an answer as typed; none where it is not JSON, which is a flaw of its own."""
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError):
            return []
        return self.flaws(value)


def read_schema(settings: Schema) -> AnswerSchema:
    """The recipe's schema. Raises InputError where the file cannot be read or the schema not be used."""
    where = "data.answer_schema.inline" if settings.file is None else str(settings.file)
    return AnswerSchema(schema_content(settings), where, settings.pattern_seconds)
