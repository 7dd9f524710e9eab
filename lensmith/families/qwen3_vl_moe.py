"""Qwen3-VL with routed experts (30B-A3B, 235B-A22B).

Read in transformers 5.20.2 models/qwen3_vl_moe and conversion_mapping.py (experts transposed on disk), and
vLLM 0.32 model_executor/models/qwen3_vl_moe.py (`is_fused_checkpoint_transposed`: it always transposes) and
lora/model_manager.py (experts' LoRA by `is_3d_moe_weight`, in layers/fused_moe.py with Triton's kernels; left
out before: vllm#41384); experts over GPUs in vllm-project/recipes 8959cf64 Qwen/Qwen3-VL.md, turned on there
for FP8 checkpoints alone; the rest as in qwen3_vl.
"""

from dataclasses import replace

from lensmith.families.experts import NO_ADAPTERS, Experts
from lensmith.families.family import Linears
from lensmith.families.qwen3_vl import FAMILY as DENSE

_LAYER = "model.language_model.layers.{}"
_LAYERS = "text_config.num_hidden_layers"

FAMILY = replace(
    DENSE,
    name="qwen3_vl_moe",
    title="Qwen3-VL MoE",
    model_type="qwen3_vl_moe",
    architecture="Qwen3VLMoeForConditionalGeneration",
    linears=(
        *(group for group in DENSE.linears if group.tower != "language"),
        Linears(
            "language",
            _LAYER,
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
            _LAYERS,
        ),
        Linears("language", _LAYER, ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), _LAYERS, "dense"),
    ),
    experts=Experts(
        layers=_LAYERS,
        module=f"{_LAYER}.mlp.experts",
        parameters=("gate_up_proj", "down_proj"),
        router=f"{_LAYER}.mlp.gate.weight",
        stored="transposed",
        step="text_config.decoder_sparse_step",
        dense="text_config.mlp_only_layers",
    ),
    vllm_offers=replace(DENSE.vllm_offers, experts="off"),
    vllm_architecture="Qwen3VLMoeForConditionalGeneration",
    vllm_no_adapters=NO_ADAPTERS,
    vllm_adapts={tower: option for tower, option in DENSE.vllm_adapts.items() if tower != "vision"},
    vllm_limits=(
        "Its class, unlike the dense one's, does not say how an adapter of the vision blocks' attn.qkv is"
        " split: that part would be left out, with a line in the log. Merge an adapter of the vision tower.",
        "An adapter's part on the routed experts is read on GPUs alone (Triton's kernels) and not proven to"
        " be applied as trained: merge it.",
        "config.json must say text_config.norm_topk_prob: true, as the published ones do.",
    ),
)
