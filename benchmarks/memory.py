"""The memory that `lensmith plan` predicts, against what real training steps take on this machine.

    python benchmarks/memory.py [--case NAME] [--write]

Models of the real classes of all families with random weights: LoRA, DoRA, 4 bits, experts, full; answers
and preferences, padded and packed; with and without gradient checkpointing, both dtypes, several image
sizes; and divided over two processes by ZeRO-2, ZeRO-3 and FSDP2. Each is trained for two steps by the
trainer of `lensmith train`, in processes of its own with one thread each. Weights and optimizer state are
measured as the bytes of the tensors that are there. What a pass holds (its batches, activations, logits, the
gradients that come meanwhile, and what is copied of them for the update) is the high-water mark of resident
memory within the second step less what was resident before its batches were made: what the machine really
gives. What DeepSpeed keeps between steps beside its state is added, of its bucket what gradients are written
to; what it offloads is left out. Not in it is what the process takes beside: libraries and their caches,
`beside`. glibc is told to give freed memory back, so that the mark is not that of an earlier step. Where
image features are kept, what the towers hold while they make them is measured likewise, before the first
step.

Of two processes the larger figures count. `ratio` is predicted over measured of weights, optimizer and pass
together, of the case that is farthest from 1; `pass_ratio` and `state_ratio` likewise of the pass and of the
rest. With --write, what was found of other cases by the same packages stays. The last line is the result,
JSON; the command fails where one of them is farther than 15% from 1.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result  # noqa: E402
from benchmarks.memory_case import (  # noqa: E402
    CASES,
    Case,
    make_dataset,
    make_recipe,
    write_base,
    write_launcher,
)

RESULT = Path(__file__).parent / "results" / "memory.json"
BOUND = 0.15
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed")
# Of which predicted and measured bytes are written, and held against each other.
PARTS = ("total", "state", "at_once")
# Of a case: its date, and by part bytes predicted and measured.
Found = dict[str, Any]
# Blocks from this size on lie in pages of their own, which go back to the machine when they are freed.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def predicted(case: Case, folder: Path) -> dict[str, int]:
    """What the plan says of the case, in bytes."""
    from finetune.model import DTYPES
    from finetune.plan import plan
    from finetune.zero import BUCKET, Zero

    write_base(case, folder / "base")
    # Of ZeRO's bucket only what gradients are written to is in memory here.
    with patch.object(Zero, "bucket", Zero.summed):
        planned = plan(make_recipe(case, folder), make_dataset(case, folder))
    memory = planned.memory
    return {
        **dataclasses.asdict(memory),
        "bucket": BUCKET * DTYPES[case.dtype].itemsize if planned.launcher.zero_stage else 0,
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
    """What two steps of the case's training take, in bytes, of this process."""
    import gc

    from accelerate import PartialState
    from torch.utils._pytree import tree_leaves
    from transformers import TrainerCallback

    from benchmarks.memory_tensors import alive, size, storages, tensors_of, whole_size, without
    from finetune.arguments import training_arguments
    from finetune.collate import EncodedRows
    from finetune.encoder import count_rows, row_encoder
    from finetune.features import keep_features
    from finetune.launcher import read_launcher
    from finetune.model import load_skeleton
    from finetune.operators import load_operators
    from finetune.packed import pack_rows
    from finetune.train import make_trainer
    from lensmith.dataset import read_split
    from lensmith.home import Home

    write_base(case, folder / "base")
    recipe, dataset = make_recipe(case, folder), make_dataset(case, folder)
    found: dict[str, int] = {}

    source, home = folder / "base", Home(folder / "home")
    launcher, encoder = read_launcher(recipe.train.launcher), row_encoder(recipe, source)
    # As train_process does: before the processes join.
    bare = load_skeleton(source) if recipe.train.pack_length else None
    load_operators(launcher)
    arguments = training_arguments(recipe, launcher, folder / "work")
    counts = count_rows(recipe, dataset, source, encoder, PartialState())
    packs = pack_rows(recipe, launcher, dataset, source, encoder, bare, counts, arguments)
    rows = EncodedRows(read_split(dataset, "train"), encoder, positions=packs and packs.positions)
    home.work_path("0" * 64).mkdir(parents=True)
    # Of a worker's batches a part would be in no memory of this process.
    arguments.dataloader_num_workers, arguments.dataloader_persistent_workers = 0, False
    started, start = alive(), resident("VmRSS")
    trainer, _ = make_trainer(recipe, "0" * 64, home, source, arguments, rows, packs)
    # Once for what a first pass loads of libraries, and once to see what it holds.
    if keep_features(trainer, launcher, rows, counts):
        gc.collect()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        keep_features(trainer, launcher, rows, counts)
        found["features"] = resident("VmHWM") - before
    trained = sum(whole_size(each) for each in trainer.base.parameters() if each.requires_grad)

    def note_gradients() -> None:
        found["gradients"] = size(tensors_of(trainer, launcher.zero_stage).gradients())

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            if not launcher.zero_stage:
                note_gradients()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            found["most"] = resident("VmHWM")

    trainer.add_callback(Watch())
    collect = trainer.get_batch_samples

    def from_here(epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """What is there when a step begins: the last step's figures stay."""
        parts = tensors_of(trainer, launcher.zero_stage)
        weights, state, host = parts.weights(), parts.state(), parts.host()
        ours = [each for row in rows.kept.values() for each in tree_leaves(vars(row))]
        rest = without(alive(), started, weights, state, host, storages(ours))
        bucket, each = parts.bucket()
        found.update(weights=size(weights), optimizer=size(state), host=size(host), bucket=bucket * each)
        # Of the bucket only what gradients are written to is in memory; stage 2 makes it anew for each pass.
        untouched = max(0, bucket - trained) * each if launcher.zero_stage == 3 else 0
        found["rest"] = size(rest) - untouched
        if "gradients" not in found:
            parts.watch(note_gradients, trained)
        gc.collect()
        found["before"] = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        return collect(epoch_iterator, num_batches, device)

    trainer.get_batch_samples = from_here
    # Nothing is written: a checkpoint is no part of a step.
    arguments.save_strategy = "no"
    trainer.train()
    state = found["weights"] + found["optimizer"]
    at_once = found["rest"] + found["most"] - found["before"]
    return {
        **{name: found[name] for name in ("weights", "gradients", "optimizer", "host", "rest", "bucket")},
        **{name: found[name] for name in ("features",) if name in found},
        "state": state,
        "at_once": at_once,
        "total": state + at_once,
        "beside": found["before"] - start - state - found["host"] - found["rest"],
    }


def measured_together(name: str, environment: dict[str, str]) -> dict[str, int]:
    """What a case takes that several processes share: of each part the most that one of them has."""
    case = CASES[name]
    with tempfile.TemporaryDirectory(prefix="lensmith-memory-") as folder:
        config, out = write_launcher(case, Path(folder)), Path(folder) / "out"
        out.mkdir()
        launch = [
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(config),
            "--main_process_port",
            "0",
        ]
        words = [*launch, __file__, "--side", "measured", "--case", name, "--out", str(out)]
        here = {"PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run(
            [sys.executable, *words], env={**environment, **here}, stdout=subprocess.DEVNULL, check=True
        )
        each = [json.loads((out / f"{rank}.json").read_bytes()) for rank in range(case.processes)]
    return {part: max(one[part] for one in each) for part in each[0]}


def compare(name: str) -> dict[str, dict[str, int]]:
    """Both sides of a case, each from processes of its own."""
    environment = result.one_thread(WANDB_MODE="disabled", HF_HUB_OFFLINE="1", **GIVE_BACK)

    def alone(side: str) -> dict[str, int]:
        return result.last_line([__file__, "--side", side, "--case", name], environment)

    together = measured_together(name, environment) if CASES[name].divided else alone("measured")
    return {"predicted": alone("predicted"), "measured": together}


def write_side(side: str, case: Case, out: Path | None) -> None:
    """Print a side of a case, or write it to `out` by this process's rank."""
    with contextlib.ExitStack() as stack:
        if side == "measured" and case.divided:
            import transformers.training_args

            from tests.finetune.fsdp2_trainings import over_gloo

            # transformers looks for a GPU that knows bfloat16; DeepSpeed and torch do it here too.
            known = patch.object(transformers.training_args, "is_torch_bf16_gpu_available", lambda: True)
            stack.enter_context(over_gloo() if case.divided.startswith("fsdp") else known)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lensmith-memory-"))
        found = json.dumps((predicted if side == "predicted" else measured)(case, Path(folder)))
    if out is None:
        print(found)
    else:
        (out / f"{os.environ['RANK']}.json").write_text(found)


def ratios_of(case: Found) -> dict[str, float]:
    """Predicted over measured, by part."""
    pairs = {part: case[part] for part in (*PARTS, "features") if part in case}
    # Where all is offloaded no state is left.
    return {part: round(ours / real, 3) for part, (ours, real) in pairs.items() if ours or real}


def farthest(pairs: list[list[int]]) -> float:
    """Of predicted over measured, the one farthest from 1."""
    return round(max((ours / real for ours, real in pairs), key=lambda ratio: max(ratio, 1 / ratio)), 3)


def before() -> dict[str, Found]:
    """What was found of each case, where it was with the packages that are here."""
    written = json.loads(RESULT.read_bytes())
    same = all(written["versions"].get(name) == version(name) for name in PACKAGES)
    return written["found"] if same else {}


def line_of(found: Mapping[str, Found]) -> dict[str, Any]:
    """The result over all cases."""
    worst = {part: farthest([each[part] for each in found.values() if any(each[part])]) for part in PARTS}
    last = max((each["total"] for each in found.values()), key=lambda pair: abs(pair[0] / pair[1] - 1))
    return {
        "name": "memory",
        "ratio": worst["total"],
        "ours": round(last[0] / 1e6),
        "baseline": round(last[1] / 1e6),
        "unit": "MB of the case farthest off, predicted and measured",
        "state_ratio": worst["state"],
        "pass_ratio": worst["at_once"],
        "cases": len(found),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="predicted and measured memory of training steps")
    parser.add_argument("--case", choices=CASES, action="append", help="only this one (repeatable)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--side", choices=("predicted", "measured"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.case or list(CASES)
    if given.side:
        write_side(given.side, CASES[names[0]], given.out)
        return 0
    found = before() if given.write else {}
    for name in names:
        sides = compare(name)
        ours, real = sides["predicted"], sides["measured"]
        found[name] = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            **{part: [ours[part], real[part]] for part in (*PARTS, "features") if part in real},
        }
        shown = {part: f"{ours[part] >> 20} / {real[part] >> 20}" for part in real if part in ours}
        print(name, f"{ours['parameters']:,} parameters, {ours['tokens']} tokens", file=sys.stderr)
        print("  MiB", json.dumps(shown), json.dumps(ratios_of(found[name])), file=sys.stderr, flush=True)
        line = line_of(found)
        if given.write:
            cases = {name: found[name] for name in CASES if name in found}
            ratios = {name: ratios_of(each) for name, each in cases.items()}
            result.write(
                RESULT, line, PACKAGES, {"threads": 1, "bound": BOUND, "ratios": ratios, "found": cases}
            )
    print(json.dumps(line_of(found)))
    far = [
        name
        for name in found
        if any(not 1 - BOUND < ratio < 1 + BOUND for ratio in ratios_of(found[name]).values())
    ]
    for name in far:
        print(f"{name} is farther than {BOUND:.0%} off", file=sys.stderr)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
