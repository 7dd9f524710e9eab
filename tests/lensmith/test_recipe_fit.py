"""What of a recipe does not fit together: method, towers, adapter, serving. All of it is said at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lensmith import families
from lensmith.errors import InputError
from lensmith.families.family import TOWERS
from tests.lensmith.recipe_text import GOOD, changed, load, only_problem, problems

ADAPTED = "{vision: adapt, connector: adapt, language: adapt}"


def test_method_and_towers_must_fit(folder: Path) -> None:
    assert "method lora cannot train the language model whole beside an adapter" in only_problem(
        folder, changed("language: adapt", "language: train")
    )
    told = [problem.what for problem in problems(folder, changed("method: lora", "method: full"))]
    assert told == [
        "method full trains no tower: set at least one to train",
        "method full cannot adapt a tower: set it to train or freeze",
    ]


BESIDE = "{vision: adapt, connector: train, language: adapt}"


def test_a_tower_is_trained_whole_beside_an_adapter(folder: Path) -> None:
    text = changed(ADAPTED, BESIDE)
    for method in ("lora", "qlora"):
        train = load(folder, text, f"train.method={method}", "train.tower_learning_rates.connector=0.1").train
        assert train.whole_beside == ["connector"]
        assert train.learning_rate_of("connector") == 0.1
    told = only_problem(folder, text, "train.lora.towers.connector.rank=4")
    assert "connector is not adapted: leave out its rank and alpha" in told
    assert "adapts no tower" in only_problem(
        folder, changed(ADAPTED, "{vision: freeze, connector: train, language: freeze}")
    )
    full = load(
        folder, changed("method: lora", "method: full").replace(ADAPTED, ADAPTED.replace("adapt", "train"))
    )
    assert full.train.whole_beside == []


def test_what_is_whole_beside_an_adapter_is_merged(folder: Path) -> None:
    """vLLM takes no adapter that holds it, live ones no more than others."""
    text = changed(ADAPTED, BESIDE)
    for more in ((), ("serve.live={max_adapters: 2, max_rank: 16}",)):
        told = only_problem(folder, text, "serve.mode=adapter", "serve.tower_connector_lora=true", *more)
        assert told.endswith(
            "vLLM's adapters hold no tower that is trained whole, as connector is:"
            " merge it: serve.mode: merged"
        )


def test_a_tower_that_no_adapter_can_hold(folder: Path) -> None:
    text = changed(ADAPTED, BESIDE).replace("family: qwen3_vl", "family: deepseek_ocr2")
    told = only_problem(folder, text)
    assert "DeepSeek-OCR-2's connector cannot be trained whole beside an adapter: model.view_sep" in told
    assert told.endswith("set towers.connector to adapt or freeze, or train.method to full")
    load(folder, text.replace("vision: adapt, connector: train", "vision: train, connector: adapt"))


def test_everything_that_does_not_fit_together_is_told_at_once(folder: Path) -> None:
    """Each on a line of its own, with the line of its section: of a section, then of sections together."""
    text = GOOD.replace("vision: adapt", "vision: freeze").replace("language: adapt", "language: train")
    settings = (
        "train.objective=dpo",
        "train.pack_length=16",
        "train.quantization.type=fp4",
        "train.lora={experts: {}, dropout: 0.1, variant: dora, towers: {vision: {rank: 2}}}",
        "train.tower_learning_rates.vision=0.5",
        "data.sources=[{path: other}]",
        "data.format=coco",
        "data.answer=text",
        "data.split.stratify=total",
    )
    told = [
        str(problem).replace(f"{folder}/recipe.yaml", "") for problem in problems(folder, text, *settings)
    ]
    assert told == [
        ":5 data: give the data either as source or as sources",
        ":5 data: format and options belong to each of the sources",
        ":5 data: split.stratify names a field, which only answers in JSON have",
        "-s train.lora: PEFT applies no dropout on routed experts: set dropout to 0, or leave out experts",
        "-s train.lora: PEFT applies no DoRA on routed experts: set variant to lora or rslora, or leave out"
        " experts",
    ]
    settings = (*settings[:3], "train.lora.towers={vision: {rank: 2}}", settings[4])
    told = [problem.what for problem in problems(folder, text, *settings)]
    assert [each.partition(":")[0] for each in told] == [
        "method lora cannot train the language model whole beside an adapter (a head that is tied to it and"
        " routed experts would not be merged as trained)",
        "quantization is for method qlora, not lora",
        "pack_length is below max_length 4096",
        "tower_learning_rates",
        "lora.towers",
        "objective dpo scores rows in pairs, which packs take apart",
    ]
    text = changed("family: qwen3_vl", "family: gemma3")
    settings = ("train.lora.variant=dora", "serve.mode=adapter", "pixels={min_pixels: 1, max_pixels: 4}")
    told = [str(problem).removeprefix(str(folder)) for problem in problems(folder, text, *settings)]
    assert [each.partition(":")[2].partition(":")[0].strip() for each in told] == [
        "Gemma 3 cuts images to sizes of its own",
        "Gemma 3 has no linear layer that LoRA could adapt in",
        "vLLM applies no DoRA adapter",
        "the adapter would be served in part, without vision, connector",
    ]


def test_lora_on_frozen_towers_only(folder: Path) -> None:
    text = changed(
        "{vision: adapt, connector: adapt, language: adapt}",
        "{vision: freeze, connector: freeze, language: freeze}",
    )
    assert "adapts no tower" in only_problem(folder, text)


def test_an_adapter_that_would_be_served_in_part_is_refused_before_it_is_trained(folder: Path) -> None:
    assert only_problem(folder, GOOD, "serve.mode=adapter") == (
        "/recipe.yaml: the adapter would be served in part, without vision, connector:"
        " merge it: serve.mode: merged; or serve.tower_connector_lora: true"
    )
    text = changed(ADAPTED, "{vision: freeze, connector: adapt, language: adapt}")
    assert "without connector:" in only_problem(folder, text, "serve.mode=adapter")
    load(folder, GOOD, "serve.mode=adapter", "serve.tower_connector_lora=true")
    load(
        folder, changed(ADAPTED, "{vision: freeze, connector: freeze, language: adapt}"), "serve.mode=adapter"
    )


def test_a_family_whose_adapters_the_engine_does_not_apply_is_told_why_it_will_be_merged(
    folder: Path,
) -> None:
    text = changed("family: qwen3_vl", "family: deepseek_ocr2")
    told = [str(each) for each in problems(folder, text, "serve.mode=adapter")]
    (problem,) = [each for each in told if "adapter" in each]
    assert (
        "vLLM applies no adapter of DeepSeek-OCR-2, so it will be merged: set serve.mode to merged" in problem
    )
    assert "built for cpu, beside adapters vLLM computes" in problem
    assert "built for cuda, vLLM takes an adapter" in problem


def test_a_tower_that_the_engine_never_adapts_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(families.get("qwen3_vl").vllm_adapts, "vision")
    told = only_problem(folder, GOOD, "serve.mode=adapter", "serve.tower_connector_lora=true")
    assert told.endswith("without vision: merge it: serve.mode: merged")


def test_a_full_fine_tune_has_no_adapter_to_serve(folder: Path) -> None:
    text = changed("method: lora", "method: full").replace(ADAPTED, ADAPTED.replace("adapt", "train"))
    assert load(folder, text).serve.mode == "merged"
    assert "makes no adapter to serve: set serve.mode to merged" in only_problem(
        folder, text, "serve.mode=adapter"
    )


def test_rows_are_packed_where_it_is_proven(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = changed("method: lora", "method: lora\n  pack_length: 8192")
    assert load(folder, text).train.pack_length == 8192
    short = changed("method: lora", "method: lora\n  pack_length: 4095")
    assert "pack_length is below max_length 4096: a row may not fit" in only_problem(folder, short)
    unproven = dataclasses.replace(families.get("qwen3_vl"), packs=None)
    monkeypatch.setitem(families.FAMILIES, "qwen3_vl", unproven)
    assert "not proven to learn the same in Qwen3-VL: remove train.pack_length" in only_problem(folder, text)
    load(folder, GOOD)


QLORA = GOOD.replace("method: lora", "method: qlora")


def test_a_base_in_4_bits(folder: Path) -> None:
    train = load(folder, QLORA, "train.quantization={type: fp4}", "train.lora.variant=dora").train
    assert (train.quantization.type, train.quantization.double, train.adapts) == ("fp4", True, True)
    assert "quantization is for method qlora, not lora: leave it out" in only_problem(
        folder, GOOD, "train.quantization.double=false"
    )
    assert "method qlora cannot train the language model whole beside an adapter" in only_problem(
        folder, QLORA.replace("language: adapt", "language: train")
    )
    load(folder, GOOD, "train.quantization={type: nf4, double: true}")


def test_an_adapter_on_a_base_in_4_bits_is_merged(folder: Path) -> None:
    """The engine would put it on the base as it is."""
    told = only_problem(folder, QLORA, "serve.mode=adapter", "serve.tower_connector_lora=true")
    assert told.endswith("it is trained on the base in 4 bits: merge it: serve.mode: merged")


def test_routed_experts_in_4_bits_take_no_adapter(folder: Path) -> None:
    experts = QLORA.replace("family: qwen3_vl", "family: qwen3_vl_moe")
    assert load(folder, experts).train.method == "qlora"
    told = only_problem(folder, experts, "train.lora.experts={rank: 2, alpha: 4}")
    assert "experts are not shown to be learned with method qlora: set train.method to lora" in told


def test_dora_cannot_be_served_as_an_adapter(folder: Path) -> None:
    dora = "train.lora.variant=dora"
    assert load(folder, GOOD, dora).train.lora.variant == "dora"
    told = only_problem(folder, GOOD, dora, "serve.mode=adapter", "serve.tower_connector_lora=true")
    assert told == "/recipe.yaml: vLLM applies no DoRA adapter: merge it: serve.mode: merged"
    load(
        folder,
        GOOD,
        "train.lora.variant=rslora",
        "serve.mode=adapter",
        "serve.tower_connector_lora=true",
    )


LANGUAGE = changed(ADAPTED, "{vision: freeze, connector: freeze, language: adapt}")


def test_a_rank_that_vllm_has_no_room_for_is_merged(folder: Path) -> None:
    large = "train.lora.towers={vision: {rank: 513}, language: {rank: 600}}"
    assert load(folder, GOOD, large).train.lora.rank_of("vision") == 513
    adapter = ("serve.mode=adapter", "serve.tower_connector_lora=true")
    assert only_problem(folder, GOOD, large, *adapter) == (
        "/recipe.yaml: vLLM serves adapters up to rank 512, vision has 513, language has 600:"
        " merge it: serve.mode: merged"
    )
    load(folder, GOOD, "train.lora.rank=512", *adapter)
    # Of a tower that is frozen no rank is asked.
    load(
        folder,
        LANGUAGE,
        "train.lora.rank=600",
        "train.lora.towers={language: {rank: 8}}",
        "serve.mode=adapter",
    )


def test_an_engine_that_adapters_share_has_room_for_this_one(folder: Path) -> None:
    live = "serve.live={max_adapters: 4, max_rank: 8}"
    assert "merged weights take none: set mode to adapter" in only_problem(folder, LANGUAGE, live)
    serve = load(folder, LANGUAGE, "serve.mode=adapter", live).serve
    assert serve.live is not None
    assert (serve.live.max_adapters, serve.live.max_rank, serve.live.at_once) == (4, 8, None)
    assert only_problem(folder, LANGUAGE, "serve.mode=adapter", live, "train.lora.rank=9") == (
        "/recipe.yaml: the adapter's rank 9 is above serve.live.max_rank: set it to 9, for all that share the"
        " engine; or merge it: serve.mode: merged, without serve.live"
    )
    more = "serve.live={max_adapters: 4, max_rank: 8, at_once: 5}"
    assert "at_once is above max_adapters (4)" in only_problem(folder, LANGUAGE, "serve.mode=adapter", more)
    above = "serve.live={max_adapters: 4, max_rank: 513}"
    assert "less than or equal to 512" in only_problem(folder, LANGUAGE, "serve.mode=adapter", above)


def test_all_that_vllm_would_not_apply_is_said_at_once(folder: Path) -> None:
    settings = ("train.lora={variant: dora, rank: 600, alpha: 8.0}", "serve.mode=adapter")
    new_tokens = 'train.new_tokens=["<field>"]'
    text = GOOD.replace("family: qwen3_vl", "family: molmo2")
    told = [each.what for each in problems(folder, text, *settings, new_tokens)]
    for part in ("no DoRA adapter", "up to rank 512", "no rows of new tokens", "in part, without vision"):
        (found,) = [each for each in told if part in each]
        assert found.endswith("merge it: serve.mode: merged")


def test_towers_have_ranks_alphas_and_rates_of_their_own(folder: Path) -> None:
    train = load(
        folder,
        GOOD,
        "train.lora={rank: 16, alpha: 32.0, towers: {vision: {rank: 4}, language: {alpha: 8.0}}}",
        "train.tower_learning_rates={vision: 0.5}",
        "train.learning_rate=0.25",
    ).train
    assert [train.lora.rank_of(tower) for tower in TOWERS] == [4, 16, 16]
    assert [train.lora.scale_of(tower) for tower in TOWERS] == [8.0, 2.0, 0.5]
    assert [train.learning_rate_of(tower) for tower in TOWERS] == [0.5, 0.25, 0.25]
    rslora = train.lora.model_copy(update={"variant": "rslora"})
    assert rslora.scale_of("vision") == 16.0


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("train.lora.towers={vision: {rank: 4}}", "lora.towers: vision is not adapted"),
        ("train.tower_learning_rates={vision: 0.5}", "tower_learning_rates: vision is frozen"),
        ("train.lora.towers={connector: {rank: 0}}", "greater than or equal to 1"),
        ("train.tower_learning_rates={connector: 0.0}", "greater than 0"),
        ("train.tower_learning_rates={merger: 0.5}", "unknown key"),
    ],
)
def test_settings_of_a_tower_that_has_no_use_for_them_are_refused(
    folder: Path, setting: str, says: str
) -> None:
    text = changed(ADAPTED, "{vision: freeze, connector: adapt, language: adapt}")
    assert says in only_problem(folder, text, setting)


def test_what_preference_training_cannot_do_is_said_at_once(folder: Path) -> None:
    whole = "train.towers={vision: freeze, connector: freeze, language: train}"
    with pytest.raises(InputError) as error:
        load(folder, GOOD, "train.objective=dpo", "train.method=full", "train.pack_length=4096", whole)
    assert "compares with the base, which method full changes: set method to lora or qlora" in str(
        error.value
    )
    assert "scores rows in pairs, which packs take apart: leave out pack_length" in str(error.value)
    with pytest.raises(InputError, match="not shown to be learned with objective dpo"):
        load(folder, GOOD, "train.objective=dpo", "train.new_tokens=['<iban>']")
    with pytest.raises(InputError, match="beta is objective dpo's"):
        load(folder, GOOD, "train.beta=0.2")


def test_beta_of_preference_training(folder: Path) -> None:
    assert load(folder, GOOD, "train.objective=dpo").train.dpo_beta == 0.1
    assert load(folder, GOOD, "train.objective=dpo", "train.beta=0.3").train.dpo_beta == 0.3
