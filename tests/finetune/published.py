"""Checkpoints of published sizes without weights: configuration, tokenizer and processor only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import (
    AutoTokenizer,
    GenerationConfig,
    Glm4vConfig,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    Qwen3VLConfig,
)

# What GLM's template writes: tags before each turn, none after the answer.
GLM_TEMPLATE = """\
[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ part.text }}{% endif %}\
{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
GLM_TOKENS = ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
GLM_TOKENS += ["<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>"]
GLM_TOKENS += ["<|begin_of_video|>", "<|end_of_video|>"]


def write_qwen3_vl_8b(out: Path, tiny_base: Path) -> Path:
    """Qwen3-VL-8B-Instruct's numbers, from its published config.json; the tiny base's processor."""
    out.mkdir()
    for path in tiny_base.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, out / path.name)
    config = Qwen3VLConfig(
        architectures=["Qwen3VLForConditionalGeneration"],
        text_config={
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        vision_config={
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        tie_word_embeddings=False,
        # The tokenizer is the tiny base's: its images must be found.
        **{
            name: value
            for name, value in json.loads((tiny_base / "config.json").read_text()).items()
            if name.endswith("_token_id")
        },
    )
    config.save_pretrained(out)
    return out


def write_glm46v_flash(out: Path, tiny_base: Path) -> Path:
    """GLM-4.6V-Flash's numbers (the defaults of transformers' Glm4vConfig) and its real processor class, over
    the tiny tokenizer with GLM's tags."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_special_tokens({"additional_special_tokens": GLM_TOKENS, "eos_token": "<|endoftext|>"})
    Glm46VProcessor(
        image_processor=Glm46VImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Glm46VVideoProcessor(),
        chat_template=GLM_TEMPLATE,
    ).save_pretrained(out)
    ids = [tokenizer.convert_tokens_to_ids(each) for each in ("<|endoftext|>", "<|user|>", "<|observation|>")]
    GenerationConfig(eos_token_id=ids).save_pretrained(out)
    tokens = {"image_token_id": "<|image|>", "video_token_id": "<|video|>"}
    for kind in ("image", "video"):
        tokens |= {
            f"{kind}_start_token_id": f"<|begin_of_{kind}|>",
            f"{kind}_end_token_id": f"<|end_of_{kind}|>",
        }
    Glm4vConfig(
        architectures=["Glm4vForConditionalGeneration"],
        tie_word_embeddings=False,
        # Half of each head is rotated, as its published config.json says.
        text_config={
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [8, 12, 12],
            }
        },
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()},
    ).save_pretrained(out)
    return out
