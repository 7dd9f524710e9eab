"""The tiny base: an ordinary Qwen3-VL checkpoint, taught print and no handwriting, the same every time."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bank_forms.layout import PROMPT
from make_tiny_base import DEMO, SMALLEST, Course, make_tiny_base
from PIL import Image
from tiny_base.checkpoint import MAX_PIXELS, MIN_PIXELS, make_config
from tiny_base.lessons import Lessons, collate
from tiny_base.teaching import rate
from tiny_base.vocabulary import KEPT_WHOLE, SPECIAL_TOKENS, VOCABULARY
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2Tokenizer,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_tiny_base.py"
SHORT = Course(row_steps=2, rows_a_step=4, form_steps=2, forms_a_step=2)
ANSWER = '{"account":"482913","amount":"37.50","date":"2026-03-14"}'
# Head sizes of vLLM's CPU attention, as its own error lists them (vLLM 0.32).
VLLM_CPU_HEAD_SIZES = {32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512}


@pytest.fixture(scope="module")
def processor(tiny_base: Path) -> Qwen3VLProcessor:
    return AutoProcessor.from_pretrained(tiny_base)


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    return Lessons(seed=1)


def conversation(answer: str, image: Image.Image | None = None) -> list[dict]:
    picture = {"type": "image"} if image is None else {"type": "image", "image": image}
    return [
        {"role": "user", "content": [picture, {"type": "text", "text": PROMPT}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_any_qwen3_vl_tool_opens_it(tiny_base: Path, processor: Qwen3VLProcessor) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_base)
    assert isinstance(model, Qwen3VLForConditionalGeneration)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert isinstance(processor, Qwen3VLProcessor)
    assert isinstance(processor.tokenizer, Qwen2Tokenizer)
    assert isinstance(processor.video_processor, Qwen3VLVideoProcessor)
    assert dict(processor.image_processor.size) == {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    generation = model.generation_config
    assert generation.do_sample is False
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in generation.eos_token_id
    assert "Apache License" in (tiny_base / "LICENSE").read_text()


def test_it_answers_about_a_picture_and_a_video(tiny_base: Path, processor: Qwen3VLProcessor) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_base)
    prompt = processor.apply_chat_template(conversation(ANSWER)[:1], add_generation_prompt=True)
    asked = processor(text=[prompt], images=[Image.new("RGB", (96, 64))], return_tensors="pt")
    assert (asked["input_ids"] == model.config.image_token_id).sum() == 3 * 2
    assert model.generate(**asked, max_new_tokens=4).shape[1] > asked["input_ids"].shape[1]
    film = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": PROMPT}]}]
    prompt = processor.apply_chat_template(film, add_generation_prompt=True)
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    asked = processor(text=[prompt], videos=[frames], return_tensors="pt")
    assert (asked["input_ids"] == model.config.video_token_id).sum() == 2 * 4
    assert model(**asked).logits.isfinite().all()


@pytest.mark.parametrize("size", [SMALLEST, DEMO])
def test_vllm_has_the_head_sizes(size, processor: Qwen3VLProcessor) -> None:
    config = make_config(size, processor)
    assert config.text_config.head_dim in VLLM_CPU_HEAD_SIZES
    assert config.vision_config.hidden_size // config.vision_config.num_heads in VLLM_CPU_HEAD_SIZES
    assert sum(config.text_config.rope_parameters["mrope_section"]) == config.text_config.head_dim // 2


def test_the_vocabulary_is_small_and_whole(processor: Qwen3VLProcessor) -> None:
    tokenizer = processor.tokenizer
    assert len(tokenizer) == VOCABULARY == make_config(SMALLEST, processor).text_config.vocab_size
    assert sorted(tokenizer.get_vocab().values()) == list(range(VOCABULARY))
    for token in (*SPECIAL_TOKENS, *KEPT_WHOLE):
        assert tokenizer.tokenize(f"a{token}b") == ["a", token, "b"]
    text = "Zahlung über 1.234,50 € an 株式会社 😀\n\t<end>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.tokenize("2026") == ["2", "0", "2", "6"]
    assert tokenizer.decode(tokenizer.encode("<|im_start|>a<think>"), skip_special_tokens=True) == "a<think>"


def test_the_generation_marks_cover_the_answer_and_its_end(processor: Qwen3VLProcessor) -> None:
    encoded = processor.tokenizer.apply_chat_template(
        conversation(ANSWER), return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [
        token for token, mark in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mark
    ]
    assert processor.tokenizer.decode(marked) == f"{ANSWER}<|im_end|>"


def test_the_template_takes_text_and_parts_alike(processor: Qwen3VLProcessor) -> None:
    as_text = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
    ]
    as_parts = [
        {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in as_text
    ]
    said = processor.apply_chat_template(as_text, add_generation_prompt=True)
    assert said == processor.apply_chat_template(as_parts, add_generation_prompt=True)
    assert said == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_template_shows_pictures_and_refuses_what_it_does_not_know(processor: Qwen3VLProcessor) -> None:
    def said(kind: str) -> str:
        return processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": [{"type": kind}]}], tokenize=False
        )

    picture = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
    assert said("image") == said("image_url") == picture
    assert said("video") == picture.replace("image", "video")
    with pytest.raises(Exception, match="not audio"):
        said("audio")


@pytest.mark.parametrize("kind", ["form", "strip"])
def test_lessons_look_as_the_processor_makes_them(
    kind: str, lessons: Lessons, processor: Qwen3VLProcessor
) -> None:
    exercises = [lessons.form() if kind == "form" else lessons.strip() for _ in range(3)]
    batch = collate(exercises, processor)
    for row, exercise in enumerate(exercises):
        text = processor.apply_chat_template(conversation(exercise.answer)).removesuffix("\n")
        real = processor(text=[text], images=[Image.fromarray(exercise.picture)], return_tensors="pt")
        length = real["input_ids"].shape[1]
        patches = real["pixel_values"].shape[0]
        assert batch.input_ids[row, :length].tolist() == real["input_ids"][0].tolist()
        assert batch.mm_token_type_ids[row, :length].tolist() == real["mm_token_type_ids"][0].tolist()
        assert batch.attention_mask[row].sum() == length
        assert batch.image_grid_thw[row].tolist() == real["image_grid_thw"][0].tolist()
        mine = batch.pixel_values[row * patches : (row + 1) * patches]
        torch.testing.assert_close(mine, real["pixel_values"], rtol=0, atol=1e-6)


def test_only_the_answer_carries_loss(lessons: Lessons, processor: Qwen3VLProcessor) -> None:
    exercises = [lessons.form() for _ in range(8)]
    batch = collate(exercises, processor)
    for row, exercise in enumerate(exercises):
        learnt = batch.labels[row] != -100
        assert processor.tokenizer.decode(batch.input_ids[row][learnt]) == f"{exercise.answer}<|im_end|>"
        assert torch.equal(batch.labels[row][learnt], batch.input_ids[row][learnt])


def test_a_strip_is_one_field_of_a_form(lessons: Lessons) -> None:
    strips = [lessons.strip() for _ in range(40)]
    assert {strip.picture.shape for strip in strips} == {(32, 256, 3)}
    assert {tuple(json.loads(strip.answer)) for strip in strips} == {("account",), ("amount",), ("date",)}


def test_the_rate_warms_up_holds_and_falls() -> None:
    rates = [rate(step, 400) for step in range(400)]
    assert rates[0] < rates[29] == rates[200] == 1
    assert rates[200] > rates[300] > rates[399] > 0.05


@pytest.mark.slow
def test_no_handwriting_is_within_reach_of_the_teaching() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import make_tiny_base;"
        "sys.exit('mlxtend' in sys.modules or 'sklearn.datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        make_tiny_base(tmp_path / name, seed, SMALLEST, SHORT)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    first, third = digest(tmp_path / "one"), digest(tmp_path / "three")
    assert {name for name in first if first[name] != third[name]} == {"model.safetensors", "teaching.json"}
    record = json.loads((tmp_path / "one" / "teaching.json").read_text())
    assert record["seed"] == 1
    assert record["course"]["row_steps"] == 2
    assert record["taught"]["losses"]


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(FileExistsError, match="already there"):
        make_tiny_base(tmp_path / "base", 1, SMALLEST, SHORT)


@pytest.mark.slow
def test_after_a_kill_nothing_half_written_is_there_and_a_rerun_starts_clean(tmp_path: Path) -> None:
    out = tmp_path / "base"
    process = subprocess.Popen([sys.executable, SCRIPT, out], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any(line.startswith("step 20 ") for line in process.stderr)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    leftover = tmp_path / ".base.partial"
    assert leftover.exists()
    (leftover / "half-written").write_text("")
    make_tiny_base(out, 1, SMALLEST, SHORT)
    assert not leftover.exists()
    assert not (out / "half-written").exists()
    assert AutoModelForImageTextToText.from_pretrained(out).num_parameters() > 0
