"""The mask of guided answers over a real tokenizer: it leaves whole JSON of the schema, and then the end."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
import xgrammar
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.grammar import Grammar
from lensmith.guide import Guide

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["in", "out"]},
        "sum": {"type": "string", "pattern": "^[0-9]{1,3}$"},
        "paid": {"type": "boolean"},
    },
    "required": ["kind", "sum", "paid"],
}
# Rows of scores beyond the tokenizer's ids: checkpoints are padded.
PADDING = 7


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_base)


def write(tokenizer: PreTrainedTokenizerBase, guide: Guide, seed: int, limit: int = 200) -> list[list[int]]:
    """Two answers of a model whose scores are drawn at random, chosen greedily under the guide's mask."""
    draw = torch.Generator().manual_seed(seed)
    vocabulary = len(tokenizer)
    end = tokenizer.eos_token_id
    mask = Grammar(guide, tokenizer, vocabulary, [end]).mask()
    ids = torch.zeros((2, 1), dtype=torch.long)
    for _ in range(limit):
        scores = torch.randn((2, vocabulary + PADDING), generator=draw)
        # What is beyond the vocabulary would win, were it not masked.
        scores[:, vocabulary:] = 100.0
        held = mask(ids, scores)
        ended = (ids[:, 1:] == end).any(dim=1, keepdim=True)
        chosen = held.argmax(dim=-1, keepdim=True).where(~ended, end)
        ids = torch.cat([ids, chosen], dim=1)
        if (ids[:, 1:] == end).any(dim=1).all():
            break
    return ids[:, 1:].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_whatever_a_model_prefers_the_answer_is_the_schema_s(
    tokenizer: PreTrainedTokenizerBase, seed: int
) -> None:
    for ids in write(tokenizer, Guide(answer_schema=json.dumps(SCHEMA)), seed):
        whole = ids[: ids.index(tokenizer.eos_token_id)]
        answer = json.loads(tokenizer.decode(whole))
        jsonschema.validate(answer, SCHEMA)
        assert list(answer) == list(SCHEMA["properties"])


def test_white_space_is_the_model_s_choice_unless_the_guide_says_otherwise(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    schema = json.dumps(SCHEMA)
    free = {
        tokenizer.decode(ids)
        for seed in range(5)
        for ids in write(tokenizer, Guide(answer_schema=schema), seed)
    }
    assert any("\n" in answer or "  " in answer for answer in free)
    fixed = Guide(answer_schema=schema, any_whitespace=False)
    for seed in range(5):
        for ids in write(tokenizer, fixed, seed):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            assert text == json.dumps(json.loads(text))


def test_no_end_token_is_text_just_as_in_vllm(tokenizer: PreTrainedTokenizerBase) -> None:
    """vLLM 0.32 tells its matcher of every end token that the checkpoint states: its compiler knows one. An
    engine that knows this one alone takes the others for text, which log-probabilities of a flat
    distribution show."""
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})
    ends = [tokenizer.convert_tokens_to_ids(each) for each in ("<|im_end|>", "<|endoftext|>")]
    size, begun = len(tokenizer), tokenizer.encode('{"a": "1')
    mask = Grammar(Guide(answer_schema=schema), tokenizer, size, ends).mask()
    for count in range(len(begun) + 1):
        held = mask(torch.tensor([[0, *begun[:count]]]), torch.zeros((1, size)))
    ours = set(held[0].isfinite().nonzero()[:, 0].tolist())

    tokens = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size)
    compiled = xgrammar.GrammarCompiler(tokens, max_threads=1).compile_json_schema(
        schema, any_whitespace=True
    )

    def allowed(stop: list[int]) -> set[int]:
        matcher = xgrammar.GrammarMatcher(compiled, override_stop_tokens=stop)
        assert all(matcher.accept_token(each) for each in begun)
        words = xgrammar.allocate_token_bitmask(1, size)
        matcher.fill_next_token_bitmask(words, 0)
        return {each for each in range(size) if words[0, each // 32].item() >> (each % 32) & 1}

    assert allowed(ends) == ours
    assert allowed([tokenizer.eos_token_id]) - ours == set(ends) - {tokenizer.eos_token_id}
