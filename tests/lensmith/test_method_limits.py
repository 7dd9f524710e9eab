"""A recipe asks for routed experts: what cannot be trained or served is refused when it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lensmith import families
from lensmith.errors import InputError
from lensmith.method_limits import engine_problems
from lensmith.recipe import Recipe, load_recipe
from lensmith.serve_settings import Serve
from tests.conftest import write_recipe

EXPERTS = {"rank": 8, "alpha": 16.0, "experts": {}}


def recipe(folder: Path, **settings: Any) -> Recipe:
    content = {"family": "qwen3_vl_moe", "train__lora": EXPERTS} | settings
    return load_recipe(write_recipe(folder / "recipe.yaml", folder, folder, **content))


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as error:
        recipe(folder, **settings)
    return str(error.value)


def test_experts_are_frozen_unless_asked_for(tmp_path: Path) -> None:
    assert recipe(tmp_path, train__lora={"rank": 8}).train.lora.experts is None


def test_experts_learn_as_the_language_model_unless_told(tmp_path: Path) -> None:
    lora = recipe(tmp_path).train.lora
    assert (lora.rank_of("experts"), lora.alpha_of("experts"), lora.scale_of("experts")) == (8, 16.0, 2.0)
    language = {"language": {"rank": 4, "alpha": 2.0}}
    lora = recipe(tmp_path, train__lora=EXPERTS | {"towers": language}).train.lora
    assert (lora.rank_of("experts"), lora.alpha_of("experts")) == (4, 2.0)
    own = {"experts": {"rank": 2, "alpha": 6.0}, "towers": language, "variant": "rslora"}
    lora = recipe(tmp_path, train__lora=EXPERTS | own).train.lora
    assert lora.told("experts") == "rsLoRA, rank 2, alpha 6"
    assert lora.scale_of("experts") == pytest.approx(6 / 2**0.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train__lora": EXPERTS | {"dropout": 0.1}}, "no dropout on routed experts: set dropout to 0"),
        ({"train__lora": EXPERTS | {"variant": "dora"}}, "no DoRA on routed experts: set variant to lora or"),
        ({"train__lora": EXPERTS | {"bias": "all"}}, "train.lora.bias: unknown key"),
        ({"train__lora": EXPERTS | {"experts": {"dropout": 0.1}}}, "experts.dropout: unknown key"),
        ({"train__lora": EXPERTS | {"experts": {"rank": 0}}}, "train.lora.experts.rank"),
        (
            {"train__towers": {"vision": "adapt", "connector": "freeze", "language": "freeze"}},
            "lora.experts: they are the language model's, which is not adapted: set towers.language to adapt",
        ),
        (
            {
                "train__method": "full",
                "train__towers": {"vision": "freeze", "connector": "freeze", "language": "train"},
            },
            "or leave out lora.experts",
        ),
        ({"family": "qwen3_vl"}, "Qwen3-VL has no routed experts: leave out train.lora.experts"),
        (
            {"serve__mode": "adapter", "serve__tower_connector_lora": True},
            "routed experts is not proven to be served as trained: merge it: serve.mode: merged",
        ),
    ],
)
def test_what_experts_do_not_take_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    assert words in refusal(tmp_path, **settings)


def test_all_problems_of_experts_at_once(tmp_path: Path) -> None:
    told = refusal(tmp_path, train__lora=EXPERTS | {"dropout": 0.1, "variant": "dora"})
    assert "no dropout" in told
    assert "no DoRA" in told
    told = refusal(tmp_path, family="gemma3", train__new_tokens=["<bos>"])
    assert "Gemma 3 has no linear layer that LoRA could adapt in: connector" in told
    assert "Gemma 3 has no routed experts" in told
    assert "'<bos>' begins or holds '<bos>'" in told
    told = refusal(tmp_path, family="molmo2", train__new_tokens=["<acct>"])
    assert "the output head has no rows: read, never written, in Molmo2: remove them" in told


def test_layers_that_vllm_joins_have_their_ranks_together(tmp_path: Path) -> None:
    """Molmo2's query, key and value are one layer there; so are GLM's gate and up in the connector."""
    asked = {"serve__mode": "adapter", "train__lora": {"rank": 200, "alpha": 8.0}}
    towers = {"vision": "freeze", "connector": "freeze", "language": "adapt"}
    told = refusal(tmp_path, family="molmo2", train__towers=towers, **asked)
    assert "up to rank 512, language has 600" in told
    recipe(tmp_path, family="glm4v", train__towers=towers, **asked)
    assert families.get("glm4v").vllm_rank("connector", 8) == 16


ASKED = {
    "mode = adapter": {"mode": "adapter", "tower_connector_lora": True},
    "tools": {"tools": True},
    "thinking": {"thinking": True},
    "encoder_parallel": {"encoder_parallel": "data", "tensor_parallel": 2},
    "expert_parallel": {"expert_parallel": True, "tensor_parallel": 2},
}


@pytest.mark.parametrize("where", ASKED)
def test_what_nobody_has_read_of_an_engine_is_not_asked_of_it(where: str) -> None:
    serve, family = Serve.model_validate(ASKED[where]), families.get("qwen3_vl")
    (problem,) = engine_problems(serve, family, "0.34.1")
    assert problem.where == f"serve.{where}"
    assert problem.what.startswith("not known for vLLM 0.34.1 and Qwen3-VL (known for 0.32, 0.33): ")
    assert all(engine_problems(serve, family, version) == [] for version in ("0.32.0", "0.33.2"))


def test_a_merged_model_is_served_by_any_engine() -> None:
    """Whether it is served as trained the serve proof says."""
    assert engine_problems(Serve(), families.get("qwen3_vl"), "1.0") == []


def test_a_family_says_for_which_engines_its_facts_hold() -> None:
    later = replace(families.get("qwen3_vl"), vllm_versions=("0.34",))
    (problem,) = engine_problems(Serve(tools=True), later, "0.32.0")
    assert "known for 0.34" in problem.what
    assert engine_problems(Serve(tools=True), later, "0.34.1") == []
