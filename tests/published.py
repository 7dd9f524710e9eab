"""Published models without their weights: their numbers, over the classes and tokenizers of the tiny ones.

Where the numbers come from: for Qwen3-VL and Gemma 3 config.json of the recipes' bases (of 4B, 8B and
30B-A3B benchmarks/gpu/sizes.py); for Molmo2 config.json of allenai/Molmo2-4B, and the defaults of its
class, which are Molmo2-8B's; for DeepSeek-OCR-2 `language_config` of deepseek-ai/DeepSeek-OCR-2 and the
encoders that vLLM builds; for both GLM-4.6V the defaults of their classes with the vocabulary of
config.json, and for the width of the larger one's connector what the number of its weights leaves.
`parameters` are those of the published weights: a number that is copied wrongly does not add up to them.
Of both GLM-4.6V, DeepSeek-OCR-2 and Molmo2-8B no published figure was at hand: theirs is the shapes' sum.
What is not named here changes no tensor's shape.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as Picture
from tiny_families import MAKERS, SERVED
from transformers import GenerationConfig

from benchmarks.gpu.sizes import SIZES, Size
from lensmith.artifact import Artifact
from lensmith.dataset import split_file
from lensmith.home import Home
from lensmith.images import encode_png
from lensmith.row_file import Row, write_rows
from lensmith.sample import Image, Message, Sample, Text

# A scanned page: A4 at 200 dots an inch.
PAGE = (1654, 2339)


@dataclass(frozen=True)
class Published:
    """A published model.

    config: what differs in config.json from that of the family's tiny model, in each of its sections.
    images: attributes of its image processor. image_tokens: of an image, where the processor says so. tied:
    the output head is the embeddings.
    """

    family: str
    parameters: int
    config: dict[str, Any]
    images: dict[str, Any] = field(default_factory=dict)
    image_tokens: int = 0
    tied: bool = False


def _text(
    hidden: int, feed_forward: int, layers: int, heads: int, key_values: int, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_values,
        **more,
    }


def _qwen(like: Size, parameters: int, text: dict[str, Any] | None = None) -> Published:
    """A Qwen3-VL with the vision tower of `like`, and with its `text` where another is given."""
    text = like.text | (text or {})
    vision = like.vision | {"out_hidden_size": text["hidden_size"]}
    return Published(like.family, parameters, {"text_config": text, "vision_config": vision}, tied=like.tied)


_QWEN_4B, _QWEN_8B, _QWEN_30B = (SIZES[f"qwen3_vl_{size}"] for size in ("4b", "8b", "30b_a3b"))

_GLM_VISION: dict[str, Any] = {
    "depth": 24,
    "hidden_size": 1536,
    "num_heads": 12,
    "image_size": 336,
    "out_hidden_size": 4096,
}
_GLM_TEXT: dict[str, Any] = {
    "vocab_size": 151552,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [8, 12, 12],
    },
}


def _gemma(parameters: int, text: dict[str, Any]) -> Published:
    """A Gemma 3, whose vision tower is the same in all sizes."""
    return Published(
        "gemma3",
        parameters,
        {
            "text_config": text
            | {"vocab_size": 262208, "sliding_window": 1024, "max_position_embeddings": 131072},
            "vision_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 896,
            },
            "mm_tokens_per_image": 256,
        },
        images={"size": {"height": 896, "width": 896}},
        image_tokens=256,
        tied=True,
    )


def _molmo(parameters: int, text: dict[str, Any]) -> Published:
    """A Molmo2, whose vision tower is the same in both sizes."""
    heads = {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 72}
    return Published(
        "molmo2",
        parameters,
        {
            "text_config": text | {"vocab_size": 151936, "head_dim": 128, "max_position_embeddings": 36864},
            "vision_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                # Those that the file has: config.json names two more.
                "num_hidden_layers": 25,
                "image_size": [378, 378],
                "num_position_embeddings": 729,
                **heads,
            },
            "adapter_config": {
                "hidden_size": 1152,
                "intermediate_size": text["intermediate_size"],
                "text_hidden_size": text["hidden_size"],
                "vision_feature_layer": [24, 18],
                **heads,
            },
        },
        images={"size": {"height": 378, "width": 378}, "overlap_margins": [4, 4], "max_crops": 8},
    )


# By the name of the directory that a recipe's first lines download it into.
PUBLISHED = {
    "Qwen3-VL-2B-Instruct": _qwen(_QWEN_4B, 2_127_532_032, _text(2048, 6144, 28, 16, 8)),
    "Qwen3-VL-4B-Instruct": _qwen(_QWEN_4B, _QWEN_4B.parameters),
    "Qwen3-VL-8B-Instruct": _qwen(_QWEN_8B, _QWEN_8B.parameters),
    "Qwen3-VL-32B-Instruct": _qwen(_QWEN_8B, 33_357_390_064, _text(5120, 25600, 64, 64, 8)),
    "Qwen3-VL-30B-A3B-Instruct": _qwen(_QWEN_30B, _QWEN_30B.parameters),
    "Qwen3-VL-235B-A22B-Instruct": _qwen(
        _QWEN_30B, 235_670_022_896, _text(4096, 12288, 94, 64, 4, moe_intermediate_size=1536)
    ),
    "GLM-4.6V-Flash": Published(
        "glm4v",
        10_292_777_472,
        {
            "text_config": _GLM_TEXT | _text(4096, 13696, 40, 32, 2),
            "vision_config": _GLM_VISION | {"intermediate_size": 13696},
        },
    ),
    "GLM-4.6V": Published(
        "glm4v_moe",
        # Published is a bias of each expert's score too, a buffer of the class.
        107_710_933_120 - 45 * 128,
        {
            "text_config": _GLM_TEXT
            | _text(4096, 10944, 46, 96, 8, moe_intermediate_size=1408)
            | {"n_routed_experts": 128, "num_experts_per_tok": 8},
            "vision_config": _GLM_VISION | {"intermediate_size": 10944},
        },
    ),
    "gemma-3-4b-it": _gemma(4_300_079_472, _text(2560, 10240, 34, 8, 4, head_dim=256)),
    "gemma-3-12b-it": _gemma(12_187_325_040, _text(3840, 15360, 48, 16, 8, head_dim=256)),
    "gemma-3-27b-it": _gemma(27_432_406_640, _text(5376, 21504, 62, 32, 16, head_dim=128)),
    "DeepSeek-OCR-2": Published(
        "deepseek_ocr2",
        3_389_119_360,
        {
            "text_config": _text(1280, 6848, 12, 10, 10, moe_intermediate_size=896)
            | {
                "vocab_size": 129280,
                "max_position_embeddings": 8192,
                "mlp_layer_types": ["dense", *["sparse"] * 11],
                "n_routed_experts": 64,
                "num_experts_per_tok": 6,
            }
        },
    ),
    "Molmo2-4B": _molmo(4_850_869_200, _text(2560, 9728, 36, 32, 8)),
    "Molmo2-8B": _molmo(8_661_703_120, _text(4096, 12288, 36, 32, 8)),
}


def write_published(name: str, out: Path) -> Path:
    """The model of this name as a checkpoint without weights in the new directory `out`; gives `out`.

    Images are cut as its own processor cuts them. The tokenizer is that of the family's tiny model, whose
    tokens are few: those of the real vocabulary would be other rows of the same embeddings.
    """
    model = PUBLISHED[name]
    # What vLLM can build has the published encoders.
    tiny = SERVED.get(model.family, MAKERS[model.family])
    processor: Any = tiny.processor()
    for attribute, value in model.images.items():
        setattr(processor.image_processor, attribute, value)
    if model.image_tokens:
        processor.image_seq_length = model.image_tokens
    config = tiny.config(processor)
    content = config.to_dict()
    # One for each layer; left out, the class makes them.
    content["text_config"].pop("layer_types", None)
    for key, value in model.config.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    content["tie_word_embeddings"] = content["text_config"]["tie_word_embeddings"] = model.tied
    whole = type(config).from_dict(content)
    whole.architectures = [tiny.model.__name__]
    out.mkdir()
    (out / "config.json").write_text(json.dumps(tiny.publish(whole.to_dict())))
    ends = processor.tokenizer.convert_tokens_to_ids(list(tiny.ends))
    GenerationConfig(eos_token_id=ends).save_pretrained(out)
    processor.save_pretrained(out)
    return out


def write_pages(home: Home, rows: int) -> Artifact:
    """A dataset of training rows alone: a scanned page, a question, a short JSON answer."""
    page = encode_png(Picture.new("RGB", PAGE, "white"))
    messages = (
        Message("user", (Image("page.png", "a0", PAGE), Text("Read the form."))),
        Message("assistant", (Text('{"account":"732006"}'),)),
    )
    with home.create("dataset", "0" * 64, {}) as draft:
        of_all = [Row(Sample(f"row{number}", "g", messages), (page,)) for number in range(rows)]
        write_rows(draft.path / split_file("train"), of_all)
    return draft.artifact
