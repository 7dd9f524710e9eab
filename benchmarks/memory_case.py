"""The trainings that the benchmark of planned memory measures: their models, recipes and rows."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

if TYPE_CHECKING:
    from lensmith.artifact import Artifact
    from lensmith.recipe import Recipe

STEPS = 2
# By size: hidden, feed-forward, layers, heads of the text; hidden, feed-forward, depth, heads of the vision.
SIZES = {"tiny": (256, 768, 4, 4, 256, 768, 4, 4), "middle": (512, 1536, 8, 8, 384, 1536, 6, 6)}
VOCABULARY = 16_384
# Of an image in pixels, where the family has no pixel budget and takes every image at one size.
FIXED_EDGE = 112
# What configs call the same of their vision tower.
VISION_NAMES = {
    "hidden_size": "hidden",
    "intermediate_size": "wide",
    "depth": "layers",
    "num_hidden_layers": "layers",
    "num_heads": "heads",
    "num_attention_heads": "heads",
    "num_key_value_heads": "heads",
    "out_hidden_size": "text_hidden",
}


# What frozen towers make of an image is made once, before the first step.
FROZEN = {"vision": "freeze", "connector": "freeze", "language": "adapt"}
# Gemma 3's has no linear.
WITHOUT_CONNECTOR = {"vision": "adapt", "connector": "freeze", "language": "adapt"}
# Both held whole by the adapter.
WHOLE_BESIDE = {"vision": "train", "connector": "train", "language": "adapt"}


@dataclass(frozen=True)
class Case:
    """A training. edge: of its square images, in pixels; its recipe's `train` section has `more` beside.

    divided: the shipped launcher config, by name, by which two processes share it; "" for one process.
    """

    family: str
    size: str
    method: str
    dtype: str
    checkpointing: bool | int
    edge: int
    batch: int
    accumulation: int = 1
    more: dict[str, Any] = field(default_factory=dict)
    divided: str = ""

    @property
    def processes(self) -> int:
        return 2 if self.divided else 1

    @property
    def rows(self) -> int:
        """Of one step of all processes."""
        return self.batch * self.accumulation * self.processes


CASES = {
    "qwen_lora": Case("qwen3_vl", "middle", "lora", "float32", False, 768, 2),
    "qwen_lora_again": Case("qwen3_vl", "middle", "lora", "float32", True, 768, 4),
    "qwen_lora_every_second": Case("qwen3_vl", "middle", "lora", "float32", 2, 768, 2),
    "qwen_lora_half": Case("qwen3_vl", "middle", "lora", "bfloat16", False, 768, 1),
    "qwen_lora_packed": Case(
        "qwen3_vl", "middle", "lora", "float32", False, 512, 4, more={"max_length": 1024, "pack_length": 2048}
    ),
    "qwen_lora_kept": Case("qwen3_vl", "middle", "lora", "float32", False, 768, 4, more={"towers": FROZEN}),
    "qwen_lora_kept_packed": Case(
        "qwen3_vl",
        "middle",
        "lora",
        "bfloat16",
        False,
        512,
        4,
        more={"towers": FROZEN, "max_length": 1024, "pack_length": 2048},
    ),
    "qwen_dora": Case(
        "qwen3_vl", "middle", "lora", "float32", False, 512, 2, more={"lora": {"variant": "dora"}}
    ),
    "qwen_qlora": Case("qwen3_vl", "middle", "qlora", "float32", False, 512, 2),
    "qwen_dpo": Case("qwen3_vl", "middle", "lora", "float32", False, 512, 1, more={"objective": "dpo"}),
    "qwen_lora_beside_whole": Case(
        "qwen3_vl", "middle", "lora", "float32", False, 512, 2, more={"towers": WHOLE_BESIDE}
    ),
    "qwen_lora_beside_whole_half": Case(
        "qwen3_vl", "middle", "lora", "bfloat16", False, 512, 1, more={"towers": WHOLE_BESIDE}
    ),
    "qwen_full": Case("qwen3_vl", "middle", "full", "float32", False, 384, 2),
    "qwen_full_again": Case("qwen3_vl", "middle", "full", "float32", True, 768, 2, 2),
    "qwen_full_half": Case("qwen3_vl", "middle", "full", "bfloat16", False, 512, 1),
    "qwen_small": Case("qwen3_vl", "tiny", "lora", "float32", False, 512, 2),
    "qwen_moe_lora": Case("qwen3_vl_moe", "middle", "lora", "float32", False, 512, 2),
    "qwen_moe_experts": Case(
        "qwen3_vl_moe", "middle", "lora", "float32", False, 512, 2, more={"lora": {"experts": {"rank": 8}}}
    ),
    "qwen_moe_full": Case("qwen3_vl_moe", "middle", "full", "float32", False, 384, 2),
    "glm_lora": Case("glm4v", "middle", "lora", "float32", False, 672, 2),
    "glm_lora_kept": Case("glm4v", "middle", "lora", "float32", True, 896, 3, more={"towers": FROZEN}),
    "glm_lora_half": Case("glm4v", "middle", "lora", "bfloat16", True, 896, 4),
    "glm_full": Case("glm4v", "middle", "full", "float32", False, 448, 1),
    "glm_full_again": Case("glm4v", "tiny", "full", "float32", True, 896, 2),
    "glm_moe_lora": Case("glm4v_moe", "middle", "lora", "float32", False, 448, 2),
    "gemma_lora": Case(
        "gemma3", "middle", "lora", "float32", False, FIXED_EDGE, 4, more={"towers": WITHOUT_CONNECTOR}
    ),
    "gemma_full": Case("gemma3", "middle", "full", "float32", False, FIXED_EDGE, 4),
    "molmo_lora": Case("molmo2", "middle", "lora", "float32", False, FIXED_EDGE, 4),
    "deepseek_lora": Case("deepseek_ocr2", "middle", "lora", "float32", False, FIXED_EDGE, 4),
    "zero2_lora": Case("qwen3_vl", "middle", "lora", "bfloat16", False, 512, 1, divided="deepspeed_zero2"),
    "zero2_full": Case("qwen3_vl", "middle", "full", "float32", False, 384, 1, divided="deepspeed_zero2"),
    "zero2_full_half": Case(
        "qwen3_vl", "middle", "full", "bfloat16", True, 256, 1, 2, divided="deepspeed_zero2"
    ),
    "zero2_full_offload": Case(
        "qwen3_vl", "middle", "full", "bfloat16", False, 256, 1, divided="deepspeed_zero2_offload"
    ),
    "zero3_lora": Case("qwen3_vl", "middle", "lora", "float32", False, 512, 1, divided="deepspeed_zero3"),
    "zero3_full": Case("qwen3_vl", "middle", "full", "float32", False, 384, 1, divided="deepspeed_zero3"),
    "zero3_full_half": Case(
        "qwen3_vl", "middle", "full", "bfloat16", True, 256, 1, 2, divided="deepspeed_zero3"
    ),
    "zero3_full_offload": Case(
        "qwen3_vl", "middle", "full", "bfloat16", False, 256, 1, divided="deepspeed_zero3_offload"
    ),
    "fsdp2_lora": Case("qwen3_vl", "middle", "lora", "float32", False, 512, 1, divided="fsdp2"),
    "fsdp2_full": Case("qwen3_vl", "middle", "full", "bfloat16", False, 384, 1, divided="fsdp2"),
    "fsdp2_full_again": Case("qwen3_vl", "middle", "full", "bfloat16", True, 256, 1, 2, divided="fsdp2"),
}


def _scale(content: dict[str, Any], case: Case) -> dict[str, Any]:
    """A tiny config of the family at the case's size; heads keep their width where the config states one."""
    names = ("text_hidden", "text_wide", "text_layers", "text_heads", "hidden", "wide", "layers", "heads")
    sizes: dict[str, int] = dict(zip(names, SIZES[case.size], strict=True))
    text, vision = content["text_config"], content["vision_config"]
    text |= {
        "hidden_size": sizes["text_hidden"],
        "intermediate_size": sizes["text_wide"],
        "num_hidden_layers": sizes["text_layers"],
        "num_attention_heads": sizes["text_heads"],
        "num_key_value_heads": sizes["text_heads"] // 2,
    }
    if "moe_intermediate_size" in text:
        # No square: see scripts/tiny_families.
        text["moe_intermediate_size"] = sizes["text_hidden"] * 3 // 4
    for kinds in ("layer_types", "mlp_layer_types"):
        if given := text.get(kinds):
            text[kinds] = given[:1] + given[-1:] * (sizes["text_layers"] - 1)
    if "additional_vocab_size" not in text:
        # There the ids of image tokens lie behind the vocabulary.
        text["vocab_size"] = VOCABULARY
    if "adapter_config" in content:
        content["adapter_config"] |= {
            "text_hidden_size": sizes["text_hidden"],
            "hidden_size": sizes["hidden"],
        }
    # DeepSeek-OCR's encoders, of which a config may not state all, stay tiny.
    if "sam_config" not in vision:
        vision |= {name: sizes[of] for name, of in VISION_NAMES.items() if name in vision}
    return content


