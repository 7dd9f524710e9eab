"""Time to the first step after a resume, of a training that is far and of one that has just begun.

    python benchmarks/resume.py [--far 10000] [--near 10] [--write]

Both sides resume the same packed training, of `far` and some more steps in one epoch, with the trainer that
recipes run: "ours" after step `far`, "baseline" after step `near`. Their checkpoints are one that was really
saved, with step and log written as they would be there. The clock runs from the call of `train` to the end of
the first step: state, optimizer and log are read, what was trained is skipped, and a step is made. Both are
resumed in turn in one process with one thread; the best of five counts. The last line is the result, JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result, training  # noqa: E402

RESULT = Path(__file__).parent / "results" / "resume.json"
# Rows of a step, rows that differ, steps behind the far one, resumes that are timed.
STEP, DISTINCT, BEHIND, TIMES = 8, 64, 5, 5
PACK = 1024


class Repeated:
    """As many rows as are asked for, of which `DISTINCT` differ."""

    def __init__(self) -> None:
        self.rows = training.make_rows(DISTINCT)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number % DISTINCT]


def make_trainer(folder: str, steps: int, callback: Any, **settings: Any) -> Any:
    """The trainer that recipes run, packed, over one epoch of `steps` steps."""
    import numpy as np
    from datasets import Dataset

    from finetune.collate import FILLER, NUMBER, EncodedRows
    from finetune.documents import PackCollator, attend_per_document, rope_positions
    from finetune.packing import Packing, plan_packs
    from finetune.trainer import AnswerTrainer
    from lensmith.recipe import load_recipe
    from lensmith.tokens import ImageGrid, PixelBudget

    task = training.Task("resume", 0, steps * STEP, 1, STEP, STEP, PACK)
    model, encoder = training.make_model(task)
    rows = Repeated()
    size = encoder.processor.image_processor.size
    grid = ImageGrid(32, 1, PixelBudget(size["shortest_edge"], size["longest_edge"]))
    costs = np.array([each.total for each in encoder.tokens_of(rows.rows, grid)])
    tokens = costs[np.arange(task.rows) % DISTINCT]
    plan = plan_packs(Packing(tokens, tokens, PACK, STEP, 1, seed=1), 1)
    base = model.get_base_model()
    attend_per_document(base)
    transform = EncodedRows(rows, encoder, positions=rope_positions(base))  # pyright: ignore[reportArgumentType]
    arguments = training.settings(
        task,
        folder,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=plan.passes,
        dataset_kwargs={"skip_prepare_dataset": True},
        **settings,
    )
    return AnswerTrainer(
        load_recipe(ROOT / "recipes/bank_forms/qwen3_vl_tiny_lora.yaml"),
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({NUMBER: [*range(task.rows), FILLER]}).with_transform(transform),
        data_collator=PackCollator(),
        processing_class=encoder.processor,
        packs=plan,
        callbacks=[callback],
    )


def make_callback() -> Any:
    """Ends a training after its first step; `ended` is when that was."""
    from transformers import TrainerCallback

    class OneStep(TrainerCallback):
        ended = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.ended = time.perf_counter()
            control.should_training_stop = True

    return OneStep()


def place(saved: Path, step: int, steps: int) -> Path:
    """The checkpoint `saved` after step 1 as it would be after `step` of `steps`."""
    folder = saved.with_name(f"checkpoint-{step}")
    shutil.copytree(saved, folder)
    path = folder / "trainer_state.json"
    state = json.loads(path.read_text())
    logged = {"loss": 0.1, "grad_norm": 1.0, "learning_rate": 1e-4, "mean_token_accuracy": 0.5}
    log = [{**logged, "epoch": at / steps, "step": at} for at in range(1, step + 1)]
    state.update(global_step=step, epoch=step / steps, log_history=log)
    path.write_text(json.dumps(state))
    return folder


def run(steps_done: tuple[int, int]) -> dict[str, Any]:
    """Seconds to the first step after a resume behind each of two steps: the best of `TIMES`, in turn."""
    steps, seconds = max(steps_done) + BEHIND, {step: [] for step in steps_done}
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(folder, steps, make_callback(), save_strategy="steps", save_steps=1).train()
        places = {step: place(Path(folder) / "checkpoint-1", step, steps) for step in steps_done}
        for step in steps_done * TIMES:
            callback = make_callback()
            trainer = make_trainer(folder, steps, callback)
            started = time.perf_counter()
            trainer.train(resume_from_checkpoint=str(places[step]))
            seconds[step].append(callback.ended - started)
            if trainer.state.global_step != step + 1:
                raise RuntimeError(f"went on to step {trainer.state.global_step}, not {step + 1}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": [min(seconds[step]) for step in steps_done], "peak_mb": peak}


def main() -> int:
    parser = argparse.ArgumentParser(description="time to the first step after a resume")
    parser.add_argument("--far", type=int, default=10_000)
    parser.add_argument("--near", type=int, default=10)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(run((given.far, given.near))))
        return 0
    argv = [__file__, "--measure", "--far", str(given.far), "--near", str(given.near)]
    found = result.last_line(argv, result.one_thread(**training.ENVIRONMENT))
    far, near = found["seconds"]
    line = {
        "name": "resume",
        "ratio": round(near / far, 2),
        "ours": round(far, 3),
        "baseline": round(near, 3),
        "unit": f"s to the first step after step {given.far:,}; the baseline's after step {given.near:,}",
        "ours_peak_mb": round(found["peak_mb"]),
        "baseline_peak_mb": round(found["peak_mb"]),
    }
    if given.write:
        said = f"the same training, resumed after step {given.near:,}"
        result.write(RESULT, line, training.PACKAGES, {"threads": 1, "baseline_is": said})
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
