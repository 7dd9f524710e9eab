"""The recipe's loader: every problem at once, each with its line and its mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lensmith import families
from lensmith.errors import InputError
from lensmith.recipe import known_keys, section_at
from lensmith.rendering import Rendering
from lensmith.tokens import PixelBudget
from tests.lensmith.recipe_text import GOOD, changed, load, only_problem, problems


def test_a_good_recipe_loads_with_its_defaults(folder: Path) -> None:
    recipe = load(folder)
    assert recipe.train.lora.rank == 8
    assert recipe.train.batch_size == 1
    assert recipe.serve.host == "127.0.0.1"
    assert recipe.model_family.name == "qwen3_vl"
    assert recipe.licence == "Apache-2.0"


def test_paths_are_relative_to_the_recipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    recipe = load(folder)
    assert recipe.base.path == folder / "models/base"
    assert recipe.data.source == folder / "forms/labels.jsonl"
    assert recipe.train.launcher == folder.parent / "accelerate/cpu.yaml"
    assert recipe.gates == folder.parent / "gates/default.yaml"


def test_paths_given_on_the_command_line_are_relative_to_where_it_is_typed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(folder, GOOD, "base.path=other/base").base.path == tmp_path / "other/base"


def test_the_home_directory_is_meant_by_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert load(folder, changed("models/base", "~/base")).base.path == Path("/somewhere/base")


def test_misspelt_key_at_every_level(folder: Path) -> None:
    assert only_problem(folder, changed("learning_rate: 0.001", "learning_rate: 0.001\n  epoch: 3")) == (
        "/recipe.yaml:14 train.epoch: unknown key (did you mean 'epochs'?)"
    )
    assert only_problem(folder, changed("rank: 8", "rank: 8, alfa: 2")) == (
        "/recipe.yaml:11 train.lora.alfa: unknown key (did you mean 'alpha'?)"
    )
    assert "did you mean 'pixels'?" in only_problem(folder, GOOD + "pixel: {}\n")
    assert only_problem(folder, GOOD + "zzz: 1\n") == "/recipe.yaml:18 zzz: unknown key (remove it)"


def test_wrong_types_are_not_coerced(folder: Path) -> None:
    assert "valid integer, not '8'" in only_problem(folder, changed("rank: 8", "rank: '8'"))
    assert "valid integer, not 8.5" in only_problem(folder, changed("rank: 8", "rank: 8.5"))
    assert "valid integer, not True" in only_problem(folder, changed("rank: 8", "rank: true"))
    assert "not 7" in only_problem(folder, changed("models/base", "7"))
    assert "not 'galore'" in only_problem(folder, changed("method: lora", "method: galore"))


@pytest.mark.parametrize("value", ["40%", "'0.4'", "-1", "1.5", "true", ".nan", "[1]", "null"])
def test_what_is_neither_share_nor_count_is_told_once(folder: Path, value: str) -> None:
    told = only_problem(folder, changed("  answer: json", f"  answer: json\n  max_bad: {value}"))
    assert told.startswith("/recipe.yaml:8 data.max_bad: ")
    assert "a share (0 to below 1) or a whole number of rows is expected" in told


@pytest.mark.parametrize("value", [0, 0.4, 1, 30])
def test_a_share_or_a_count(folder: Path, value: float) -> None:
    assert (
        load(folder, changed("  answer: json", f"  answer: json\n  max_bad: {value}")).data.max_bad == value
    )


@pytest.mark.parametrize("value", ["1", "0", "0.5", "-2", "maybe", "null"])
def test_what_is_no_every_how_many_is_told_once(folder: Path, value: str) -> None:
    told = only_problem(
        folder, changed("  method: lora", f"  method: lora\n  gradient_checkpointing: {value}")
    )
    assert " train.gradient_checkpointing: true, false, or every how many (2 or more) is expected" in told


def test_no_more_pixels_are_promised_than_pillow_opens(folder: Path) -> None:
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    given = changed("  answer: json", f"  answer: json\n  max_image_pixels: {most}")
    assert load(folder, given).data.max_image_pixels == most
    more = given.replace(str(most), str(most + 1))
    assert only_problem(folder, more).startswith("/recipe.yaml:8 data.max_image_pixels: ")


def test_1e_4_is_text_to_yaml_and_the_error_says_what_to_write(folder: Path) -> None:
    assert only_problem(folder, changed("0.001", "1e-4")) == (
        "/recipe.yaml:13 train.learning_rate: '1e-4' is text, a number is expected"
        " (YAML reads 1e-4 as text: write 0.0001)"
    )
    assert "write 1.0e-06" in only_problem(folder, changed("0.001", "1e-6"))
    assert load(folder, changed("0.001", "1.0e-06")).train.learning_rate == 1e-6
    assert only_problem(folder, changed("0.001", "fast")).endswith("'fast' is text, a number is expected")


@pytest.mark.parametrize("rank", ["0", "-1"])
def test_rank_out_of_range(folder: Path, rank: str) -> None:
    message = only_problem(folder, changed("rank: 8", f"rank: {rank}"))
    assert message.startswith("/recipe.yaml:11 train.lora.rank: Input should be")
    assert message.endswith(f"not {rank}")


@pytest.mark.parametrize("rate", ["0", "-0.1", ".nan", ".inf"])
def test_learning_rate_that_teaches_nothing(folder: Path, rate: str) -> None:
    assert "train.learning_rate" in only_problem(folder, changed("0.001", rate))


def test_duplicate_key(folder: Path) -> None:
    assert "is given twice (the first is on line 9)" in only_problem(
        folder, changed("method: lora", "method: lora\n  method: full")
    )


def test_missing_key_names_its_section_line(folder: Path) -> None:
    assert only_problem(folder, changed("  learning_rate: 0.001\n", "")) == (
        "/recipe.yaml:8 train.learning_rate: is missing (add it)"
    )


def test_all_problems_at_once_each_with_its_line(folder: Path) -> None:
    text = (
        GOOD.replace("qwen3_vl", "qwen3_lv")
        .replace("rank: 8", "rank: 0")
        .replace("0.001", "1e-3")
        .replace("bank-forms", "Bank Forms")
        .replace("answer: json", "anwser: json")
    )
    found = {problem.where.rpartition("/")[2]: problem for problem in problems(folder, text)}
    assert list(found) == [
        "recipe.yaml:2 family",
        "recipe.yaml:7 data.anwser",
        "recipe.yaml:11 train.lora.rank",
        "recipe.yaml:13 train.learning_rate",
        "recipe.yaml:15 release.name",
    ]
    assert "did you mean qwen3_vl?" in found["recipe.yaml:2 family"].what


def test_splits_must_leave_rows_to_train_on(folder: Path) -> None:
    text = changed("answer: json", "split: {validation: 0.5, held_out: 0.5}")
    assert "leave no rows" in only_problem(folder, text)


def test_pixel_budget_upside_down(folder: Path) -> None:
    assert "above max_pixels" in only_problem(folder, GOOD + "pixels: {min_pixels: 9, max_pixels: 4}\n")
    assert "min is above max" in only_problem(folder, GOOD + "pixels: {image_tokens: {min: 9, max: 4}}\n")
    both = "pixels: {min_pixels: 1, max_pixels: 4, image_tokens: {min: 1, max: 4}}\n"
    assert "not both" in only_problem(folder, GOOD + both)
    for half in ("{}", "{min_pixels: 4}", "{max_pixels: 4}"):
        assert "give min_pixels and max_pixels" in only_problem(folder, GOOD + f"pixels: {half}\n")


def test_settings_lie_over_the_recipe(folder: Path) -> None:
    recipe = load(
        folder, GOOD, "train.epochs=2", "data.split.seed=3", "train.lora.rank=4", "train.wandb=disabled"
    )
    assert (recipe.train.epochs, recipe.data.split.seed) == (2, 3)
    assert (recipe.train.lora.rank, recipe.train.wandb) == (4, "disabled")


def test_a_bad_setting_is_told_as_a_setting(folder: Path) -> None:
    assert only_problem(folder, GOOD, "train.epoch=2").startswith("-s train.epoch: unknown key (did you mean")
    assert only_problem(folder, GOOD, "train.learning_rate=1e-5").startswith("-s train.learning_rate: '1e-5'")


def test_settings_that_cannot_be_laid_over(folder: Path) -> None:
    told = [str(each) for each in problems(folder, GOOD, "epochs", "=3", "gates.name=x", "train.seed=[1")]
    assert told[0] == "epochs: is not key.path=value (for example -s train.epochs=2)"
    assert told[1].startswith("=3: is not key.path=value")
    assert told[2] == "gates.name=x: sets a key below a value"
    assert told[3].startswith("train.seed=[1: is not a YAML value")


def test_every_key_has_a_description() -> None:
    def undescribed(dotted: str) -> list[str]:
        section = section_at(dotted)
        assert section is not None
        names = [f"{dotted}.{name}".lstrip(".") for name in known_keys(dotted)]
        here = [name for name in names if not section.model_fields[name.rpartition(".")[2]].description]
        return here + [each for name in names if known_keys(name) for each in undescribed(name)]

    assert undescribed("") == []


@pytest.mark.parametrize(("family", "patch", "area"), [("qwen3_vl", 16, 32 * 32), ("glm4v", 14, 28 * 28 * 2)])
def test_a_budget_in_image_tokens_is_one_in_the_base_s_pixels(
    folder: Path, family: str, patch: int, area: int
) -> None:
    base = folder / "models/base"
    base.mkdir(parents=True)
    settings = {"patch_size": patch, "merge_size": 2, "size": {"shortest_edge": 1, "longest_edge": 2}}
    (base / "preprocessor_config.json").write_text(json.dumps(settings))
    text = changed("qwen3_vl", family)
    assert load(folder, text).pixel_budget is None
    in_tokens = load(folder, text + "pixels: {image_tokens: {min: 4, max: 1280}}\n")
    assert in_tokens.pixel_budget == PixelBudget(4 * area, 1280 * area)
    in_pixels = load(folder, text + "pixels: {min_pixels: 4096, max_pixels: 65536}\n")
    assert in_pixels.pixel_budget == PixelBudget(4096, 65_536)
    (base / "preprocessor_config.json").unlink()
    assert in_pixels.pixel_budget == PixelBudget(4096, 65_536)
    with pytest.raises(InputError, match="no image processor"):
        _ = in_tokens.pixel_budget


def test_models_are_taught_and_asked_by_one_rendering(folder: Path) -> None:
    assert load(folder).rendering == Rendering(families.get("qwen3_vl"), "keep")
    assert load(folder, GOOD, "train.thinking=drop").rendering.thinking == "drop"
