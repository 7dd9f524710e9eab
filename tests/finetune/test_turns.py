"""Rows whose answer is a turn among tools and thoughts: what of it is taught, as the template writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.encoded import IGNORED
from finetune.encoder import row_encoder
from finetune.rows import RowEncoder
from lensmith.errors import InputError, IntegrityError
from lensmith.rendering import Rendering, ThinkingChoice
from lensmith.sample import Message, Region, Text, Thinking
from lensmith.tokens import read_grid
from tests.finetune.conftest import TrainingMaker
from tests.finetune.row_parts import BOX, LOOK, RENDERING, row_of, tool_row, with_template


@pytest.fixture(scope="module")
def encoder(new_training: TrainingMaker) -> RowEncoder:
    training = new_training()
    return row_encoder(training.recipe, training.recipe.base.path)


@pytest.mark.parametrize(
    ("last", "taught"),
    [
        ((Message("assistant", (Text("It is 7."),)),), "It is 7."),
        (
            (Message("assistant", (Thinking("Clear now."), BOX)),),
            '<think>\nClear now.\n</think>\n\n[{"bbox_2d": [100, 200, 300, 400], "label": "stamp"}]',
        ),
        (
            (LOOK,),
            'I look.\n<tool_call>\n{"name": "zoom", "arguments": {"bbox_2d": [100, 200, 500, 750]}}\n'
            "</tool_call>",
        ),
        (
            (LOOK, Message("tool", (Text("none"),)), Message("assistant", (Text("8"),))),
            "8",
        ),
    ],
)
def test_only_the_final_turn_carries_loss_among_tools(
    encoder: RowEncoder, last: tuple[Message, ...], taught: str
) -> None:
    """Told apart by the special tokens themselves: everything up to the last generation prompt is asked."""
    encoded = encoder.encode(tool_row(*last))
    ids, learned = encoded.tokens["input_ids"], encoded.labels != IGNORED
    tokenizer = encoder.tokenizer
    starts = (ids == tokenizer.convert_tokens_to_ids("<|im_start|>")).nonzero()[:, 0]
    assert not bool(learned[: int(starts[-1])].any())
    assert tokenizer.decode(ids[int(starts[-1]) :]) == f"<|im_start|>assistant\n{taught}<|im_end|>"
    assert tokenizer.decode(ids[learned]) == f"{taught}<|im_end|>"
    asked = tokenizer.decode(ids[~learned])
    assert '{"type": "function", "function": {"name": "zoom", "description": "Cut out."' in asked
    assert '<think>\nToo small.\n</think>\n\nI look.\n<tool_call>\n{"name": "zoom"' in asked
    assert asked.count("<tool_response>") == 1 + (len(last) > 1)
    assert 'Read [{"bbox_2d": [100, 200, 300, 400], "label": "stamp"}]' in asked
    assert int((encoded.tokens["mm_token_type_ids"] > 0).sum()) == 8


def without(part: str) -> Callable[[str], str]:
    """A template that does not know `part` of a message."""
    return lambda text: text.replace(f"message.{part}", "message.unknown")


@pytest.mark.parametrize("part", ["tool_calls", "reasoning_content"])
def test_a_template_that_leaves_out_what_the_label_says_is_caught(tiny_base: Path, part: str) -> None:
    processor = with_template(tiny_base, without(part))
    encoder = RowEncoder(processor, RENDERING, [processor.tokenizer.eos_token_id], 1024)
    row = tool_row(Message("assistant", (Thinking("Clear now."), *LOOK.parts)))
    with pytest.raises(IntegrityError, match="other than its answer"):
        encoder.encode(row)
    if part == "reasoning_content":
        dropping = Rendering(RENDERING.family, "drop")
        encoder = RowEncoder(processor, dropping, [processor.tokenizer.eos_token_id], 1024)
        taught = encoder.tokenizer.decode(encoder.encode(row).labels[-80:].clamp(min=0))
        assert "Clear now." not in taught


def opening_thoughts(text: str) -> str:
    """As Qwen3-VL-Thinking's template: the prompt opens the thought, which each answer has, if empty."""
    thought = "message.reasoning_content"
    text = text.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'")
    text = text.replace(f"if {thought} -", f"if {thought} or loop.last -")
    return text.replace(f"+ {thought} +", f"+ ({thought} or '') +")


ANSWER = '[{"bbox_2d": [100, 200, 300, 400], "label": "stamp"}]'


@pytest.mark.parametrize(
    ("thinking", "parts", "unlearned", "taught"),
    [
        ("keep", (Thinking("Clear now."), BOX), "", f"Clear now.\n</think>\n\n{ANSWER}"),
        ("mask", (Thinking("Clear now."), BOX), "Clear now.\n</think>", f"\n\n{ANSWER}"),
        ("keep", (BOX,), "", f"\n</think>\n\n{ANSWER}"),
        ("mask", (BOX,), "", f"\n</think>\n\n{ANSWER}"),
        ("drop", (Thinking("Clear now."), BOX), "", f"\n</think>\n\n{ANSWER}"),
    ],
)
def test_a_thought_that_the_prompt_opens(
    tiny_base: Path,
    thinking: ThinkingChoice,
    parts: tuple[Thinking | Region, ...],
    unlearned: str,
    taught: str,
) -> None:
    rendering = Rendering(RENDERING.family, thinking)
    processor = with_template(tiny_base, opening_thoughts)
    encoder = RowEncoder(processor, rendering, [processor.tokenizer.eos_token_id], 1024)
    row = tool_row(Message("assistant", parts))
    encoded, rendered = encoder.encode(row), encoder.render(row.sample)
    ids, learned = encoded.tokens["input_ids"], encoded.labels != IGNORED
    decode = encoder.tokenizer.decode
    assert decode(ids[learned]) == f"{taught}<|im_end|>"
    # What is asked ends with the opened thought; a masked one is the answer's, and not learned.
    assert rendered.prompt_text.endswith("<|im_start|>assistant\n<think>\n")
    assert str(decode(ids[~learned])).endswith(f"<|im_start|>assistant\n<think>\n{unlearned}")
    (counted,) = encoder.tokens_of([row], read_grid(tiny_base, rendering.family, None))
    assert (counted.total, counted.answer) == (len(ids), len(rendered.answer_ids))
    # What the model will say is judged without the thought, whose opening tag it was given.
    said = str(decode(rendered.answer_ids[:-1]))
    assert not said.startswith("<think>")
    assert rendering.spoken(said) == rendering.said(row.sample.messages[-1]) == ANSWER


def test_a_prompt_that_opens_a_thought_which_the_answer_lacks_is_refused(tiny_base: Path) -> None:
    """A template that writes no empty thought."""
    processor = with_template(
        tiny_base,
        lambda text: text.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'"),
    )
    encoder = RowEncoder(processor, RENDERING, [processor.tokenizer.eos_token_id], 1024)
    with pytest.raises(InputError, match="where the prompt opens a thought, each row needs one"):
        encoder.encode(row_of("12", (64, 64)))
