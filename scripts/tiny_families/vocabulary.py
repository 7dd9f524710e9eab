"""The tiny base's byte-level vocabulary with another family's special tokens and chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tiny_base.vocabulary import make_tokenizer
from transformers import AddedToken, PreTrainedTokenizerFast


def make_fast(
    special: Sequence[str],
    template: str,
    *,
    eos: str,
    pad: str,
    bos: str | None = None,
    named: Mapping[str, str] | None = None,
    words: Sequence[str] = (),
    last: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """A tokenizer with the special tokens `special`; `named` are the attributes that a processor looks for
    ("image_token"), `words` ordinary tokens that are kept whole. `last` of the special tokens, in this order,
    have the highest ids."""
    backend = make_tokenizer("").backend_tokenizer
    first = [each for each in special if each not in last]
    backend.add_special_tokens(first)
    backend.add_tokens(list(words))
    backend.add_special_tokens(list(last))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=4096,
        chat_template=template,
        eos_token=eos,
        pad_token=pad,
        bos_token=bos,
        extra_special_tokens=dict(named or {}),
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    return tokenizer
