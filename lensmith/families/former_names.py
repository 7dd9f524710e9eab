"""Names that modules had in earlier versions of transformers' classes, and in tools that wrap them.

Adapters keep the names of the version that trained them. Read in transformers 4.51 (language and vision model
side by side, Gemma 3's head in the language model), in `_checkpoint_conversion_mapping` of 4.52 to 4.57, and
in huggingface/peft pull request 2574.
"""

# Pattern and replacement; of those that fit, one leads to a name that the base has.
FORMER_NAMES: tuple[tuple[str, str], ...] = (
    (r"^visual\.", "model.visual."),
    (r"^(model\.)?language_model\.model\.", "model.language_model."),
    (r"^language_model\.(?!model\.|lm_head)", "model.language_model."),
    (r"^model\.(?=layers\.|embed_tokens$)", "model.language_model."),
    (r"^(model\.)?language_model\.lm_head$", "lm_head"),
    (r"^(model\.)?vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^vision_tower\.(?!vision_model\.)", "model.vision_tower."),
    (r"^multi_modal_projector\.", "model.multi_modal_projector."),
)

# What DDP, DeepSpeed, FSDP, torch.compile and activation checkpointing put into the names of what they wrap.
WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
