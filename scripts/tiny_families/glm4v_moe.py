"""A tiny GLM-4.6V: the first layer dense, then four experts, two of them and a shared one for each token."""

from transformers import (
    Glm4vImageProcessor,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    PreTrainedConfig,
    ProcessorMixin,
)

from tiny_families.checkpoint import Tiny
from tiny_families.glm4v import (
    BOUNDS,
    ENDS,
    TEMPLATE,
    make_tokenizer,
    text_config,
    token_ids,
    vision_config,
)


def _make_processor() -> Glm4vProcessor:
    """Of the classes that GLM-4.5V names; GLM-4.6V names those of GLM-4.6V-Flash."""
    return Glm4vProcessor(
        image_processor=Glm4vImageProcessor(size=BOUNDS),
        tokenizer=make_tokenizer(),
        video_processor=Glm4vVideoProcessor(size=BOUNDS),
        chat_template=TEMPLATE,
    )


def _config(processor: ProcessorMixin) -> PreTrainedConfig:
    text = text_config(processor) | {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 96,
        "first_k_dense_replace": 1,
        # The published checkpoints state it; only vLLM reads it.
        "use_qk_norm": False,
    }
    return Glm4vMoeConfig(
        text_config=text,
        vision_config=vision_config(),
        tie_word_embeddings=False,
        dtype="float32",
        **token_ids(processor),
    )


TINY = Tiny(_make_processor, _config, Glm4vMoeForConditionalGeneration, ENDS)
