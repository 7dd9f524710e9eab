"""GLM-4.6V-Flash (9B), the dense GLM-V.

Read in transformers 5.20.2 models/glm4v and vLLM 0.32 model_executor/models/glm4_1v.py; coordinates,
thinking and calls in the model card and its chat template. The card says that calls name images by address
and gives none for an image inside a conversation: image://N is ours. Sampling and context in the card, and
so on LM Studio's page of GLM-4.6V-Flash; vllm_offers in vllm-project/recipes 8959cf64 GLM/GLM-V.md.
"""

from lensmith.coordinates import BOX_TOKENS
from lensmith.families.engine_offer import EngineOffer
from lensmith.families.family import Decoding, Family, ImageText, Linears, Speech
from lensmith.families.layout import Joined, Layout
from lensmith.families.packs import Packs
from lensmith.families.video_form import VideoForm
from lensmith.families.vision_run import VisionRun

FAMILY = Family(
    name="glm4v",
    title="GLM-4.6V-Flash",
    model_type="glm4v",
    architecture="Glm4vForConditionalGeneration",
    licence="MIT",
    towers={
        "vision": (
            "model.visual.embeddings",
            "model.visual.patch_embed",
            "model.visual.blocks",
            "model.visual.post_conv_layernorm",
            "model.visual.downsample",
            "model.visual.post_layernorm",
        ),
        "connector": ("model.visual.merger",),
        "language": ("model.language_model", "lm_head"),
    },
    linears=(
        Linears(
            "vision",
            "model.visual.blocks.{}",
            ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
            "vision_config.depth",
        ),
        Linears("connector", "model.visual.merger", ("proj", "gate_proj", "up_proj", "down_proj")),
        Linears(
            "language",
            "model.language_model.layers.{}",
            (
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_up_proj",
                "mlp.down_proj",
            ),
            "text_config.num_hidden_layers",
        ),
    ),
    vision_run=VisionRun(("pixel_values", "image_grid_thw")),
    vllm_architecture="Glm4vForConditionalGeneration",
    vllm_adapts={
        "language": "",
        "connector": "enable_tower_connector_lora",
    },
    vllm_offers=EngineOffer(
        tool_parser="glm45",
        reasoning_parser="glm45",
        encoder_data=True,
        vision_heads="vision_config.num_heads",
    ),
    # vLLM's class knows gate_up_proj as one, as the language model has it; the merger has two.
    vllm_names=Layout(joined=(Joined("model.visual.merger", ("gate_proj", "up_proj"), "gate_up_proj"),)),
    vllm_limits=(
        "Its class does not say how an adapter of the vision blocks' attn.qkv is split: that part would be"
        " left out, with a line in the log. Merge an adapter of the vision tower.",
    ),
    markup=(
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
        "<|endoftext|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
        "<|video|>",
        "[gMASK]",
        "<sop>",
        "<|begin_of_box|>",
        "<|end_of_box|>",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<think>",
        "</think>",
    ),
    coordinates=BOX_TOKENS,
    speech=Speech(thinking=("<think>", "</think>\n"), call="arguments", image="image://{}"),
    image_text=ImageText(place="<|image|>", token="<|image|>"),
    decoding=Decoding(temperature=0.8, top_p=0.6, top_k=2, repetition_penalty=1.1),
    context=131_072,
    frames=2,
    packs=Packs("rope"),
    video=VideoForm(
        place="<|video|>",
        token="<|image|>",
        written={
            # GLM-4.6V's and GLM-4.6V-Flash's. vLLM cuts a time to whole seconds before it writes the tenth.
            "Glm46VProcessor": "<|begin_of_image|>{tokens}<|end_of_image|>{time}.0 seconds",
            # GLM-4.5V's and GLM-4.1V's.
            "Glm4vProcessor": "<|begin_of_image|>{tokens}<|end_of_image|>{time}",
        },
        time="first",
        # Glm4vProcessingInfo._get_video_second_idx_glm4v.
        distinct=True,
        # Glm4vProcessingInfo.get_supported_mm_limits.
        served=1,
    ),
    no_new_tokens="",
)
