"""A tiny DeepSeek-OCR-2: images and tiles of 768 x 768 pixels, 144 tokens each: the least for its queries.

vLLM builds the published encoders whatever the config says, and pads images to 1024 pixels: so has `SERVED`.
"""

from typing import Any

from transformers import (
    DeepseekOcr2Config,
    DeepseekOcr2ForConditionalGeneration,
    DeepseekOcr2ImageProcessor,
    DeepseekOcr2Processor,
    PreTrainedConfig,
    ProcessorMixin,
)

from lensmith.families.deepseek_ocr2 import FAMILY
from tiny_families.checkpoint import Tiny
from tiny_families.vocabulary import make_fast

EDGE = 768
# Of the whole image in the published processor; 256 tokens.
SERVED_EDGE = 1024
BOS, EOS, PAD = FAMILY.markup[:3]
SPECIAL = (BOS, EOS, PAD, "<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>")


def _processor(edge: int = EDGE) -> DeepseekOcr2Processor:
    template = FAMILY.template
    named = {"image_token": "<image>"}
    tokenizer = make_fast(SPECIAL, template, eos=EOS, pad=PAD, bos=BOS, named=named)
    images = DeepseekOcr2ImageProcessor(size={"height": edge, "width": edge}, tile_size=EDGE)
    return DeepseekOcr2Processor(images, tokenizer, chat_template=template)


_ENCODERS: dict[str, Any] = {
    "sam_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "output_channels": 32,
        "downsample_channels": [32, 64],
        "image_size": EDGE,
        "global_attn_indexes": [1],
    },
    "encoder_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
    },
}
# SAM as its class has it, and the sizes of vLLM's build_qwen2_decoder_as_encoder.
_PUBLISHED: dict[str, Any] = {
    "sam_config": {},
    "encoder_config": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 131_072,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
}


def _served_processor() -> DeepseekOcr2Processor:
    return _processor(SERVED_EDGE)


def _served_config(processor: ProcessorMixin) -> PreTrainedConfig:
    return _config(processor, _PUBLISHED)


def _config(processor: ProcessorMixin, encoders: dict[str, Any] = _ENCODERS) -> PreTrainedConfig:
    tokenizer = processor.tokenizer
    return DeepseekOcr2Config(
        vision_config=encoders,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "mlp_layer_types": ["dense", "sparse"],
            "n_routed_experts": 4,
            "n_shared_experts": 2,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 96,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        dtype="float32",
    )


TINY = Tiny(_processor, _config, DeepseekOcr2ForConditionalGeneration, (EOS,))
SERVED = Tiny(_served_processor, _served_config, DeepseekOcr2ForConditionalGeneration, (EOS,))
