"""A tiny Gemma 3: images of 224 x 224 pixels, 16 tokens each; one sliding and one full layer.

Sixteen patches become a token, as in the published ones: vLLM goes by that where an adapter has a vision
part.
"""

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    PreTrainedConfig,
    ProcessorMixin,
)

from tiny_families.checkpoint import Tiny
from tiny_families.vocabulary import make_fast

EDGE, PATCH, TOKENS = 224, 14, 16
SPECIAL = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
NAMED = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
# What Gemma's template makes of turns: a system message leads the first question, the assistant is "model".
TEMPLATE = """\
{{- bos_token -}}
{%- set lead = namespace(text='') -%}
{%- for message in messages -%}
  {%- set parts = namespace(text='') -%}
  {%- if message.content is string -%}
    {%- set parts.text = message.content | trim -%}
  {%- else -%}
    {%- for part in message.content -%}
      {%- set parts.text = parts.text + ('<start_of_image>' if part.type == 'image' else part.text | trim) -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if message.role == 'system' -%}
    {%- set lead.text = parts.text + '\\n\\n' -%}
  {%- else -%}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
    {{- lead.text + parts.text + '<end_of_turn>\\n' -}}
    {%- set lead.text = '' -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""


def _processor() -> Gemma3Processor:
    # vLLM's processor looks for runs of line breaks as tokens.
    breaks = ["\n" * count for count in range(1, 5)]
    tokenizer = make_fast(
        [*SPECIAL, *NAMED.values()],
        TEMPLATE,
        eos="<eos>",
        pad="<pad>",
        bos="<bos>",
        named=NAMED,
        words=breaks,
    )
    half = [0.5, 0.5, 0.5]
    images = Gemma3ImageProcessor(size={"height": EDGE, "width": EDGE}, image_mean=half, image_std=half)
    return Gemma3Processor(images, tokenizer, chat_template=TEMPLATE, image_seq_length=TOKENS)


def _config(processor: ProcessorMixin) -> PreTrainedConfig:
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in NAMED.items()}
    return Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            # Sharp attention: else it hardly matters which of an image's tokens a token sees.
            "query_pre_attn_scalar": 2,
            "sliding_window": 32,
            "layer_types": ["sliding_attention", "full_attention"],
            "max_position_embeddings": 4096,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": EDGE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        mm_tokens_per_image=TOKENS,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
        dtype="float32",
    )


TINY = Tiny(_processor, _config, Gemma3ForConditionalGeneration, ("<eos>", "<end_of_turn>"))
