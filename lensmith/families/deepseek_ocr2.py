"""DeepSeek-OCR-2: a SAM encoder, a Qwen2 encoder with learnt queries, and a decoder with routed experts.

Read in transformers 5.20.2 models/deepseek_ocr2 and conversion_mapping.py ("deepseek_ocr2"), and vLLM 0.32
model_executor/models/deepseek_ocr2.py and transformers_utils/chat_templates (`deepseek_ocr2`); the grounding
tags and the prompt in transformers' page of the model, sampling in vLLM's recipe for DeepSeek-OCR (there with
a processor of logits against repeated n-grams), context as providers serve it, the licence in the tag of
deepseek-ai/DeepSeek-OCR-2 on the hub, which names its LICENSE.txt (the first was MIT). The first
DeepSeek-OCR has no class in transformers. vllm_offers in vllm-project/recipes 8959cf64
models/deepseek-ai/DeepSeek-OCR-2.yaml, which also lists the vision tower data parallel: vLLM 0.32's class
cannot.
"""

from collections.abc import Mapping
from typing import Any

from lensmith.coordinates import REF_DET
from lensmith.families.engine_offer import EngineOffer
from lensmith.families.experts import NO_ADAPTERS, Experts
from lensmith.families.family import GREEDY, PLAIN_SPEECH, Family, Foreign, ImageText, Linears
from lensmith.families.layout import Layout
from lensmith.families.packs import Packs
from lensmith.families.vision_run import VisionRun

_SAM = "model.vision_tower.sam_encoder"
_ENCODER = "model.vision_tower.vision_encoder"
_LAYER = "model.language_model.layers.{}"
_LAYERS = "text_config.num_hidden_layers"
_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_NATIVE = "deepseek-community/DeepSeek-OCR-2"

# Of the decoder, under the same names in both configs.
_SAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "topk_method",
    "routed_scaling_factor",
    "bos_token_id",
    "eos_token_id",
)


