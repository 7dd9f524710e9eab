"""Qwen3-VL, dense (2B, 4B, 8B, 32B).

Read in transformers 5.20.2 models/qwen3_vl and vLLM 0.32 model_executor/models/qwen3_vl.py; coordinates,
thinking and calls in the model card, its chat template and the cookbook think_with_images (an image by its
number, img_idx); sampling (the Instruct models', for images) and context in the model card; vllm_offers in
vllm-project/recipes 8959cf64 Qwen/Qwen3-VL.md (vision tower data parallel), the parsers in vLLM 0.32
parser/qwen3.py and tool_parsers/hermes_tool_parser.py.
"""

from lensmith.coordinates import JSON_THOUSAND
from lensmith.families.engine_offer import EngineOffer
from lensmith.families.family import Decoding, Family, ImageText, Linears, Speech
from lensmith.families.packs import Packs
from lensmith.families.video_form import VideoForm
from lensmith.families.vision_run import VisionRun

FAMILY = Family(
    name="qwen3_vl",
    title="Qwen3-VL",
    model_type="qwen3_vl",
    architecture="Qwen3VLForConditionalGeneration",
    licence="Apache-2.0",
    towers={
        "vision": ("model.visual.patch_embed", "model.visual.pos_embed", "model.visual.blocks"),
        "connector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "language": ("model.language_model", "lm_head"),
    },
    linears=(
        Linears(
            "vision",
            "model.visual.blocks.{}",
            ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"),
            "vision_config.depth",
        ),
        Linears("connector", "model.visual.merger", ("linear_fc1", "linear_fc2")),
        Linears(
            "connector",
            "model.visual.deepstack_merger_list.{}",
            ("linear_fc1", "linear_fc2"),
            "vision_config.deepstack_visual_indexes",
        ),
        Linears(
            "language",
            "model.language_model.layers.{}",
            (
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
            ),
            "text_config.num_hidden_layers",
        ),
    ),
    vision_run=VisionRun(("pixel_values", "image_grid_thw"), ("pooler_output", "deepstack_features")),
    vllm_architecture="Qwen3VLForConditionalGeneration",
    vllm_adapts={
        "language": "",
        "vision": "enable_tower_connector_lora",
        "connector": "enable_tower_connector_lora",
    },
    vllm_offers=EngineOffer(
        tool_parser="hermes",
        reasoning_parser="qwen3",
        encoder_data=True,
        vision_heads="vision_config.num_heads",
    ),
    markup=(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
        "<think>",
        "</think>",
    ),
    coordinates=JSON_THOUSAND,
    speech=Speech(thinking=("<think>\n", "\n</think>\n\n"), call="json", image="{}"),
    image_text=ImageText(place="<|image_pad|>", token="<|image_pad|>"),
    decoding=Decoding(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5),
    context=262_144,
    packs=Packs("rope"),
    video=VideoForm(
        place="<|video_pad|>",
        token="<|video_pad|>",
        written={"Qwen3VLProcessor": "<{time} seconds><|vision_start|>{tokens}<|vision_end|>"},
        time="middle",
        # What transformers does where a checkpoint says nothing, until its 5.22.
        settings={"cap_pixels_per_frame": False},
        id="video_token_id",
    ),
    no_new_tokens="",
)
