"""A tiny GLM-4.6V-Flash: patches of 14 pixels, gate and up fused in the decoder, half of a head rotated."""

from typing import Any

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from tiny_families.checkpoint import Tiny
from tiny_families.vocabulary import make_fast

PATCH = 14
# Pixels times two frames: 4 to 64 image tokens.
BOUNDS = {"shortest_edge": 4 * 2 * 28 * 28, "longest_edge": 64 * 2 * 28 * 28}
SPECIAL = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
)
WORDS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>")
WORDS += ("</arg_value>", "<tool_response>", "</tool_response>", "<|begin_of_box|>", "<|end_of_box|>")
NAMED = {"image_token": "<|image|>", "video_token": "<|video|>"}
ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>")
# What GLM's template makes of turns: a tag before each, none after the answer.
TEMPLATE = """\
{{- '[gMASK]<sop>' -}}
{%- for message in messages -%}
  {%- set role = 'observation' if message.role == 'tool' else message.role -%}
  {{- '<|' + role + '|>\\n' -}}
  {%- if message.reasoning_content -%}
    {{- '<think>' + message.reasoning_content.strip() + '</think>\\n' -}}
  {%- endif -%}
  {%- if message.content is string -%}
    {{- message.content -}}
  {%- else -%}
    {%- for part in message.content -%}
      {%- if part.type in ['image', 'video'] -%}
        {{- '<|begin_of_' + part.type + '|><|' + part.type + '|><|end_of_' + part.type + '|>' -}}
      {%- else -%}
        {{- part.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- for call in message.tool_calls or [] -%}
    {{- ('\\n' if message.content or not loop.first else '') + '<tool_call>' + call.function.name + '\\n' -}}
    {%- for key, value in call.function.arguments.items() -%}
      {{- '<arg_key>' + key + '</arg_key>\\n<arg_value>' -}}
      {{- (value if value is string else value | tojson) + '</arg_value>\\n' -}}
    {%- endfor -%}
    {{- '</tool_call>' -}}
  {%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny vocabulary with GLM's tags."""
    return make_fast(SPECIAL, TEMPLATE, eos="<|endoftext|>", pad="<|endoftext|>", named=NAMED, words=WORDS)


def make_processor() -> Glm46VProcessor:
    """Of the classes that the published GLM-4.6V and GLM-4.6V-Flash name."""
    return Glm46VProcessor(
        image_processor=Glm46VImageProcessor(size=BOUNDS),
        tokenizer=make_tokenizer(),
        video_processor=Glm46VVideoProcessor(size=BOUNDS),
        chat_template=TEMPLATE,
    )


def text_config(processor: ProcessorMixin) -> dict[str, Any]:
    """What the dense and the sparse decoder share."""
    tokenizer = processor.tokenizer
    return {
        "vocab_size": len(tokenizer),
        # transformers divides it by the heads, vLLM reads head_dim.
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
            # Half of the rotated half: 16 frequencies for time, height and width.
            "mrope_section": [4, 6, 6],
        },
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids(list(ENDS)),
    }


def vision_config() -> dict[str, Any]:
    """The vision tower, the same in both."""
    return {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "image_size": 112,
        "patch_size": PATCH,
        "out_hidden_size": 128,
    }


def token_ids(processor: ProcessorMixin) -> dict[str, Any]:
    """The ids that the config names."""
    tokens = {"image": "<|image|>", "video": "<|video|>"}
    for kind in ("image", "video"):
        tokens |= {f"{kind}_start": f"<|begin_of_{kind}|>", f"{kind}_end": f"<|end_of_{kind}|>"}
    return {
        f"{name}_token_id": processor.tokenizer.convert_tokens_to_ids(each) for name, each in tokens.items()
    }


def _config(processor: ProcessorMixin) -> PreTrainedConfig:
    return Glm4vConfig(
        text_config=text_config(processor),
        vision_config=vision_config(),
        tie_word_embeddings=False,
        dtype="float32",
        **token_ids(processor),
    )


TINY = Tiny(make_processor, _config, Glm4vForConditionalGeneration, ENDS)
