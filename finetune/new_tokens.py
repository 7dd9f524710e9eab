"""Strings that become single tokens: their ids, which rows of the vocabulary they take, what they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AddedToken, AutoConfig, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import AutoTokenizer

from lensmith.errors import InputError, Problem
from lensmith.new_tokens import in_the_way

# How config.json's keys end that name a token.
_NAMES_A_TOKEN = ("_token_id", "_token_index")


@dataclass(frozen=True)
class NewTokens:
    """ids: by token, in the recipe's order. pieces: by token the ids of what its text was before."""

    ids: dict[str, int] = field(default_factory=dict)
    pieces: dict[str, list[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ids)


NONE = NewTokens()


def read_new_tokens(checkpoint: Path, tokens: Sequence[str]) -> NewTokens:
    """What `tokens` become in the checkpoint's vocabulary, whose matrices keep their size.

    They take rows that the matrices have beyond the tokenizer's tokens: published checkpoints round their
    number up (Qwen3-VL: 151,936 rows, 151,669 tokens). Raises InputError with everything that is in the way:
    a string that is a token already or stands in the way of one, that does not come back from its id as it
    was, no row left.
    """
    if not tokens:
        return NONE
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    own, added = dict(tokenizer.get_vocab()), list(tokenizer.get_added_vocab())
    pieces = {token: _ids(tokenizer, token) for token in tokens}
    problems: list[Problem] = []
    for token in tokens:
        if token in own or len(pieces[token]) == 1:
            problems.append(Problem("is one token already", repr(token), "leave it out"))
        elif other := in_the_way(token, added):
            problems.append(Problem(f"begins or holds the token {other!r}", repr(token), "name it otherwise"))
    rows = int(config.get_text_config().vocab_size)
    free = rows - max(own.values()) - 1
    if len(tokens) > free:
        what = (
            f"has {rows:,} rows for its {len(tokenizer):,} tokens: {free:,} are free, {len(tokens):,} asked"
        )
        problems.append(Problem(what, str(checkpoint), "ask for fewer, or for another base"))
    if not problems:
        add_tokens(tokenizer, tokens)
        ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in tokens}
        taken = {*own.values(), *_named(config.to_dict())}
        problems = list(_id_problems(tokenizer, ids, taken, rows))
        if not problems:
            return NewTokens(ids, pieces)
    raise InputError(f"train.new_tokens cannot be added to {checkpoint}", problems)


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> None:
    """Extend `tokenizer`: text that holds one of `tokens` becomes its id, as it stands; none is special."""
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _id_problems(
    tokenizer: PreTrainedTokenizerBase, ids: dict[str, int], taken: set[int], rows: int
) -> Iterator[Problem]:
    for token, number in ids.items():
        if _ids(tokenizer, token) != [number] or number not in _ids(tokenizer, f"a{token}1"):
            yield Problem("does not become one token", repr(token), "name it otherwise")
        elif str(tokenizer.decode([number])) != token:
            mend = "use letters without accents, digits and signs of ASCII"
            yield Problem("does not come back from its token as it was", repr(token), mend)
        elif number in taken or number >= rows:
            yield Problem(f"would be token {number}, which is in use or has no row", repr(token))


def _named(config: Any) -> Iterator[int]:
    """The ids of tokens that a config names, wherever it does."""
    if not isinstance(config, dict):
        return
    for name, value in config.items():
        if str(name).endswith(_NAMES_A_TOKEN):
            yield from value if isinstance(value, list) else [value]
        else:
            yield from _named(value)
