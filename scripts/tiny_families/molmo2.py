"""A tiny Molmo2: crops of 84 x 84 pixels, six by six patches of which four by four are a crop's own."""

from typing import Any

from transformers import (
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2ImageProcessor,
    Molmo2Processor,
    Molmo2VideoProcessor,
    PreTrainedConfig,
    ProcessorMixin,
)

from tiny_families.checkpoint import Tiny
from tiny_families.vocabulary import make_fast

EDGE, PATCH = 84, 14
EXTRA = 128
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Behind the vocabulary proper: the output head has no rows for them.
IMAGE = (
    "<im_start>",
    "<im_end>",
    "<im_patch>",
    "<im_col>",
    "<low_res_im_start>",
    "<|image|>",
    "<im_low>",
    "<frame_start>",
    "<frame_end>",
    "<|video|>",
)
NAMED = {"image_token": "<|image|>", "video_token": "<|video|>"}
# What Molmo2's template makes of turns: images first, each numbered where there are several, then the video,
# and the space.
TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0, all=0) -%}
{%- for message in messages -%}
  {%- if message.content is not string -%}
    {%- for part in message.content -%}
      {%- if part.type == 'image' -%}{%- set seen.all = seen.all + 1 -%}{%- endif -%}
      {%- if part.type == 'video' -%}{%- set seen.videos = seen.videos + 1 -%}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
{%- for number in range(seen.all) -%}
  {{- ('Image ' ~ (number + 1) if seen.all > 1 else '') ~ '<|image|>' -}}
{%- endfor -%}
{{- '<|video|>' * seen.videos -}}
{%- for message in messages -%}
  {%- if message.role != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('roles must alternate, the user first') -}}
  {%- endif -%}
  {%- set said = namespace(text='') -%}
  {%- if message.content is string -%}
    {%- set said.text = message.content -%}
  {%- else -%}
    {%- for part in message.content if part.type == 'text' -%}
      {%- set said.text = said.text ~ (' ' if said.text else '') ~ part.text -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if message.role == 'user' -%}
    {{- ('' if loop.first else '<|im_end|>\\n') ~ '<|im_start|>user\\n' ~ said.text ~ '<|im_end|>\\n' -}}
  {%- else -%}
    {{- ' <|im_start|>assistant\\n' ~ said.text -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def _processor() -> Molmo2Processor:
    tokenizer = make_fast(
        [*SPECIAL, *IMAGE],
        TEMPLATE,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        bos="<|im_end|>",
        named=NAMED,
        last=IMAGE,
    )
    size = {"height": EDGE, "width": EDGE}
    images = Molmo2ImageProcessor(size=size, patch_size=PATCH, overlap_margins=[1, 1], max_crops=4)
    # The class in transformers 5.20 states neither; that of the published checkpoints does both.
    videos = Molmo2VideoProcessor(size=size, patch_size=PATCH, do_rescale=True, do_normalize=True)
    return Molmo2Processor(images, videos, tokenizer, chat_template=TEMPLATE)


def _config(processor: ProcessorMixin) -> PreTrainedConfig:
    tokenizer = processor.tokenizer

    def token(text: str) -> int:
        return tokenizer.convert_tokens_to_ids(text)

    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    config = Molmo2Config(
        text_config={
            "vocab_size": token(IMAGE[0]),
            "additional_vocab_size": EXTRA,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 4096,
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "image_size": [EDGE, EDGE],
            "patch_size": PATCH,
            **heads,
        },
        adapter_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "text_hidden_size": 64,
            "vision_feature_layer": [1, 0],
            **heads,
        },
        image_start_token_id=token("<im_start>"),
        low_res_image_start_token_id=token("<low_res_im_start>"),
        image_end_token_id=token("<im_end>"),
        image_patch_id=token("<im_patch>"),
        frame_start_token_id=token("<frame_start>"),
        frame_end_token_id=token("<frame_end>"),
        dtype="float32",
    )
    # In the published config too; only vLLM reads them.
    config.update({"image_col_id": token("<im_col>"), "image_low_res_id": token("<im_low>")})
    return config


def _publish(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of the published config; its tower names a layer more than the adapter reads or a file has."""
    vision, adapter = config.pop("vision_config"), config.pop("adapter_config")
    layers = vision["num_hidden_layers"] + 1
    renamed = {
        "image_size": "image_default_input_size",
        "num_position_embeddings": "image_num_pos",
        "patch_size": "image_patch_size",
    }
    vision = {renamed.get(key, key): value for key, value in vision.items()}
    adapter["vit_layers"] = [layer - layers for layer in adapter.pop("vision_feature_layer")]
    config["vit_config"] = vision | {"num_hidden_layers": layers, "model_type": "molmo2"}
    config["adapter_config"] = adapter | {"model_type": "molmo2"}
    config["auto_map"] = {
        "AutoConfig": "configuration_molmo2.Molmo2Config",
        "AutoModelForImageTextToText": "modeling_molmo2.Molmo2ForConditionalGeneration",
    }
    return config


TINY = Tiny(_processor, _config, Molmo2ForConditionalGeneration, ("<|im_end|>",), _publish)
