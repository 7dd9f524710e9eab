"""Gemma 3 with a vision tower (4B, 12B, 27B; the 1B has none and is another class).

Read in transformers 5.20.2 models/gemma3, models/siglip and conversion_mapping.py ("gemma3", which is
"llava", and "SiglipVisionModel"), and vLLM 0.32 model_executor/models/gemma3_mm.py and siglip.py; context
and licence in the model card, turns in its chat template; sampling is the Gemma team's advice as LM Studio's
page of Gemma 3 repeats it. The card names no form for places: JSON from 0 to 1000 is ours. The template knows
neither thoughts nor tools, and vLLM has no recipe for it.
"""

from lensmith.coordinates import JSON_THOUSAND
from lensmith.families.engine_offer import EngineOffer
from lensmith.families.family import PLAIN_SPEECH, Decoding, Family, ImageText, Linears
from lensmith.families.layout import Layout
from lensmith.families.packs import Packs
from lensmith.families.vision_run import VisionRun

_LAYOUT = Layout(
    renames=(
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.language_model\.", "language_model.model."),
        (r"^model\.vision_tower\.", "vision_tower.vision_model."),
        (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
    )
)

FAMILY = Family(
    name="gemma3",
    title="Gemma 3",
    model_type="gemma3",
    architecture="Gemma3ForConditionalGeneration",
    licence="LicenseRef-Gemma",
    towers={
        "vision": ("model.vision_tower",),
        "connector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    # The connector is one matrix and a norm, no linear layer: it is trained whole or not at all.
    linears=(
        Linears(
            "vision",
            "model.vision_tower.encoder.layers.{}",
            (
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.out_proj",
                "mlp.fc1",
                "mlp.fc2",
            ),
            "vision_config.num_hidden_layers",
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
    layout=_LAYOUT,
    vision_run=VisionRun(("pixel_values",)),
    vllm_architecture="Gemma3ForConditionalGeneration",
    vllm_offers=EngineOffer(vision_heads="vision_config.num_attention_heads"),
    vllm_adapts={"language": "", "vision": "enable_tower_connector_lora"},
    # As on disk: below vision_tower it has a vision_model, of which the class knows nothing.
    vllm_names=_LAYOUT,
    vllm_images={
        "cpu": "vLLM's CPU engine attends causally over image tokens, the model was trained to see each image"
        " whole: serve it on a GPU"
    },
    image_id="image_token_index",
    markup=(
        "<bos>",
        "<eos>",
        "<pad>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft_token>",
    ),
    coordinates=JSON_THOUSAND,
    speech=PLAIN_SPEECH,
    image_text=ImageText(
        place="<start_of_image>",
        token="<image_soft_token>",
        written="\n\n<start_of_image>{}<end_of_image>\n\n",
    ),
    decoding=Decoding(temperature=1.0, top_p=0.95, top_k=64),
    context=131_072,
    context_scaled=True,
    cut="fixed",
    packs=Packs("count", whole="image"),
    no_new_tokens="",
)
