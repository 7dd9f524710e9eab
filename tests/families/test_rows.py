"""Prompts, answers and image tokens of every family, against its real processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.encoded import IGNORED
from finetune.encoder import row_encoder
from finetune.rows import RowEncoder
from lensmith.counting import count_tokens
from lensmith.errors import InputError, IntegrityError
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.sample import Message, Sample, Text, Thinking, ToolCall
from lensmith.tokens import read_grid
from tests.families.conftest import Checkpoint, row_of
from tests.family_results import Shows

pytestmark = pytest.mark.slow

SIZES = [(64, 64), (112, 112), (300, 40), (33, 500), (200, 220), (640, 480), (769, 100), (1600, 300)]
# Ids that a question and an answer cannot hold.
TURN_ENDS = {
    "qwen3_vl": "<|im_end|>",
    "qwen3_vl_moe": "<|im_end|>",
    "glm4v": "<|endoftext|>",
    "glm4v_moe": "<|endoftext|>",
    "gemma3": "<end_of_turn>",
    "deepseek_ocr2": "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "molmo2": "<|im_end|>",
}


@pytest.fixture
def encoder(checkpoint: Checkpoint) -> RowEncoder:
    return row_encoder(checkpoint.recipe(language="adapt"), checkpoint.root)


def image_tokens(checkpoint: Checkpoint, ids: torch.Tensor) -> int:
    """How many of a prompt's ids the model replaces by image features, or that mark its rows and ends."""
    processor = checkpoint.processor
    marks = set(processor.image_token_ids)
    return sum(token in marks for token in ids.tolist())


def test_image_tokens_are_the_processors(checkpoint: Checkpoint, encoder: RowEncoder, shows: Shows) -> None:
    shows(checkpoint.family.name, "", "rows")
    grid = read_grid(checkpoint.root, checkpoint.family, None)
    counted = [grid.tokens(*size) for size in SIZES]
    encoded = [encoder.encode(row_of("12", size)) for size in SIZES]
    assert counted == [image_tokens(checkpoint, each.tokens["input_ids"]) for each in encoded]
    assert max(counted) <= grid.most_tokens
    widths, heights = np.array(SIZES).T
    assert count_tokens(grid, widths, heights).tolist() == counted


def test_only_the_answer_and_its_end_carry_loss(
    checkpoint: Checkpoint, encoder: RowEncoder, shows: Shows
) -> None:
    """Told apart by the family's own end-of-turn token, not by the code under test."""
    shows(checkpoint.family.name, "", "rows")
    end = encoder.tokenizer.convert_tokens_to_ids(TURN_ENDS[checkpoint.family.name])
    for answer in ('{"a": "12"}', "Thank you.", "two\nlines"):
        encoded = encoder.encode(row_of(answer, (200, 100)))
        taught = encoded.labels[encoded.labels != IGNORED].tolist()
        assert taught[-1] == end
        assert encoder.tokenizer.decode(taught[:-1]).strip() == answer
        ids = encoded.tokens["input_ids"].tolist()
        assert ids[-len(taught) :] == taught
        assert {len(each) for each in encoded.tokens.values()} == {len(ids)}


def test_rows_are_counted_as_they_are_encoded(
    checkpoint: Checkpoint, encoder: RowEncoder, shows: Shows
) -> None:
    """One image, several, none: texts and images without a processor, against the processor."""
    shows(checkpoint.family.name, "", "rows")
    grid = read_grid(checkpoint.root, checkpoint.family, None)
    rows = [
        row_of('{"a":"12"}', (256, 128)),
        row_of("7", (33, 200), (120, 120)),
        row_of("text alone"),
        row_of("8", (640, 480), question="What does this picture show?\n\nAnswer in one word."),
    ]
    for row, counted in zip(rows, encoder.tokens_of(rows, grid), strict=True):
        encoded = encoder.encode(row)
        learned = int((encoded.labels != IGNORED).sum())
        image = image_tokens(checkpoint, encoded.tokens["input_ids"])
        expected = (len(encoded.labels) - learned - image, image, learned)
        assert (counted.text, counted.image, counted.answer) == expected


