"""GLM-4.6V (106B) and GLM-4.5V: routed experts behind a first dense layer, one shared expert.

Read in transformers 5.20.2 models/glm4v_moe and conversion_mapping.py ("qwen2_moe": one matrix an expert on
disk), and vLLM 0.32 model_executor/models/glm4_1v.py and glm4_moe.py, for experts' LoRA
lora/layers/fused_moe.py (a list with an A and a B for each expert); experts over GPUs in
vllm-project/recipes 8959cf64 models/zai-org/GLM-4.6V.yaml; the rest as in glm4v.
"""

from dataclasses import replace

from lensmith.families.experts import NO_ADAPTERS, Experts
from lensmith.families.family import Linears
from lensmith.families.glm4v import FAMILY as DENSE
from lensmith.families.layout import AS_IN_CLASS

_LAYER = "model.language_model.layers.{}"
_LAYERS = "text_config.num_hidden_layers"
_MLP = ("gate_proj", "up_proj", "down_proj")

FAMILY = replace(
    DENSE,
    name="glm4v_moe",
    title="GLM-4.6V",
    model_type="glm4v_moe",
    architecture="Glm4vMoeForConditionalGeneration",
    linears=(
        *(group for group in DENSE.linears if group.tower != "language"),
        Linears(
            "language",
            _LAYER,
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
            _LAYERS,
        ),
        Linears("language", _LAYER, tuple(f"mlp.{name}" for name in _MLP), _LAYERS, "dense"),
        Linears("language", _LAYER, tuple(f"mlp.shared_experts.{name}" for name in _MLP), _LAYERS, "sparse"),
    ),
    experts=Experts(
        layers=_LAYERS,
        module=f"{_LAYER}.mlp.experts",
        parameters=("gate_up_proj", "down_proj"),
        router=f"{_LAYER}.mlp.gate.weight",
        stored="apart",
        first="text_config.first_k_dense_replace",
    ),
    vllm_offers=replace(DENSE.vllm_offers, experts="on"),
    vllm_architecture="Glm4vMoeForConditionalGeneration",
    vllm_names=AS_IN_CLASS,
    vllm_no_adapters=NO_ADAPTERS,
    vllm_limits=(
        *DENSE.vllm_limits,
        "An adapter's part on the routed experts, fused as PEFT saves it, is not read: merge it.",
        "config.json must say text_config.use_qk_norm: false, as the published ones do.",
    ),
)