def write_base(case: Case, out: Path) -> None:
    """The case's checkpoint."""
    from tiny_families import MAKERS
    from tiny_families.checkpoint import write
    from transformers import PreTrainedConfig, ProcessorMixin

    tiny = MAKERS[case.family]

    def config(processor: ProcessorMixin) -> PreTrainedConfig:
        small = tiny.config(processor)
        return type(small).from_dict(_scale(small.to_dict(), case))

    write(dataclasses.replace(tiny, config=config), case.family, out, 0)


def write_launcher(case: Case, folder: Path) -> Path:
    """The shipped launcher config of the case's name, for two processes on CPUs; that of one as it is."""
    shipped = ROOT / "recipes/accelerate" / f"{case.divided or 'cpu'}.yaml"
    if not case.divided:
        return shipped
    import yaml

    content = yaml.safe_load(shipped.read_text())
    # With FSDP the launcher refuses what accelerate ignores.
    content |= {"num_processes": case.processes, "use_cpu": content["distributed_type"] != "FSDP"}
    path = folder / "launcher.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def make_recipe(case: Case, folder: Path) -> Recipe:
    """The case's recipe; its base lies in `folder`, where the recipe is written too."""
    from lensmith import families
    from lensmith.recipe import load_recipe

    mode = "train" if case.method == "full" else "adapt"
    budget = {"min_pixels": 64 * 64, "max_pixels": case.edge**2}
    content = {
        "version": 1,
        "family": case.family,
        "base": {"path": str(folder / "base")},
        "data": {"source": str(folder), "answer": "json", "split": {"seed": 17}},
        **({"pixels": budget} if families.get(case.family).cut == "area" else {}),
        "train": {
            "method": case.method,
            "towers": dict.fromkeys(("vision", "connector", "language"), mode),
            "launcher": str(write_launcher(case, folder)),
            "dtype": case.dtype,
            "max_length": 1024,
            "max_steps": STEPS,
            "batch_size": case.batch,
            "gradient_accumulation": case.accumulation,
            "gradient_checkpointing": case.checkpointing,
            "learning_rate": 0.001,
            "wandb": "disabled",
            **case.more,
        },
        "serve": {"max_model_len": 1024, "max_new_tokens": 16},
        "release": {"name": "memory", "intended_use": "Measuring memory."},
        "gates": str(ROOT / "recipes/gates/default.yaml"),
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content))
    return load_recipe(path)


def make_dataset(case: Case, folder: Path) -> Artifact:
    """The rows of one step, with one image each, all of one length: the second step has them in memory."""
    from PIL import Image as Picture

    from lensmith.dataset import split_file
    from lensmith.home import Home
    from lensmith.images import encode_png
    from lensmith.row_file import Row, write_rows
    from lensmith.sample import Image, Message, Sample, Text

    edge = (case.edge, case.edge)
    picture = encode_png(Picture.new("RGB", edge, "white"))
    asked = Message("user", (Image("page.png", "a0", edge), Text("Read the form.")))
    said, worse = (Text(json.dumps({"account": digits * 20})) for digits in ("732006", "732086"))
    answer = Message("assistant", (said,), rejected=(worse,) if "objective" in case.more else ())
    with Home(folder / "home").create("dataset", "0" * 64, {}) as draft:
        rows = [Row(Sample(f"r{number}", "g", (asked, answer)), (picture,)) for number in range(case.rows)]
        write_rows(draft.path / split_file("train"), rows)
    return draft.artifact
