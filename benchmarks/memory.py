"""The memory that `lensmith plan` predicts, against what real training steps take on this machine.

    python benchmarks/memory.py [--case NAME] [--write]

Models of the real classes of all families with random weights: LoRA, DoRA, 4 bits, experts, full; answers
and preferences, padded and packed; with and without gradient checkpointing, both dtypes, several image
sizes. Each is trained for two steps by the trainer of `lensmith train`, in a process of its own with one
thread. Weights and optimizer state are measured as the bytes of the tensors that are there. What a pass
holds (its batches, activations, logits, and the gradients that come meanwhile) is the high-water mark of
resident memory within the second step less what was resident before its batches were made: what the machine
really gives. Not in it is what
the process takes beside: libraries and their caches, `beside`. glibc is told to give freed memory back, so
that the mark is not that of an earlier step. Where image features are kept, what the towers hold while they
make them is measured likewise, before the first step. `ratio` is predicted over measured of weights,
optimizer and pass together, of the case that is farthest from 1; `pass_ratio` and `state_ratio` likewise of
the pass and of the rest. The last line is the result, JSON; the command fails where one of them is farther
than 15% from 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result  # noqa: E402
from benchmarks.memory_case import CASES, Case, make_dataset, make_recipe, write_base  # noqa: E402

RESULT = Path(__file__).parent / "results" / "memory.json"
BOUND = 0.15
# Blocks from this size on lie in pages of their own, which go back to the machine when they are freed.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


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

    from accelerate import PartialState
    from transformers import TrainerCallback

    from finetune.arguments import training_arguments
    from finetune.collate import EncodedRows
    from finetune.encoder import count_rows, row_encoder
    from finetune.features import keep_features
    from finetune.launcher import read_launcher
    from finetune.model import load_skeleton
    from finetune.packed import pack_rows
    from finetune.train import make_trainer
    from lensmith.dataset import read_split
    from lensmith.home import Home

    write_base(case, folder / "base")
    recipe, dataset = make_recipe(case, folder), make_dataset(case, folder)
    found: dict[str, int] = {}

    class Watch(TrainerCallback):
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
    launcher, encoder = read_launcher(recipe.train.launcher), row_encoder(recipe, source)
    bare = load_skeleton(source) if recipe.train.pack_length else None
    arguments = training_arguments(recipe, launcher, folder / "work")
    counts = count_rows(recipe, dataset, source, encoder, PartialState())
    packs = pack_rows(recipe, launcher, dataset, source, encoder, bare, counts, arguments)
    rows = EncodedRows(read_split(dataset, "train"), encoder, positions=packs and packs.positions)
    home.work_path("0" * 64).mkdir(parents=True)
    gc.collect()
    start = resident("VmRSS")
    trainer, _ = make_trainer(recipe, "0" * 64, home, source, arguments, rows, packs)
    # Once for what a first pass loads of libraries, and once to see what it holds.
    if keep_features(trainer, launcher, rows, counts):
        gc.collect()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        keep_features(trainer, launcher, rows, counts)
        found["features"] = resident("VmHWM") - before
        gc.collect()
    trainer.add_callback(Watch())
    collect = trainer.get_batch_samples

    def from_here(epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        gc.collect()
        found["before"] = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        return collect(epoch_iterator, num_batches, device)

    trainer.get_batch_samples = from_here
    # Nothing is written: a checkpoint is no part of a step.
    arguments.save_strategy = "no"
    trainer.train()
    state, at_once = found["weights"] + found["optimizer"], found["most"] - found["before"]
    return {
        **{name: found[name] for name in ("weights", "gradients", "optimizer")},
        **{name: found[name] for name in ("features",) if name in found},
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
    both: dict[str, dict[str, dict[str, int]]] = {}
    ratios: dict[str, dict[str, float]] = {}
    for name in names:
        sides = both[name] = compare(name)
        ours, real = sides["predicted"], sides["measured"]
        parts = [part for part in ("total", "state", "at_once", "features") if part in real]
        ratios[name] = {part: round(ours[part] / real[part], 3) for part in parts}
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
