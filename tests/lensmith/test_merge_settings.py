"""What a recipe may ask of a merge of several adapters, told when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lensmith.errors import InputError
from lensmith.merge_settings import Merge
from lensmith.recipe import load_recipe
from tests.conftest import write_recipe

RUN = {"run": "run-123456", "weight": 0.5}


def merge_of(folder: Path, *adapters: dict[str, Any], **settings: Any) -> Merge:
    more = {name: settings.pop(name) for name in list(settings) if "__" in name}
    content = {"adapters": list(adapters)} | settings
    recipe = load_recipe(write_recipe(folder / "recipe.yaml", folder, folder, merge=content, **more))
    assert recipe.merge
    return recipe.merge


def refusal(folder: Path, *adapters: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(InputError) as error:
        merge_of(folder, *adapters, **settings)
    return str(error.value)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    merge = merge_of(tmp_path, {"path": "../other", "weight": -0.5}, RUN, method="ties", density=0.2)
    assert [each.told for each in merge.adapters] == [str(tmp_path.parent / "other"), "run-123456"]


@pytest.mark.parametrize(
    ("adapters", "settings", "words"),
    [
        ([], {}, "merge.adapters: List should have at least 1 item"),
        ([{"weight": 1.0}], {}, "merge.adapters.0: give either run or path"),
        ([RUN | {"path": "x"}], {}, "merge.adapters.0: give either run or path"),
        ([RUN | {"run": "model-123456"}], {}, "merge.adapters.0.run: String should match pattern"),
        ([RUN | {"weight": 0.0}], {}, "adapters.0.weight: weight 0 would leave it out"),
        ([RUN], {"weight": 0}, "merge.weight: weight 0 would leave it out"),
        ([RUN | {"weight": float("nan")}], {}, "adapters.0.weight: must be a finite number"),
        ([RUN, dict(RUN)], {}, "run-123456 is named twice: add its weights"),
        ([RUN], {"method": "ties"}, "method ties needs density"),
        ([RUN], {"method": "dare_ties"}, "method dare_ties needs density"),
        ([RUN], {"density": 0.5}, "method linear keeps every change whole: remove density"),
        ([RUN], {"method": "ties", "density": 0.5, "seed": 1}, "method ties draws nothing: remove seed"),
        ([RUN], {"method": "ties", "density": 1.0}, "merge.density"),
        ([RUN], {"method": "slerp"}, "merge.method"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    tmp_path: Path, adapters: list[dict[str, Any]], settings: dict[str, Any], words: str
) -> None:
    assert words in refusal(tmp_path, *adapters, **settings)


def test_only_an_adapter_of_the_base_as_it_is_has_others_beside_it(tmp_path: Path) -> None:
    whole = {"vision": "train", "connector": "train", "language": "train"}
    assert "method full makes no adapter" in refusal(tmp_path, RUN, train__method="full", train__towers=whole)
    assert "change of the base in 4 bits" in refusal(tmp_path, RUN, train__method="qlora")
    beside = {"vision": "freeze", "connector": "train", "language": "adapt"}
    told = refusal(tmp_path, RUN, train__towers=beside)
    assert "weights held whole (connector) cannot be weighed: set them to adapt or freeze" in told
    assert "rows of new tokens are whole values" in refusal(tmp_path, RUN, train__new_tokens=["<field>"])


def test_several_adapters_are_not_served_unmerged(tmp_path: Path) -> None:
    towers = {"vision": "freeze", "connector": "freeze", "language": "adapt"}
    told = refusal(tmp_path, RUN, train__towers=towers, serve__mode="adapter")
    assert "vLLM does not add several adapters by weights, so they will be merged: set serve.mode" in told
