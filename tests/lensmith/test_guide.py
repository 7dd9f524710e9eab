"""What a recipe says of guided answers, and which schemas they cannot be kept to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lensmith.errors import InputError
from lensmith.guide import Guide, recipe_guide
from lensmith.recipe import Recipe, load_recipe
from tests.conftest import write_recipe

SCHEMA = {
    "type": "object",
    "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}, "age": {"type": "integer"}},
    "required": ["zip", "age"],
}


def guided_recipe(folder: Path, schema: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    """A recipe whose schema stands in a file."""
    (folder / "schema.json").write_text(json.dumps(SCHEMA if schema is None else schema))
    settings = {"serve__guided_json": True, "data__answer_schema": {"file": "schema.json"}} | settings
    return load_recipe(write_recipe(folder / "recipe.yaml", folder / "base", folder / "forms", **settings))


def test_the_schema_comes_along_as_text_in_its_own_order(tmp_path: Path) -> None:
    guide = recipe_guide(guided_recipe(tmp_path))
    assert guide is not None
    assert list(json.loads(guide.answer_schema)["properties"]) == ["zip", "age"]
    inline = recipe_guide(guided_recipe(tmp_path, data__answer_schema={"inline": SCHEMA}))
    assert inline is not None
    assert json.loads(inline.answer_schema) == SCHEMA


def test_none_is_offered_unless_asked_for(tmp_path: Path) -> None:
    assert recipe_guide(guided_recipe(tmp_path, serve__guided_json=False)) is None


def test_another_order_or_rule_is_another_guide() -> None:
    one, other = '{"a": 1, "b": 2}', '{"b": 2, "a": 1}'
    guides = [Guide(answer_schema=one), Guide(answer_schema=other)]
    guides.append(Guide(answer_schema=one, any_whitespace=False))
    assert len({each.digest for each in guides}) == 3


@pytest.mark.parametrize("settings", [{"data__answer_schema": None}, {"data__answer": "text"}])
def test_guided_answers_need_json_and_its_schema(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"data\.answer: json and its schema"):
        guided_recipe(tmp_path, **settings)


def test_guided_answers_have_no_place_for_thoughts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no place for thoughts"):
        guided_recipe(tmp_path, family="glm4v", serve__thinking=True)


def test_what_a_grammar_leaves_out_is_refused_with_every_place(tmp_path: Path) -> None:
    properties = {
        "amount": {"type": "number", "multipleOf": 0.01},
        "lines": {"type": "array", "items": {"not": {"const": 1}}},
        "iban": {"type": "string", "pattern": "^[A-Z]+$", "maxLength": 34},
        "kind": {"allOf": [{"type": "string"}, {"enum": ["a"]}]},
        # A field of that name, and a value: neither is a keyword.
        "contains": {"const": {"not": 1}},
    }
    recipe = guided_recipe(tmp_path, {"type": "object", "properties": properties})
    with pytest.raises(InputError) as caught:
        recipe_guide(recipe)
    told = [(each.what.split(" cannot")[0], each.where.rpartition("#")[2]) for each in caught.value.problems]
    assert told == [
        ("multipleOf", "/properties/amount"),
        ("not", "/properties/lines/items"),
        ("a length beside pattern or format", "/properties/iban"),
        ("allOf of several schemas", "/properties/kind"),
    ]


def test_a_missing_schema_file_is_said(tmp_path: Path) -> None:
    recipe = guided_recipe(tmp_path)
    (tmp_path / "schema.json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        recipe_guide(recipe)
