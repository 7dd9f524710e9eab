"""Molmo2 (4B, 8B; O-7B on OLMo): overlapping crops, pooled by attention, added to their tokens' embeddings.

Read in transformers 5.20.2 models/molmo2 and conversion_mapping.py ("molmo2", "Molmo2TextModel"), and vLLM
0.32 model_executor/models/molmo2.py; the published config, index, chat template and the form of points in the
files of allenai/Molmo2-4B. Its template writes a space before an answered turn that its generation prompt
lacks, and no end behind the answer, so answers are put apart. The context is the
default of its class; greedy answers are our choice, no card that was read names sampling. The first Molmo has
no class in transformers; vLLM has no recipe for Molmo2. What is written for a video: processing_molmo2.py;
that its place stands behind those of images: the chat template in convert_molmo2_to_hf.py of allenai/molmo2.
"""

from collections.abc import Mapping
from typing import Any

from lensmith.coordinates import POINT_LIST
from lensmith.families.engine_offer import EngineOffer
from lensmith.families.family import GREEDY, Family, Foreign, ImageText, Linears, Speech
from lensmith.families.layout import Cut, Joined, Layout
from lensmith.families.packs import Packs
from lensmith.families.video_form import VideoForm
from lensmith.families.vision_run import VisionRun

_REPLACED = "vLLM puts image features in the place of <im_patch>'s embedding, the model adds them to it"

_VIT = "model.vision_tower"
_ADAPTER = "model.multi_modal_projector"
_LAYER = "model.language_model.layers.{}"
_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")

# vLLM asks for the names of the published file, transformers' classes keep others: an attribute_map in the
# config itself makes them answer to both. transformers moves rope_theta into rope_parameters.
_NAMES = {"vit_config": "vision_config"}
_VISION_NAMES = {
    "image_default_input_size": "image_size",
    "image_patch_size": "patch_size",
    "image_num_pos": "num_position_embeddings",
}
_ADAPTER_NAMES = {"vit_layers": "vision_feature_layer"}
_TEXT_NAMES = {"qkv_bias": "attention_bias", "layer_norm_eps": "rms_norm_eps", "rope_theta": "theta"}


def _both_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, published or of transformers' class, with the names vLLM asks for beside those it has."""
    text, vision = config["text_config"], "vit_config" if "vit_config" in config else "vision_config"
    theta = text["rope_theta"] if "rope_theta" in text else text["rope_parameters"]["rope_theta"]
    # Of what transformers' class always does only the published file speaks.
    always = {"use_qk_norm": True}
    return {
        **config,
        "attribute_map": _NAMES,
        "text_config": {**always, **text, "theta": theta, "attribute_map": _TEXT_NAMES},
        vision: {**config[vision], "attribute_map": _VISION_NAMES},
        "adapter_config": {
            "pooling_attention_mask": True,
            **config["adapter_config"],
            "attribute_map": _ADAPTER_NAMES,
        },
    }


_LAYOUT = Layout(
    joined=(
        Joined(
            _LAYER,
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "self_attn.att_proj",
            like="self_attn.o_proj",
        ),
        Joined(_LAYER, ("mlp.up_proj", "mlp.gate_proj"), "mlp.ff_proj"),
    ),
    cut=(
        Cut(
            "model.language_model.embed_tokens.weight",
            "model.transformer.wte.embedding",
            "model.transformer.wte.new_embedding",
            "text_config.vocab_size",
        ),
    ),
    renames=(
        (r"^(model\.language_model\..*)\.self_attn\.o_proj\.", r"\1.self_attn.attn_out."),
        (r"^(model\.language_model\..*)\.mlp\.down_proj\.", r"\1.mlp.ff_out."),
        (r"^(model\.language_model\..*)\.input_layernorm\.", r"\1.attn_norm."),
        (r"^(model\.language_model\..*)\.post_attention_layernorm\.", r"\1.ff_norm."),
        (r"^model\.language_model\.layers\.", "model.transformer.blocks."),
        (r"^model\.language_model\.norm\.", "model.transformer.ln_f."),
        (r"^model\.vision_tower\.layers\.", "model.vision_backbone.image_vit.transformer.resblocks."),
        (r"^model\.vision_tower\.", "model.vision_backbone.image_vit."),
        (r"^(.*\.resblocks\..*)\.self_attn\.([qkvo])_proj\.", r"\1.attention.w\2."),
        (r"^(.*\.resblocks\..*)\.mlp\.fc([12])\.", r"\1.feed_forward.w\2."),
        (r"^(.*\.resblocks\..*)\.layer_norm1\.", r"\1.attention_norm."),
        (r"^(.*\.resblocks\..*)\.layer_norm2\.", r"\1.ffn_norm."),
        (r"^model\.multi_modal_projector\.", "model.vision_backbone."),
        (r"\.image_pooling_2d\.([qkvo])_proj\.", r".image_pooling_2d.w\1."),
        (r"\.image_projector\.gate_proj\.", ".image_projector.w1."),
        (r"\.image_projector\.down_proj\.", ".image_projector.w2."),
        (r"\.image_projector\.up_proj\.", ".image_projector.w3."),
    ),
)