def _hub_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json in the form of deepseek-ai's checkpoints, the one vLLM reads, of transformers'."""
    text, vision = config["text_config"], config["vision_config"]
    # vLLM always chooses experts by groups, and fails where their number is null: one group leaves none out.
    greedy = text.get("topk_method", "greedy") == "greedy"
    groups = {name: 1 if greedy else text[name] for name in ("n_group", "topk_group")}
    return {
        "model_type": "deepseek_vl_v2",
        "architectures": ["DeepseekOCR2ForCausalLM"],
        # The name that older versions of transformers write.
        "dtype": config["dtype"] if "dtype" in config else config["torch_dtype"],
        "tile_tag": "2D",
        "global_view_pos": "head",
        "candidate_resolutions": [[1024, 1024]],
        "vision_config": {"model_type": "vision", "image_size": vision["sam_config"]["image_size"]},
        "projector_config": {
            "model_type": "mlp_projector",
            "projector_type": "linear",
            "input_dim": vision["encoder_config"]["hidden_size"],
            "n_embed": text["hidden_size"],
        },
        "language_config": {name: text[name] for name in _SAME if name in text}
        | groups
        | {
            "architectures": ["DeepseekV2ForCausalLM"],
            "model_type": "deepseek_v2",
            "first_k_dense_replace": text["mlp_layer_types"].index("sparse"),
            "moe_layer_freq": 1,
            "norm_topk_prob": False,
            # Ordinary attention: no latent heads.
            "use_mla": False,
            "q_lora_rank": None,
            "kv_lora_rank": None,
            "qk_nope_head_dim": 0,
            "qk_rope_head_dim": 0,
            "v_head_dim": 0,
        },
    }


FAMILY = Family(
    name="deepseek_ocr2",
    title="DeepSeek-OCR-2",
    model_type="deepseek_ocr2",
    architecture="DeepseekOcr2ForConditionalGeneration",
    licence="Apache-2.0",
    towers={
        "vision": ("model.vision_tower",),
        "connector": ("model.multi_modal_projector", "model.view_separator"),
        "language": ("model.language_model", "lm_head"),
    },
    linears=(
        Linears(
            "vision",
            f"{_SAM}.layers.{{}}",
            ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2"),
            "vision_config.sam_config.num_hidden_layers",
        ),
        Linears(
            "vision",
            f"{_ENCODER}.layers.{{}}",
            (*_ATTENTION, *(f"mlp.{name}" for name in _MLP)),
            "vision_config.encoder_config.num_hidden_layers",
        ),
        Linears("connector", "model", ("multi_modal_projector",)),
        Linears("language", _LAYER, _ATTENTION, _LAYERS),
        Linears("language", _LAYER, tuple(f"mlp.{name}" for name in _MLP), _LAYERS, "dense"),
        Linears("language", _LAYER, tuple(f"mlp.shared_experts.{name}" for name in _MLP), _LAYERS, "sparse"),
    ),
    experts=Experts(
        layers=_LAYERS,
        module=f"{_LAYER}.mlp.experts",
        parameters=("gate_up_proj", "down_proj"),
        router=f"{_LAYER}.mlp.gate.weight",
        stored="apart",
        kinds="text_config.mlp_layer_types",
    ),
    layout=Layout(
        renames=(
            (rf"^{_SAM}\.layers\.(\d+)\.layer_norm(\d)\.", r"model.sam_model.blocks.\1.norm\2."),
            (rf"^{_SAM}\.layers\.", "model.sam_model.blocks."),
            (rf"^{_SAM}\.patch_embed\.projection\.", "model.sam_model.patch_embed.proj."),
            (rf"^{_SAM}\.neck\.conv1\.", "model.sam_model.neck.0."),
            (rf"^{_SAM}\.neck\.layer_norm1\.", "model.sam_model.neck.1."),
            (rf"^{_SAM}\.neck\.conv2\.", "model.sam_model.neck.2."),
            (rf"^{_SAM}\.neck\.layer_norm2\.", "model.sam_model.neck.3."),
            (rf"^{_SAM}\.proj\.conv1\.", "model.sam_model.net_2."),
            (rf"^{_SAM}\.proj\.conv2\.", "model.sam_model.net_3."),
            (rf"^{_SAM}\.pos_embed$", "model.sam_model.pos_embed"),
            (rf"^{_ENCODER}\.", "model.qwen2_model.model.model."),
            (r"^model\.vision_tower\.query_(\d+)_resolution\.", r"model.qwen2_model.query_\1."),
            (r"^model\.multi_modal_projector\.", "model.projector.layers."),
            (r"^model\.view_separator$", "model.view_seperator"),
            (r"^model\.language_model\.", "model."),
        )
    ),
    vision_run=VisionRun(
        ("pixel_values", "pixel_values_local", "num_local_patches"),
        views="pixel_values_local",
        blank=(1600, 800),
    ),
    vllm_architecture="DeepseekOCR2ForCausalLM",
    # The class takes adapters, but its mapper drops `model.`, below which its decoder lies.
    vllm_adapts={},
    vllm_no_adapters={
        **NO_ADAPTERS,
        "cuda": "vLLM takes an adapter under the names of transformers' class and applies nothing of it: its"
        " decoder has others, so the base would answer",
    },
    vllm_offers=EngineOffer(caches=False),
    vllm_config=_hub_config,
    vllm_limits=(
        "It reads the hub's config (DeepseekOCR2ForCausalLM, deepseek_vl_v2, language_config,"
        " projector_config), not the one of transformers' class: a profile holds it.",
        "It builds the published SAM and Qwen2 encoders whatever the config says: no smaller ones. Images are"
        " padded to 1024 pixels and cut into tiles of 768.",
    ),
    markup=(
        "<｜begin▁of▁sentence｜>",  # noqa: RUF001
        "<｜end▁of▁sentence｜>",  # noqa: RUF001
        "<｜▁pad▁｜>",  # noqa: RUF001
        "<image>",
        "<|ref|>",
        "<|/ref|>",
        "<|det|>",
        "<|/det|>",
    ),
    coordinates=REF_DET,
    speech=PLAIN_SPEECH,
    image_text=ImageText(place="<image>", token="<image>"),
    decoding=GREEDY,
    context=8192,
    cut="tiles",
    answers="apart",
    packs=Packs("count"),
    not_whole={
        "connector": "model.view_separator is a parameter in no module of its own, where PEFT saves modules"
    },
    no_new_tokens="",
    foreign=(
        Foreign("deepseek_vl_v2", "DeepseekOCRForCausalLM", _NATIVE),
        Foreign("deepseek_vl_v2", "DeepseekOCR2ForCausalLM", _NATIVE),
    ),
    template="""\
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.content is string -%}
    {{- message.content -}}
  {%- else -%}
    {%- for part in message.content -%}
      {{- '<image>\\n' if part.type == 'image' else part.text -}}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
""",
)
