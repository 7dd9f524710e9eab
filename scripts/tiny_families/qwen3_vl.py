"""The least Qwen3-VL that still has every kind of module: the demo's base at its smallest size."""

from tiny_base.checkpoint import SMALLEST, make_config, make_processor
from transformers import PreTrainedConfig, ProcessorMixin, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from tiny_families.checkpoint import Tiny

ENDS = ("<|im_end|>", "<|endoftext|>")


def _config(processor: ProcessorMixin) -> PreTrainedConfig:
    assert isinstance(processor, Qwen3VLProcessor)
    return make_config(SMALLEST, processor)


TINY = Tiny(make_processor, _config, Qwen3VLForConditionalGeneration, ENDS)
