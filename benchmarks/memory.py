"""The memory that `lensmith plan` predicts, against what real training steps take on this machine.

    python benchmarks/memory.py [--case NAME] [--write]

Models of the real classes with random weights, LoRA and full, with and without gradient checkpointing, both
dtypes, several image sizes. Each is trained for two steps by the trainer of `lensmith train`, in a process
of its own with one thread. Weights and optimizer state are measured as the bytes of the tensors that are
there. What a pass holds (activations, logits, and the gradients that come meanwhile) is the high-water mark
of resident memory within the second step less what was resident when it began: what the machine really
gives. Not in it is what the process takes beside: libraries and their caches, `beside`. glibc is told to
give freed memory back, so that the mark is not that of an earlier step. `ratio` is predicted over measured
of weights, optimizer and pass together, of the case that is farthest from 1; `pass_ratio` and `state_ratio`
likewise of the pass and of the rest. The last line is the result, JSON; the command fails where one of them
is farther than 15% from 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result  # noqa: E402

if TYPE_CHECKING:
    from lensmith.artifact import Artifact
    from lensmith.recipe import Recipe

RESULT = Path(__file__).parent / "results" / "memory.json"
BOUND = 0.15
# Blocks from this size on lie in pages of their own, which go back to the machine when they are freed.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
STEPS = 2
# By size: hidden, feed-forward, layers, heads of the text; hidden, feed-forward, depth, heads of the vision.
SIZES = {"tiny": (256, 768, 4, 4, 256, 768, 4, 4), "middle": (512, 1536, 8, 8, 384, 1536, 6, 6)}
VOCABULARY = 16_384


@dataclass(frozen=True)
class Case:
    """A training. edge: of its square images, in pixels."""

    family: str
    size: str
    method: str
    dtype: str
    checkpointing: bool | int
    edge: int
    batch: int
    accumulation: int = 1


CASES = {
    "qwen_lora": Case("qwen3_vl", "middle", "lora", "float32", False, 768, 2),
    "qwen_lora_again": Case("qwen3_vl", "middle", "lora", "float32", True, 768, 4),
    "qwen_lora_every_second": Case("qwen3_vl", "middle", "lora", "float32", 2, 768, 2),
    "qwen_lora_half": Case("qwen3_vl", "middle", "lora", "bfloat16", False, 768, 1),
    "qwen_full": Case("qwen3_vl", "middle", "full", "float32", False, 384, 2),
    "qwen_full_again": Case("qwen3_vl", "middle", "full", "float32", True, 768, 2, 2),
    "qwen_full_half": Case("qwen3_vl", "middle", "full", "bfloat16", False, 512, 1),
    "qwen_small": Case("qwen3_vl", "tiny", "lora", "float32", False, 512, 2),
    "glm_lora": Case("glm4v", "middle", "lora", "float32", False, 672, 2),
    "glm_lora_half": Case("glm4v", "middle", "lora", "bfloat16", True, 896, 4),
    "glm_full": Case("glm4v", "middle", "full", "float32", False, 448, 1),
    "glm_full_again": Case("glm4v", "tiny", "full", "float32", True, 896, 2),
}


def write_base(case: Case, out: Path) -> None:
    """The case's checkpoint."""
    from tiny_families import MAKERS
    from tiny_families.checkpoint import write
    from transformers import PreTrainedConfig, ProcessorMixin

    tiny = MAKERS[case.family]
    hidden, wide, layers, heads, seeing, wide_seeing, depth, seeing_heads = SIZES[case.size]

    def config(processor: ProcessorMixin) -> PreTrainedConfig:
        small = tiny.config(processor)
        content = small.to_dict()
        # One for each layer; left out, the class makes them.
        content["text_config"].pop("layer_types", None)
        content["text_config"] |= {
            "vocab_size": VOCABULARY,
            "hidden_size": hidden,
            "intermediate_size": wide,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
        }
        content["vision_config"] |= {
            "hidden_size": seeing,
            "intermediate_size": wide_seeing,
            "depth": depth,
            "num_heads": seeing_heads,
            "out_hidden_size": hidden,
        }
        return type(small).from_dict(content)

    write(dataclasses.replace(tiny, config=config), case.family, out, 0)


