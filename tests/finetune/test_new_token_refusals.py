"""New tokens that cannot be had: each is refused with what is in its way, all of a stage at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.launcher import method_problems, read_launcher
from finetune.new_tokens import read_new_tokens
from finetune.plan import plan
from lensmith.errors import InputError
from lensmith.recipe import load_recipe
from tests.conftest import RecipeMaker
from tests.finetune.conftest import TrainingMaker
from tests.roomy import TOKENS


def test_the_strings_are_judged_with_the_recipe(make_recipe: RecipeMaker) -> None:
    lora = {"rank": 4, "alpha": 8.0, "variant": "dora"}
    tokens = ["", " <a>", "<b>", "<b>", "<|image_pad|>", "<tool", "x<|im_end|>"]
    with pytest.raises(InputError) as error:
        load_recipe(make_recipe(train__new_tokens=tokens, train__lora=lora))
    for words in (
        "new_tokens[0] is empty",
        "' <a>' has white space around it: write '<a>'",
        "'<b>' stands there twice",
        "'<|image_pad|>' begins or holds '<|image_pad|>'",
        "'<tool' begins or holds '<tool_call>'",
        "'x<|im_end|>' begins or holds '<|im_end|>'",
        "not shown to be learned with DoRA",
    ):
        assert words in str(error.value), words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train__method": "qlora"}, "not shown to be learned with method qlora: set train.method to lora"),
        (
            {
                "train__method": "full",
                "train__towers": {"vision": "train", "connector": "freeze", "language": "freeze"},
            },
            "they are weights of the language model, which is frozen",
        ),
        ({"serve__mode": "adapter"}, "vLLM's adapters hold no rows of new tokens, nor their tokenizer"),
        ({"family": "molmo2"}, "where the output head has no rows"),
    ],
)
def test_what_is_not_shown_is_refused(settings: dict[str, Any], words: str, make_recipe: RecipeMaker) -> None:
    with pytest.raises(InputError, match=words):
        load_recipe(make_recipe(train__new_tokens=TOKENS, **settings))


def test_the_tokenizer_judges_all_at_once(roomy: Path) -> None:
    with pytest.raises(InputError) as error:
        read_new_tokens(roomy, ["a", "<|repo", *(f"<n{number}>" for number in range(15))])
    assert "'a': is one token already" in str(error.value)
    assert "'<|repo': begins or holds the token '<|repo_name|>'" in str(error.value)
    assert "has 1,040 rows for its 1,024 tokens: 16 are free, 17 asked" in str(error.value)
    # Byte-level decoders take these letters for bytes.
    with pytest.raises(InputError, match="'<größe>': does not come back from its token as it was"):
        read_new_tokens(roomy, ["<größe>"])


def test_a_row_that_the_config_names_is_not_taken(roomy: Path, tmp_path: Path) -> None:
    shutil.copytree(roomy, tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    path.write_text(
        path.read_text().replace('"vision_end_token_id": ', '"odd_token_id": 1024, "vision_end_token_id": ')
    )
    with pytest.raises(InputError, match="would be token 1024, which is in use or has no row"):
        read_new_tokens(tmp_path / "base", ["<a1>"])


def test_zero_3_is_refused(
    make_recipe: RecipeMaker, roomy: Path, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    deepspeed_config["deepspeed_config"]["zero_stage"] = 3
    path = tmp_path / "zero3.yaml"
    path.write_text(yaml.safe_dump(deepspeed_config))
    recipe = load_recipe(make_recipe(base__path=str(roomy), train__new_tokens=TOKENS))
    (problem,) = method_problems(read_launcher(path), recipe)
    assert "ZeRO stage 3 divides the embeddings" in problem.what


@pytest.mark.slow
def test_a_token_that_nothing_teaches_is_refused(new_training: TrainingMaker, roomy: Path) -> None:
    training = new_training(base__path=roomy, train__new_tokens=[*TOKENS, "<acount>"])
    for attempt in (lambda: plan(training.recipe, training.dataset), training.run):
        with pytest.raises(InputError, match="'<acount>': stands in no training row"):
            attempt()
