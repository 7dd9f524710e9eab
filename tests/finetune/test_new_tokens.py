"""New tokens from the recipe to the merged model: their rows are trained, no other; all read them alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers.models.auto.tokenization_auto import AutoTokenizer

import finetune.adapter
from finetune.adapted import load_trained
from finetune.adapter import choose_trained
from finetune.dry_run import dry_step
from finetune.greedy import end_ids, greedy
from finetune.launch import train
from finetune.launcher import check_method, read_launcher
from finetune.lora import lora_config
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.model import load_model, load_processor, load_skeleton
from finetune.new_tokens import NewTokens, read_new_tokens
from finetune.plan import plan
from lensmith.base import pin_base
from lensmith.dataset import read_held_out
from lensmith.errors import InputError, IntegrityError
from lensmith.recipe import load_recipe
from tests.artifacts import make_held_out
from tests.conftest import RecipeMaker
from tests.finetune.conftest import Training, TrainingMaker, assert_same_run
from tests.finetune.merged import Walk, as_bfloat16, planted
from tests.finetune.test_distributed import TOLERANCE, assert_deepspeed, assert_same_weights, launcher
from tests.finetune.test_train import broken_after
from tests.roomy import with_room

# Pieces of every answer, several tokens before. The first is learned at the first position of an answer.
TOKENS = ['{"account":"', '","amount":"', '","date":"20']
IDS = dict(zip(TOKENS, (1024, 1025, 1026), strict=True))
WEIGHTS = "adapter_model.safetensors"
EMBEDDINGS, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
FULL = {"vision": "freeze", "connector": "freeze", "language": "train"}


@pytest.fixture(scope="session")
def roomy(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_room(tiny_base, tmp_path_factory.mktemp("roomy") / "base", 16)


@pytest.fixture(scope="session")
def tied(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_room(tiny_base, tmp_path_factory.mktemp("tied") / "base", 16, tied=True)


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
            {"train__method": "full", "train__towers": FULL | {"vision": "train", "language": "freeze"}},
            "they are weights of the language model, which is frozen",
        ),
        ({"serve__mode": "adapter"}, "vLLM's adapters hold no rows of new tokens, nor their tokenizer"),
        ({"family": "molmo2"}, "not proven to be learned and served in Molmo2"),
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
    with pytest.raises(InputError, match="ZeRO stage 3 divides the embeddings"):
        check_method(read_launcher(path), recipe)


@pytest.mark.slow
def test_a_token_that_nothing_teaches_is_refused(new_training: TrainingMaker, roomy: Path) -> None:
    training = new_training(base__path=roomy, train__new_tokens=[*TOKENS, "<acount>"])
    for attempt in (lambda: plan(training.recipe, training.dataset), training.run):
        with pytest.raises(InputError, match="'<acount>': stands in no training row"):
            attempt()


@pytest.fixture(params=["own_head", "tied"])
def started(request: pytest.FixtureRequest, roomy: Path, tied: Path) -> Path:
    return tied if request.param == "tied" else roomy


def test_rows_start_as_the_mean_of_their_pieces(started: Path, make_recipe: RecipeMaker) -> None:
    new = read_new_tokens(started, TOKENS)
    assert new.ids == IDS
    assert all(len(pieces) > 2 for pieces in new.pieces.values())
    recipe = load_recipe(make_recipe(base__path=started, train__new_tokens=TOKENS))
    before = load_model(started, torch.float32).state_dict()
    model = choose_trained(load_model(started, torch.float32), recipe, new=new).model
    after = model.state_dict()
    prefix, suffix = "base_model.model.", "token_adapter.base_layer.weight"
    for name in (EMBEDDINGS, HEAD):
        rows = after[prefix + name.replace("weight", suffix)]
        assert torch.equal(rows[:1024], before[name][:1024])
        for token, number in IDS.items():
            assert torch.allclose(rows[number], before[name][new.pieces[token]].mean(0), atol=1e-6)
    trained = {name for name, each in model.named_parameters() if each.requires_grad and "lora" not in name}
    rows = ".token_adapter.trainable_tokens_delta.default"
    wanted = {EMBEDDINGS} if started.parent.name.startswith("tied") else {EMBEDDINGS, HEAD}
    assert trained == {prefix + name.removesuffix(".weight") + rows for name in wanted}


def test_rows_beside_the_matrix_learn_as_rows_in_it(
    started: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and every gradient, in one dtype and with rows in another, equal PEFT's own."""
    new = read_new_tokens(started, TOKENS)
    recipe = load_recipe(make_recipe(base__path=str(started), train__new_tokens=TOKENS))
    ids = torch.tensor([[5, 1024, 9, 1026, 1024, 77, 1025, 8]])

    def step(dtype: torch.dtype) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = choose_trained(load_model(started, dtype), recipe, new=new).model
        with torch.no_grad():
            for name, each in model.named_parameters():
                if "lora_B" in name or "trainable_tokens" in name:
                    each.add_(0.1 * torch.randn_like(each))
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
        return found | {"loss": loss.detach()}

    for dtype, atol in ((torch.float32, 1e-6), (torch.bfloat16, 0.02)):
        ours = step(dtype)
        with monkeypatch.context() as patch:
            patch.setattr(finetune.adapter, "compute_apart", lambda model: None)
            theirs = step(dtype)
        assert ours.keys() == theirs.keys()
        assert sum("trainable_tokens" in name for name in ours) >= 1
        for name, value in theirs.items():
            assert torch.allclose(ours[name].float(), value.float(), atol=atol), name