def make_recipe(case: Case, folder: Path) -> Recipe:
    from lensmith.recipe import load_recipe

    mode = "adapt" if case.method == "lora" else "train"
    content = {
        "version": 1,
        "family": case.family,
        "base": {"path": str(folder / "base")},
        "data": {"source": str(folder), "answer": "json", "split": {"seed": 17}},
        "pixels": {"min_pixels": 64 * 64, "max_pixels": case.edge**2},
        "train": {
            "method": case.method,
            "towers": dict.fromkeys(("vision", "connector", "language"), mode),
            "launcher": str(ROOT / "recipes/accelerate/cpu.yaml"),
            "dtype": case.dtype,
            "max_steps": STEPS,
            "batch_size": case.batch,
            "gradient_accumulation": case.accumulation,
            "gradient_checkpointing": case.checkpointing,
            "learning_rate": 0.001,
            "wandb": "disabled",
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
    answer = Message("assistant", (Text(json.dumps({"account": "732006" * 20})),))
    with Home(folder / "home").create("dataset", "0" * 64, {}) as draft:
        rows = [
            Row(Sample(f"r{number}", "g", (asked, answer)), (picture,))
            for number in range(case.batch * case.accumulation)
        ]
        write_rows(draft.path / split_file("train"), rows)
    return draft.artifact


def predicted(case: Case, folder: Path) -> dict[str, int]:
    """What the plan says of the case, in bytes."""
    from finetune.plan import plan

    write_base(case, folder / "base")
    planned = plan(make_recipe(case, folder), make_dataset(case, folder))
    memory = planned.memory
    return {
        **dataclasses.asdict(memory),
        "state": memory.weights + memory.optimizer,
        "total": memory.total,
        "parameters": planned.parameters,
        "tokens": planned.rows.longest.total * case.batch,
    }


def resident(mark: str) -> int:
    """Bytes of this process that Linux says are resident: now ("VmRSS") or at most ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{mark}:"))


def measured(case: Case, folder: Path) -> dict[str, int]:
    """What two steps of the case's training take, in bytes."""
    import gc

    from transformers import TrainerCallback

    from finetune.arguments import training_arguments
    from finetune.collate import EncodedRows
    from finetune.encoder import row_encoder
    from finetune.launcher import read_launcher
    from finetune.train import make_trainer
    from lensmith.dataset import read_split
    from lensmith.home import Home

    write_base(case, folder / "base")
    recipe, dataset = make_recipe(case, folder), make_dataset(case, folder)
    found: dict[str, int] = {}

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            gc.collect()
            found["before"] = resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")

        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            found["gradients"] = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
            found["weights"] = sum(p.nbytes for p in model.parameters())

        def on_step_end(
            self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
        ) -> None:
            found["most"] = resident("VmHWM")
            kept = [each for values in optimizer.state.values() for each in values.values()]
            found["optimizer"] = sum(each.nbytes for each in kept)

    source, home = folder / "base", Home(folder / "home")
    arguments = training_arguments(recipe, read_launcher(recipe.train.launcher), folder / "work")
    rows = EncodedRows(read_split(dataset, "train"), row_encoder(recipe, source))
    home.work_path("0" * 64).mkdir(parents=True)
    gc.collect()
    start = resident("VmRSS")
    trainer, _ = make_trainer(recipe, "0" * 64, home, source, arguments, rows, None)
    trainer.add_callback(Watch())
    # Nothing is written: a checkpoint is no part of a step.
    arguments.save_strategy = "no"
    trainer.train()
    state, at_once = found["weights"] + found["optimizer"], found["most"] - found["before"]
    return {
        **{name: found[name] for name in ("weights", "gradients", "optimizer")},
        "state": state,
        "at_once": at_once,
        "total": state + at_once,
        "beside": found["before"] - start - state,
    }


def compare(name: str) -> dict[str, dict[str, int]]:
    """Both sides of a case, each from a process of its own."""
    environment = result.one_thread(WANDB_MODE="disabled", HF_HUB_OFFLINE="1", **GIVE_BACK)
    sides = ("predicted", "measured")
    return {side: result.last_line([__file__, "--side", side, "--case", name], environment) for side in sides}


def farthest(pairs: list[tuple[int, int]]) -> float:
    """Of predicted over measured, the one farthest from 1."""
    return round(max((ours / real for ours, real in pairs), key=lambda ratio: max(ratio, 1 / ratio)), 3)


def main() -> int:
    parser = argparse.ArgumentParser(description="predicted and measured memory of training steps")
    parser.add_argument("--case", choices=CASES, action="append", help="only this one (repeatable)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--side", choices=("predicted", "measured"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.case or list(CASES)
    if given.side:
        with tempfile.TemporaryDirectory(prefix="lensmith-memory-") as folder:
            side = predicted if given.side == "predicted" else measured
            print(json.dumps(side(CASES[names[0]], Path(folder))))
        return 0
    both = {name: compare(name) for name in names}
    ratios: dict[str, dict[str, float]] = {}
    for name, sides in both.items():
        ours, real = sides["predicted"], sides["measured"]
        ratios[name] = {part: round(ours[part] / real[part], 3) for part in ("total", "state", "at_once")}
        shown = {part: f"{ours[part] >> 20} / {real[part] >> 20}" for part in real if part in ours}
        print(name, f"{ours['parameters']:,} parameters, {ours['tokens']} tokens", file=sys.stderr)
        print("  MiB", json.dumps(shown), json.dumps(ratios[name]), file=sys.stderr)
    worst = {
        part: farthest([(sides["predicted"][part], sides["measured"][part]) for sides in both.values()])
        for part in ("total", "state", "at_once")
    }
    far = [name for name in both if any(not 1 - BOUND < each < 1 + BOUND for each in ratios[name].values())]
    last = both[max(both, key=lambda name: abs(ratios[name]["total"] - 1))]
    line = {
        "name": "memory",
        "ratio": worst["total"],
        "ours": round(last["predicted"]["total"] / 1e6),
        "baseline": round(last["measured"]["total"] / 1e6),
        "unit": "MB of the case farthest off, predicted and measured",
        "state_ratio": worst["state"],
        "pass_ratio": worst["at_once"],
        "cases": len(both),
    }
    if given.write:
        packages = ("torch", "transformers", "trl", "peft", "accelerate")
        result.write(RESULT, line, packages, {"threads": 1, "bound": BOUND, "ratios": ratios})
    print(json.dumps(line))
    for name in far:
        print(f"{name} is farther than {BOUND:.0%} off", file=sys.stderr)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
