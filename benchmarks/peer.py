"""LLaMA-Factory as the peer: its data, its settings, its run, and the proof that it trained what ours trains.

It runs as its users run it, through its command line, in an environment of its own. What it did is read from
what it leaves behind: the rows as it tokenized them, the adapter, the state of its trainer and its log.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import result
from benchmarks.training import ENVIRONMENT, RATE, Task, make_rows

# What its log has to say: it falls back to other kernels and precisions by itself.
SAID = {
    "float32 weights": "Will use dtype=torch.float32",
    "sdpa attention": "Using torch SDPA",
    "the vision tower frozen": "Set vision model not trainable",
    "the connector frozen": "Set multi model projector not trainable",
}
# Between these lines of its log its trainer's clock runs.
MARKS = (b"***** Running training *****", b"Training completed.")


@dataclass(frozen=True)
class Run:
    """One run of the peer. samples_per_s: by its trainer's own clock. cpu_s: CPU seconds of the same steps.

    peak_mb: of its process.
    """

    samples_per_s: float
    cpu_s: float
    peak_mb: float
    trainable: int


def settings(task: Task, work: Path, out: Path) -> dict[str, Any]:
    """Its arguments: the task's, and its fastest for the rest.

    Rows are tokenized before its clock starts, batches are padded to their longest row (it does that always)
    with rows of like length together, and nothing is computed twice to save memory. 4, 8 and 32 rows a pass
    took it no less CPU time than 16. It can pack pictures, but is not asked to: its packs of 1,024 tokens
    hold 6 to 20 rows, so a step would not have as many as ours, and save it 1% of CPU time.
    """
    if task.adapted != "language":
        raise ValueError("it calls the parts of a connector other names: adapt the language model alone")
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(work / "base"),
        "template": "qwen3_vl_nothink",
        "dataset": "rows",
        "dataset_dir": str(work / "rows"),
        "media_dir": str(work / "rows"),
        "tokenized_path": str(work / "tokenized"),
        "cutoff_len": 1024,
        "output_dir": str(out),
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": 8,
        "lora_alpha": 16,
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": True,
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        "per_device_train_batch_size": task.batch,
        "gradient_accumulation_steps": task.step // task.batch,
        "train_sampling_strategy": "group_by_length",
        "num_train_epochs": task.epochs,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "seed": 1,
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
        "dataloader_num_workers": 0,
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def write_rows(task: Task, folder: Path) -> None:
    """The task's rows as it reads them: a file a picture, and a list of questions and answers."""
    folder.mkdir()
    rows: list[dict[str, Any]] = []
    for row in make_rows(task.rows):
        asked, answer = row.sample.messages
        names = [image.path for image in row.sample.images]
        for name, data in zip(names, row.images, strict=True):
            (folder / name).write_bytes(data)
        rows.append({"instruction": "<image>" + asked.text, "output": answer.text, "images": names})
    (folder / "rows.json").write_text(json.dumps(rows))
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    told = {"rows": {"file_name": "rows.json", "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(told))


def train(python: Path, task: Task, work: Path, out: Path) -> Run:
    """Train as the peer: what `read` finds. Raises SystemExit where it failed or trained something else."""
    out.mkdir()
    arguments, log = out / "arguments.yaml", out / "log.txt"
    arguments.write_text(yaml.safe_dump(settings(task, work, out / "trained")))
    given = {**result.one_thread(**ENVIRONMENT), "HF_HOME": str(work / "home")}
    argv = [str(python), "-m", "llamafactory.cli", "train", str(arguments)]
    marks: list[float] = []
    with log.open("wb") as said:
        process = subprocess.Popen(argv, env=given, cwd=work, stdout=said, stderr=subprocess.STDOUT)
        while True:
            gone, status, used = os.wait4(process.pid, os.WNOHANG)
            if gone:
                break
            if len(marks) < len(MARKS) and MARKS[len(marks)] in log.read_bytes():
                spent = psutil.Process(process.pid).cpu_times()
                marks.append(spent.user + spent.system)
            time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the peer ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    # It may be gone before its last line is seen: then all that it used counts.
    began, ended = (*marks, used.ru_utime + used.ru_stime)[:2]
    return read(out, task, ended - began, used.ru_maxrss / 1024)


def read(out: Path, task: Task, cpu_s: float, peak_mb: float) -> Run:
    """A finished run. Raises SystemExit, with all that is wrong, where it is not the task's."""
    said = (out / "log.txt").read_text()
    wrong = [f"it does not say that it has {name}" for name, line in SAID.items() if line not in said]
    trainable = re.search(r"trainable params: ([\d,]+)", said)
    if trainable is None:
        wrong.append("it does not say how many parameters it trains")
    steps = json.loads((out / "trained/trainer_state.json").read_bytes())["global_step"]
    if steps != task.rows * task.epochs // task.step:
        wrong.append(f"it made {steps} steps, {task.rows * task.epochs // task.step} were asked for")
    if wrong or trainable is None:
        raise SystemExit("the peer trained something else: " + "; ".join(wrong))
    seconds = json.loads((out / "trained/train_results.json").read_bytes())["train_runtime"]
    return Run(task.rows * task.epochs / seconds, cpu_s, peak_mb, int(trainable[1].replace(",", "")))


def same_rows(
    ours: Sequence[tuple[list[int], list[int]]], theirs: Sequence[Mapping[str, Any]], end: list[int]
) -> dict[str, int]:
    """The answer tokens of both. Raises SystemExit where a row's tokens or labels differ.

    ours: a row's tokens and labels (-100 where nothing is taught). end: the tokens that the peer's template
    has after an answer's end, and teaches.
    """
    if len(ours) != len(theirs):
        raise SystemExit(f"the peer has {len(theirs)} rows, ours has {len(ours)}")
    taught = {"ours": 0, "baseline": 0}
    for number, ((tokens, labels), row) in enumerate(zip(ours, theirs, strict=True), 1):
        if row["input_ids"] != tokens + end or row["labels"] != labels + end:
            raise SystemExit(f"row {number} of the peer has other tokens or labels than ours")
        taught["ours"] += sum(label >= 0 for label in labels)
        taught["baseline"] += sum(label >= 0 for label in row["labels"])
    return taught


def same_adapter(ours: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]]) -> None:
    """Raises SystemExit where the peer adapted other linears, or to another rank. Shapes by name."""
    apart = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if apart:
        raise SystemExit(
            f"{len(apart)} of {len(ours)} LoRA weights are not the peer's: {', '.join(apart[:4])}"
        )
