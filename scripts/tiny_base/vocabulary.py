"""The tiny base's tokenizer: byte-level BPE of 1,024 tokens, digits one by one, Qwen3-VL's special tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from bank_forms.layout import PROMPT, STATIONERY, draw_payment
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AddedToken, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

VOCABULARY = 1024

# The added tokens of Qwen3-VL's tokenizer in their order; those in angle brackets alone are ordinary text to
# it, kept whole but not skipped when decoding.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
KEPT_WHOLE = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)

_PROSE = """
system user assistant A payment form names the account that is paid, the amount and the day. The customer
writes each digit in a box of its own; the bank prints the boxes, the captions and its name in a pale
colour which a scanner can drop. Read the form. Read the date, the amount and the account number, and
answer with JSON only. What does this picture show? Describe the image. Which words are printed at the
top? Where is the signature? Copy the table. Invoices, receipts, cheques, letters, delivery notes,
customs declarations, meter readings and medical records come as photographs or scans: crooked, pale,
folded, stamped, sometimes upside down. A person who labels them types what is written, not what was
meant. If a field is empty the answer leaves it empty; if it cannot be read the answer says so. Numbers
keep their leading zeros. Amounts have two decimals after the point. Dates are given as year, month and
day, whatever their order on paper was. Names of people, streets and towns are copied letter by letter.
Please be brief. Thank you very much. I do not know. There is nothing to read in this image. first second
third next before after left right above below between under over inside outside small large black white
red green blue yellow grey total number name address phone country city street post code reference
January February March April May June July August September October November December Every claim is
checked against the policy before money moves, so wrong readings cost more than slow ones; when two
readings disagree somebody compares them with the original paper, writes a short note and signs it. Shops
send daily takings, hospitals send prescriptions, warehouses send packing lists, engineers send drawings
with handwritten corrections, schools send attendance sheets and insurers send photographs of damaged
cars. Always quote figures exactly, including currency symbols, units, percentages and minus signs.
Tables keep their rows and columns; charts keep their legends, axes and labels; maps keep their scale.
Point at the object, draw a box around it, count how many there are, explain why, translate what it says
and summarise the whole document. Monday Tuesday Wednesday Thursday Friday Saturday Sunday morning
evening question answer true false null yes no none other unknown
"""


def corpus() -> list[str]:
    """What the BPE merges are learnt from: some prose about forms, the captions, and answers as they look."""
    rng = np.random.default_rng(0)
    answers = [draw_payment(rng).answer() for _ in range(200)]
    captions = [caption for stationery in STATIONERY for caption in (stationery.bank, *stationery.captions)]
    return [*_PROSE.strip().splitlines(), *captions, *answers, *[PROMPT, "user", "assistant", "system"] * 50]


def make_tokenizer(chat_template: str) -> Qwen2Tokenizer:
    """Learn the merges and put Qwen3-VL's added tokens behind them, VOCABULARY tokens in all."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    added = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    added += [AddedToken(token, special=False, normalized=False) for token in KEPT_WHOLE]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(added),
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    learner.train_from_iterator(corpus(), trainer)
    vocabulary, merges = _vocabulary_and_merges(learner)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=1024,
        chat_template=chat_template,
    )
    tokenizer.add_tokens(added)
    if len(tokenizer) != VOCABULARY:
        raise ValueError(f"the corpus gives {len(tokenizer)} tokens instead of {VOCABULARY}: add words to it")
    return tokenizer


def _vocabulary_and_merges(learner: Tokenizer) -> tuple[dict[str, int], list]:
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def read_chat_template() -> str:
    """The chat template that lies beside this module."""
    return (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8").strip()
