"""Guided answers in transformers: at each token, what the guide's grammar does not allow cannot come."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xgrammar
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from lensmith.guide import Guide

# A row of xgrammar's masks is 32-bit words, the first token in the lowest bit.
_WORD = 32


class Grammar:
    """A guide's grammar over the tokens of one model."""

    def __init__(
        self, guide: Guide, tokenizer: PreTrainedTokenizerBase, vocabulary: int, ends: Sequence[int]
    ) -> None:
        """vocabulary: how many tokens the model scores. ends: ids that end an answer, once it is whole."""
        tokens = xgrammar.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=vocabulary, stop_token_ids=list(ends)
        )
        compiler = xgrammar.GrammarCompiler(tokens, max_threads=1)
        self._compiled = compiler.compile_json_schema(
            guide.answer_schema, any_whitespace=guide.any_whitespace
        )
        self._vocabulary = vocabulary

    def mask(self) -> GrammarMask:
        """What holds one batch of answers to it, from their first tokens on."""
        return GrammarMask(self._compiled, self._vocabulary)


class GrammarMask(LogitsProcessor):
    """Takes every token that an answer's grammar does not allow next out of the choice."""

    def __init__(self, compiled: xgrammar.CompiledGrammar, vocabulary: int) -> None:
        self._compiled = compiled
        self._vocabulary = vocabulary
        self._answers: list[xgrammar.GrammarMatcher] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """The scores (batch, vocabulary) with minus infinity where a token cannot come.

        An answer that has ended is left alone: what is generated behind it is padding.
        """
        if self._answers:
            for answer, token in zip(self._answers, input_ids[:, -1].tolist(), strict=True):
                if not answer.is_terminated() and not answer.accept_token(token):
                    raise RuntimeError(f"token {token} was chosen, which the grammar does not allow")
        else:
            self._answers = [xgrammar.GrammarMatcher(self._compiled) for _ in range(len(scores))]
        words = xgrammar.allocate_token_bitmask(len(scores), self._vocabulary)
        for i, answer in enumerate(self._answers):
            if not answer.is_terminated():
                answer.fill_next_token_bitmask(words, i)
        bits = (words[:, :, None] >> torch.arange(_WORD, dtype=torch.int32)) & 1
        allowed = torch.zeros(scores.shape, dtype=torch.bool)
        allowed[:, : self._vocabulary] = bits.flatten(1)[:, : self._vocabulary].bool()
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)  # pyright: ignore[reportReturnType]
