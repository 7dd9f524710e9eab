"""What a recipe knows of its own markup is told once: as a refusal, or not at all."""

from __future__ import annotations

from pathlib import Path

from data_prep.screening import Screening
from data_prep.sources.source import Found
from lensmith.sample import Image, Message, Sample, Text
from tests.data_prep.folder import Folder


def codes(root: Path, answer: str, new_tokens: list[str]) -> tuple[list[str], list[str]]:
    recipe = Folder(root / f"with {len(new_tokens)}").recipe(answer="text")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"new_tokens": new_tokens})})
    asked = Message("user", (Image("a.png"), Text("Read.")))
    row = Sample("a", "g", (asked, Message("assistant", (Text(answer),))))
    found = Screening(recipe).screen(Found("labels.jsonl:1", "a", row))
    return [each.code for each in found.flaws], [each.code for each in found.flags]


def test_a_familys_token_is_refused_and_not_flagged_as_well(tmp_path: Path) -> None:
    assert codes(tmp_path, "7 <|im_end|>", []) == (["markup"], [])


def test_a_recipes_new_token_is_no_instruction(tmp_path: Path) -> None:
    assert codes(tmp_path, "<|id_card|> 7", []) == ([], ["instructions"])
    assert codes(tmp_path, "<|id_card|> 7", ["<|id_card|>"]) == ([], [])