def test_no_pass_holds_a_copy_of_a_matrix(
    roomy: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = {name: torch.ones(1, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask", "labels")}

    def held(*tokens: str) -> int:
        recipe = load_recipe(make_recipe(base__path=str(roomy), train__new_tokens=list(tokens)))
        model = choose_trained(load_skeleton(roomy), recipe, new=read_new_tokens(roomy, tokens)).model
        return dry_step(model, batch, checkpointing=False, autocast=False).held

    matrix = 1040 * 64 * torch.float32.itemsize
    plain = held()
    assert plain < held(*TOKENS) < plain + matrix / 2
    monkeypatch.setattr(finetune.adapter, "compute_apart", lambda model: None)
    assert held(*TOKENS) > plain + matrix


def test_training_the_whole_matrix_is_noticed(
    roomy: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole_matrix(*arguments: Any) -> Any:
        config = lora_config(*arguments[:2])
        config.modules_to_save = ["embed_tokens"]
        return config

    monkeypatch.setattr(finetune.adapter, "lora_config", whole_matrix)
    recipe = load_recipe(make_recipe(base__path=roomy, train__new_tokens=TOKENS))
    with pytest.raises(
        IntegrityError, match=r"embed_tokens\.modules_to_save\.default\.weight: is trained whole"
    ):
        choose_trained(load_skeleton(roomy), recipe, new=read_new_tokens(roomy, TOKENS))


def test_rows_that_peft_is_not_told_of_are_noticed(
    roomy: Path, make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(make_recipe(base__path=roomy, train__new_tokens=TOKENS))
    new = read_new_tokens(roomy, TOKENS)
    for told in (None, {"lm_head": [1024, 1025, 1026]}, {"model.language_model.embed_tokens": [1024]}):

        def other(lora: Any, targets: Any, rows: Any, told: Any = told) -> Any:
            return lora_config(lora, targets, told)

        monkeypatch.setattr(finetune.adapter, "lora_config", other)
        with pytest.raises(IntegrityError, match="the rows that are trained are not the new tokens'"):
            choose_trained(load_skeleton(roomy), recipe, new=new)
    with pytest.raises(ValueError, match="the recipe's new tokens are"):
        choose_trained(load_skeleton(roomy), recipe, new=NewTokens())


# From here on whole trainings.


def whole(training: Training, forms: Path) -> Walk:
    base = pin_base(training.recipe, training.home)
    run = training.run()
    model = merge(training.recipe, training.home, base, run)
    return Walk(training.recipe, training.home, base, run, model, make_held_out(training.home, forms, 12))


def prove(walk: Walk) -> tuple[bool, str]:
    proof = prove_merge(walk.recipe, walk.home, walk.base, walk.run, walk.model, walk.held_out)
    return proof.passed, "\n".join(proof.statement["findings"])


@pytest.fixture(scope="session")
def learned(new_training: TrainingMaker, roomy: Path, bank_forms: Path) -> Walk:
    """Taught for long enough to say new tokens."""
    settings = {"train__max_steps": 25, "train__learning_rate": 0.02, "train__save_every": 25}
    return whole(new_training(base__path=roomy, train__new_tokens=TOKENS, **settings), bank_forms)


def changed_rows(base: Path, model: Path, name: str) -> list[int]:
    before, after = (load_file(root / "model.safetensors")[name] for root in (base, model))
    assert before.shape == after.shape
    return (before != after).any(1).nonzero().flatten().tolist()


@pytest.mark.slow
def test_exactly_these_rows_change(learned: Walk, roomy: Path) -> None:
    assert learned.run.body["new_tokens"] == IDS
    for name in (EMBEDDINGS, HEAD):
        assert changed_rows(roomy, learned.model.path, name) == list(IDS.values())
    assert prove(learned) == (True, "")


@pytest.mark.slow
def test_the_model_answers_in_new_tokens(learned: Walk, new_training: TrainingMaker, roomy: Path) -> None:
    """What is taught is one id a token: an answer is shorter by their pieces, and written with them."""
    trained = load_trained(roomy, learned.run.path, torch.float32)
    processor, ends = load_processor(roomy, None, TOKENS), end_ids(roomy, trained)
    rows = read_held_out(learned.home, learned.held_out, "test")[:2]
    answers = list(greedy(trained, processor, learned.recipe.rendering, rows, ends, 8))
    assert len(answers) == 2
    for each in answers:
        (said,) = (token for token, number in IDS.items() if number == each.answer_ids[0])
        assert each.answer_text.startswith(said)
    plain = new_training(base__path=roomy)
    ours, theirs = (plan(each.recipe, plain.dataset) for each in (learned, plain))
    saved = sum(len(pieces) - 1 for pieces in read_new_tokens(roomy, TOKENS).pieces.values())
    # Where a piece also began or ended with what stands beside it, a little less.
    least = ours.rows.rows * (saved - len(TOKENS))
    assert theirs.rows.answer_tokens - ours.rows.answer_tokens >= least > 0
    assert ours.new_tokens == IDS


def on_added(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        path = root / "tokenizer.json"
        content = json.loads(path.read_bytes())
        change(content["added_tokens"])
        path.write_text(json.dumps(content))

    return fault


def swapped(added: list[dict[str, Any]]) -> None:
    added[-1]["content"], added[-2]["content"] = added[-2]["content"], added[-1]["content"]


def missing(added: list[dict[str, Any]]) -> None:
    del added[-1]


def special(added: list[dict[str, Any]]) -> None:
    added[-1]["special"] = True


def one_more(added: list[dict[str, Any]]) -> None:
    added.append(added[-1] | {"id": added[-1]["id"] + 1, "content": "<one_more>"})


def on_rows(name: str, number: int) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        tensors = load_file(root / "model.safetensors")
        tensors[name][number] += 0.01
        save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})

    return fault


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "swapped": (on_added(swapped), "2 new tokens are not read or written as trained"),
    "missing": (
        on_added(missing),
        "the tokenizer has other tokens than the base's and the",
    ),
    "special": (on_added(special), "1 new tokens are not read or written as trained"),
    "one_more": (on_added(one_more), "differ from the base's in more than the new tokens: tokenizer.json"),
    "other_row": (on_rows(EMBEDDINGS, 7), f"merged tensors differ from the definition: {EMBEDDINGS}"),
    "new_row": (on_rows(HEAD, 1025), f"merged tensors differ from the definition: {HEAD}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_proof_finds(learned: Walk, name: str) -> None:
    fault, words = FAULTS[name]
    passed, text = prove(planted(learned, name, fault))
    assert not passed
    assert words in text


@pytest.mark.slow
def test_one_matrix_for_both_in_bfloat16(
    new_training: TrainingMaker, tied: Path, bank_forms: Path, tmp_path: Path
) -> None:
    """Tied, in another dtype than the rows are trained in, and stored a second time all the same."""
    shutil.copytree(tied, tmp_path / "base")
    tensors = load_file(tied / "model.safetensors")
    save_file(tensors | {HEAD: tensors[EMBEDDINGS].clone()}, tmp_path / "base" / "model.safetensors")
    as_bfloat16(tmp_path / "base")
    made = whole(
        new_training(base__path=tmp_path / "base", train__new_tokens=TOKENS, train__dtype="bfloat16"),
        bank_forms,
    )
    assert len([name for name in load_file(made.run.path / WEIGHTS) if "trainable_tokens" in name]) == 1
    for name in (EMBEDDINGS, HEAD):
        assert changed_rows(tmp_path / "base", made.model.path, name) == list(IDS.values())
    assert prove(made) == (True, "")


@pytest.mark.slow
def test_full_trains_them_with_the_rest(new_training: TrainingMaker, roomy: Path, bank_forms: Path) -> None:
    settings = {"train__method": "full", "train__towers": FULL, "train__new_tokens": TOKENS}
    made = whole(new_training(base__path=roomy, **settings, train__learning_rate=0.0001), bank_forms)
    new = read_new_tokens(roomy, TOKENS)
    before, after = (load_file(root / "model.safetensors") for root in (roomy, made.model.path))
    for name in (EMBEDDINGS, HEAD):
        for token, number in IDS.items():
            start = before[name][new.pieces[token]].mean(0)
            assert 0 < float((after[name][number] - start).abs().max()) < 0.001
    assert prove(made) == (True, "")
    # The run is a whole checkpoint of its own, with the tokenizer that it was taught with.
    assert read_vocabulary(made.run.path) == read_vocabulary(made.model.path)


def read_vocabulary(root: Path) -> dict[str, int]:
    return AutoTokenizer.from_pretrained(root, local_files_only=True).get_vocab()


@pytest.mark.slow
def test_packed_and_resumed_it_learns_the_same(
    new_training: TrainingMaker, roomy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"base__path": roomy, "train__new_tokens": TOKENS}
    unbroken = new_training(**settings)
    losses = unbroken.losses()
    assert new_training(**settings, train__pack_length=1024).losses() == pytest.approx(losses, abs=1e-5)
    broken = new_training(**settings)
    broken_after(2, broken, monkeypatch)
    assert_same_run(broken, unbroken)
    assert broken.run().record()["resumed_at"] == 2


@pytest.mark.slow
def test_two_processes_learn_the_same(
    new_training: TrainingMaker, roomy: Path, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    config = launcher(tmp_path / "zero2.yaml", deepspeed_config, 2)
    settings = {"base__path": roomy, "train__new_tokens": TOKENS}
    single = new_training(**settings)
    training = new_training(**settings, train__launcher=config, train__batch_size=1)
    train(training.recipe, training.recipe_path, (), training.home, training.base, training.dataset)
    assert_deepspeed(training.run(), 2)
    assert training.losses() == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(training.run(), single.run(), WEIGHTS)
