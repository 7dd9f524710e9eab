"""What keeps guided answers to the schema of answers: one statement for the engine and for the reference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from lensmith.answer_schema import schema_content
from lensmith.errors import InputError, Problem
from lensmith.recipe import Recipe
from lensmith.section import Section

# Keywords that vLLM 0.32 refuses with its backend xgrammar (v1/structured_output/backend_xgrammar.py); and
# those that xgrammar 0.2.8 leaves out of the grammar without a word. The first list is stricter than vLLM
# where it takes a keyword only in some places.
_REFUSED = frozenset(
    {"multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "propertyNames"}
    | {"patternProperties"}
)
_IGNORED = frozenset({"not", "if", "dependentRequired", "dependentSchemas"})
_FORM = frozenset({"pattern", "format"})
_LENGTH = frozenset({"minLength", "maxLength"})
# Keywords whose value is data, not schema; and those whose value names schemas.
_DATA = frozenset({"const", "enum", "default", "examples"})
_NAMED = frozenset({"properties", "$defs", "definitions"})


class Guide(Section):
    """How an answer is guided: at each token, what the grammar of the schema does not allow cannot come."""

    answer_schema: str = Field(
        description="the JSON Schema, as text: its properties are answered in the order they stand here"
    )
    backend: Literal["xgrammar"] = Field(
        default="xgrammar", description="what makes a grammar of it; no other is tried"
    )
    any_whitespace: bool = Field(
        default=True,
        description="whether white space between JSON's signs is the model's choice, as it learned",
    )

    @property
    def digest(self) -> str:
        """SHA-256 of all that it says."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def recipe_guide(recipe: Recipe) -> Guide | None:
    """How the recipe's answers can be guided; None where it does not offer that.

    Raises InputError where the schema's file cannot be read, and with every place in the schema that the
    grammar would not hold answers to.
    """
    settings = recipe.data.answer_schema
    if not recipe.serve.guided_json or settings is None:
        return None
    schema = schema_content(settings)
    if problems := [*_problems(schema, "#")]:
        raise InputError("answers cannot be guided by this schema", problems)
    return Guide(answer_schema=json.dumps(schema, ensure_ascii=False))


def _problems(node: Any, path: str) -> Iterator[Problem]:
    """What the grammar leaves out, at any depth."""
    if isinstance(node, list):
        for at, each in enumerate(node):
            yield from _problems(each, f"{path}/{at}")
    if not isinstance(node, dict):
        return
    where = f"data.answer_schema {path}"
    mend = "leave it out, or serve.guided_json: false"
    for word in sorted((_REFUSED | _IGNORED) & node.keys()):
        yield Problem(f"{word} cannot be guided", where, mend)
    if _FORM & node.keys() and _LENGTH & node.keys():
        yield Problem("a length beside pattern or format cannot be guided", where, "say it in the pattern")
    if len(node.get("allOf", ())) > 1:
        yield Problem("allOf of several schemas cannot be guided", where, "write them as one")
    for word, value in node.items():
        if word in _NAMED and isinstance(value, dict):
            for name, each in value.items():
                yield from _problems(each, f"{path}/{word}/{name}")
        elif word not in _DATA:
            yield from _problems(value, f"{path}/{word}")