FAMILY = Family(
    name="molmo2",
    title="Molmo2",
    model_type="molmo2",
    architecture="Molmo2ForConditionalGeneration",
    licence="Apache-2.0",
    towers={
        "vision": ("model.vision_tower",),
        "connector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    linears=(
        Linears("vision", _VIT, ("patch_embedding",)),
        Linears(
            "vision",
            f"{_VIT}.layers.{{}}",
            (*_ATTENTION, "mlp.fc1", "mlp.fc2"),
            "vision_config.num_hidden_layers",
        ),
        Linears("connector", f"{_ADAPTER}.image_pooling_2d", ("q_proj", "k_proj", "v_proj", "o_proj")),
        Linears("connector", f"{_ADAPTER}.image_projector", ("gate_proj", "up_proj", "down_proj")),
        Linears(
            "language",
            _LAYER,
            (*_ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
            "text_config.num_hidden_layers",
        ),
    ),
    layout=_LAYOUT,
    vision_run=VisionRun(("pixel_values", "image_token_pooling", "image_grids")),
    vllm_architecture="Molmo2ForConditionalGeneration",
    vllm_offers=EngineOffer(vision_heads="vision_config.num_attention_heads"),
    vllm_adapts={"language": ""},
    # As on disk: one layer for query, key and value, one for up and gate.
    vllm_names=_LAYOUT,
    vllm_config=_both_names,
    vllm_images={
        "cpu": "vLLM's CPU engine attends causally over image tokens, the model was trained to see them"
        f" whole; and {_REPLACED}",
        "cuda": _REPLACED,
    },
    image_id="image_patch_id",
    vllm_limits=(
        "0.32 asks transformers' config for names of the published file that its class does not keep"
        " (vit_config and more), and puts the BOS token before prompts with images only: a profile holds a"
        " config that has both names, and a chat template that writes the token.",
        "It joins layers that transformers' class has apart (q_proj, k_proj and v_proj; up_proj and"
        " gate_proj): a profile holds an adapter with their parts as one, of their rank together.",
        "It applies no adapter to the vision tower and the connector: merge it.",
    ),
    markup=(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|image|>",
        "<|video|>",
        "<im_patch>",
        "<im_col>",
        "<im_start>",
        "<low_res_im_start>",
        "<im_end>",
        "<im_low>",
        "<frame_start>",
        "<frame_end>",
    ),
    coordinates=POINT_LIST,
    speech=Speech(system=False),
    image_text=ImageText(place="<|image|>", token="<|image|>"),
    decoding=GREEDY,
    context=36_864,
    cut="crops",
    numbers=(("image_token_pooling", "pixel_values"),),
    answers="apart",
    leads=True,
    packs=Packs("count", whole="row"),
    no_new_tokens="they come behind the image tokens, where the output head has no rows: read, never written",
    ships_code=True,
    video=VideoForm(
        place="<|video|>",
        token="<im_patch>",
        written={"Molmo2Processor": "{time} {tokens}"},
        time="middle",
        frames=1,
        between=" ",
        cut="square",
        # Molmo2ProcessingInfo.get_supported_mm_limits.
        served=1,
    ),
    foreign=(Foreign("molmo", "MolmoForCausalLM", "allenai/Molmo2-4B or allenai/Molmo2-8B"),),
)