def test_the_prompt_is_what_generation_is_asked(
    checkpoint: Checkpoint, encoder: RowEncoder, shows: Shows
) -> None:
    shows(checkpoint.family.name, "", "rows")
    from finetune.prompts import encode_conversation

    row = row_of("12", (200, 100))
    asked = encode_conversation(
        checkpoint.processor, encoder.rendering, row.sample, row.images, answered=False
    )
    encoded = encoder.encode(row)
    prompt = asked["input_ids"][0]
    assert torch.equal(encoded.tokens["input_ids"][: len(prompt)], prompt)
    assert bool((encoded.labels[: len(prompt)] == IGNORED).all())
    assert not bool((encoded.labels[len(prompt) :] == IGNORED).any())


def spoken_row(*parts: Thinking | ToolCall | Text) -> Row:
    return Row(Sample("a", "g", (Message("user", (Text("How many?"),)), Message("assistant", parts))), ())


def test_thoughts_are_taught_or_refused(checkpoint: Checkpoint, encoder: RowEncoder) -> None:
    row = spoken_row(Thinking("one and one"), Text("two"))
    if checkpoint.family.speech.thinking is None:
        with pytest.raises(InputError, match="has no thoughts"):
            encoder.encode(row)
        dropping = RowEncoder(
            encoder.processor, Rendering(checkpoint.family, "drop"), encoder.end_ids, encoder.max_length
        )
        taught = dropping.encode(row).labels
        assert "one and one" not in encoder.tokenizer.decode(taught[taught != IGNORED])
    else:
        taught = encoder.encode(row).labels
        assert "one and one" in encoder.tokenizer.decode(taught[taught != IGNORED])


def test_a_masked_thought_is_seen_and_not_taught(checkpoint: Checkpoint, encoder: RowEncoder) -> None:
    """Qwen3-VL's and GLM's forms: the prompt may hold the opening tag, the answer follows the closing one."""
    masking = RowEncoder(
        encoder.processor, Rendering(checkpoint.family, "mask"), encoder.end_ids, encoder.max_length
    )
    row = spoken_row(Thinking("one and one"), Text("two"))
    if checkpoint.family.speech.thinking is None:
        with pytest.raises(InputError, match="has no thoughts"):
            masking.encode(row)
        return
    kept, masked = encoder.encode(row), masking.encode(row)
    assert torch.equal(masked.tokens["input_ids"], kept.tokens["input_ids"]), "the thought stays in the row"
    learned = str(encoder.tokenizer.decode(masked.labels[masked.labels != IGNORED]))
    assert learned.lstrip("\n").startswith("two")
    both = (kept.labels != IGNORED) & (masked.labels == IGNORED)
    unlearned = str(encoder.tokenizer.decode(kept.tokens["input_ids"][both]))
    assert "one and one" in unlearned
    assert unlearned.endswith("</think>")
    assert torch.equal(masked.labels[~both], kept.labels[~both])


def test_a_row_without_a_thought_is_taught_whole_when_thoughts_are_masked(
    checkpoint: Checkpoint, encoder: RowEncoder
) -> None:
    masking = RowEncoder(
        encoder.processor, Rendering(checkpoint.family, "mask"), encoder.end_ids, encoder.max_length
    )
    row = spoken_row(Text("two"))
    assert torch.equal(masking.encode(row).labels, encoder.encode(row).labels)


def test_a_thought_that_is_masked_and_taught_all_the_same_stops(
    made: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_one = made["qwen3_vl"]
    masking = RowEncoder(made_one.processor, Rendering(made_one.family, "mask"), [], 4096)
    monkeypatch.setattr(RowEncoder, "_masked", lambda *_: 0)
    with pytest.raises(IntegrityError, match="something other than its answer"):
        masking.encode(spoken_row(Thinking("one and one makes what is one more than one"), Text("two")))


def test_calls_are_taught_or_refused(checkpoint: Checkpoint, encoder: RowEncoder) -> None:
    row = spoken_row(ToolCall("count", {"what": "cars"}))
    if checkpoint.family.speech.call is None:
        with pytest.raises(InputError, match="has no tool calls"):
            encoder.encode(row)
    else:
        taught = encoder.encode(row).labels
        assert "count" in encoder.tokenizer.decode(taught[taught != IGNORED])
