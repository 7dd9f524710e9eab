"""The benchmarks for GPUs, tiny on a CPU: both sides compute the same, and an MFU counts what is computed."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import machine, patch_embedding
from benchmarks.gpu.case import CASES
from benchmarks.gpu.compare import check, line_of, main
from benchmarks.gpu.sizes import SIZES
from tests.benchmarks.runs import KEYS, ROOT

SIDE: dict[str, Any] = {
    "tokens_per_s": 100.0,
    "peak_bytes": 10_000_000,
    "mfu": 0.2,
    "mfu_with_attention": 0.3,
    "loss_before": 9.0,
    "loss_one_by_one": 9.0,
    "loss_after": 8.0,
    "settings": {"experts": "eager"},
}
OURS = SIDE | {"tokens_per_s": 600.0, "peak_bytes": 6_000_000, "mfu": 0.5}
OURS |= {"planned_bytes": 6_000_000, "settings": {"experts": "grouped_mm"}}


def test_all_that_a_bare_image_lacks_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        machine.importlib.util, "find_spec", lambda name: None if name in ("trl", "PIL") else real(name)
    )
    with pytest.raises(SystemExit, match=r"pip install trl==\S+ pillow") as told:
        machine.check(tiny=False, peak=None)
    assert "no GPU is seen by torch" in str(told.value)


COMMANDS = [path.name for path in (ROOT / "benchmarks/gpu").glob("*.py") if "__main__" in path.read_text()]


@pytest.mark.parametrize("command", COMMANDS)
def test_where_nothing_is_installed_no_import_is_in_the_way(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "benchmarks/gpu" / command)],
        env={name: each for name, each in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("this machine cannot run it:\n  packages are missing")
    assert " torch==" in done.stderr


def test_what_is_too_old_is_lacking_and_torchvision_fits_the_torch_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, here = importlib.util.find_spec, machine.versions()
    old = here | {"torch": "2.11.0+cu130", "transformers": "5.17.1", "peft": "not recorded", "trl": "9.1"}
    monkeypatch.setattr(machine, "versions", lambda: old)
    monkeypatch.setattr(
        machine.importlib.util, "find_spec", lambda name: None if name == "torchvision" else real(name)
    )
    vision, transformers = machine.lacks()
    assert vision == "torchvision==0.26.*"
    assert transformers.startswith("transformers==5.2")


def test_a_machine_without_a_gpu_runs_the_tiny_form_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU is seen by torch"):
        main("qwen3_vl_8b_lora", "", [])
    with pytest.raises(SystemExit):
        main("qwen3_vl_8b_lora", "", ["--tiny", "--write"])
    assert "--tiny measures nothing" in capsys.readouterr().err


def test_a_peak_is_known_by_the_drivers_name() -> None:
    assert machine.peak_of("NVIDIA H200") == machine.peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert machine.peak_of("NVIDIA H100 PCIe") == 756e12
    assert machine.peak_of("Tesla T4") is None


@pytest.mark.parametrize(
    ("side", "what", "told"),
    [
        ("ours", {"loss_before": 9.2, "loss_one_by_one": 9.2}, "first losses are 0.2 nats apart"),
        ("ours", {"loss_one_by_one": 9.1}, "ours: rows together and alone are 0.1 nats apart"),
        ("baseline", {"loss_after": 9.0}, "baseline: the loss did not fall"),
        ("ours", {"settings": {"experts": "eager"}}, "the experts ran otherwise"),
    ],
)
def test_sides_that_compute_otherwise_are_refused(side: str, what: dict[str, Any], told: str) -> None:
    found = {"baseline": SIDE, "ours": OURS}
    check(CASES["qwen3_vl_30b_a3b_lora"], found)
    with pytest.raises(SystemExit, match=told):
        check(CASES["qwen3_vl_30b_a3b_lora"], found | {side: found[side] | what})


def test_what_was_asked_is_held_against_what_was_found() -> None:
    line = line_of(CASES["qwen3_vl_4b_full"], {"baseline": SIDE, "ours": OURS})
    assert list(line)[: len(KEYS)] == KEYS
    assert line["asked"] == {"mfu": 0.45, "memory": 0.7}
    assert line["met"] == {"mfu": True, "memory": True}
    less = OURS | {"mfu": 0.42, "peak_bytes": 8_000_000}
    assert line_of(CASES["qwen3_vl_4b_full"], {"baseline": SIDE, "ours": less})["met"] == {
        "mfu": False,
        "memory": False,
    }
    assert line_of(CASES["qwen3_vl_30b_a3b_lora"], {"baseline": SIDE, "ours": OURS})["met"] == {"ratio": True}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_both_sides_run_and_learn_the_same(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(name, "", ["--tiny"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(line)[: len(KEYS)] == KEYS
    assert line["tiny"]
    assert "met" not in line, "it says nothing of a GPU"
    assert 0 < line["mfu"] < line["mfu_with_attention"]
    assert line["planned_peak_mb"] > 0


@pytest.mark.slow
def test_the_patch_embedding_is_the_same_product(capsys: pytest.CaptureFixture[str]) -> None:
    assert patch_embedding.main(["--tiny"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["apart"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_size_adds_up_to_the_published_weights(name: str) -> None:
    from benchmarks.gpu.model import count_parameters

    assert count_parameters(SIZES[name]) == SIZES[name].parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_vl_4b_full", "qwen3_vl_30b_a3b_lora"])
def test_operations_are_those_that_torch_counts(name: str) -> None:
    """Of a row: forward to the last product, and in all three passes of a training of all weights."""
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.gpu.flops import Cost, Counter
    from benchmarks.gpu.model import budget, make_config, make_model, make_processor
    from benchmarks.gpu.rows import make_rows
    from finetune.answer_loss import teach_answers_only
    from finetune.collate import COLUMN, Collator
    from finetune.rows import RowEncoder
    from lensmith import families
    from lensmith.rendering import Rendering

    case = CASES[name].tiny()
    family = families.get(case.size.family)
    processor = make_processor(family.name, budget(case))
    model = make_model(case, make_config(case.size, processor), torch.device("cpu"))
    # Whose every product torch counts.
    model.set_attn_implementation("eager")
    if family.experts is not None:
        model.set_experts_implementation("eager")
    teach_answers_only(model)
    encoder = RowEncoder(processor, Rendering(family), [processor.tokenizer.eos_token_id], 1024)
    encoded = encoder.encode(make_rows(case)[0])
    batch = Collator(0, family.numbers)([{COLUMN: encoded}])
    labels = batch.pop("labels")
    tokens, answers = labels.shape[1], int((labels >= 0).sum())
    image = int((batch["input_ids"] == model.config.image_token_id).sum())
    counted = Counter(model, family).forward([Cost(tokens, (image,), answers)])

    with FlopCounterMode(display=False) as seen:
        loss, *_ = model(**batch, use_cache=False, answer_labels=labels)
    forward = sum(each.weights + each.attention for each in counted.values())
    assert seen.get_total_flops() == pytest.approx(forward, rel=0.002)
    with FlopCounterMode(display=False) as back:
        loss.backward()
    # Pixels have no gradient.
    embedding = model.get_parameter("model.visual.patch_embed.proj.weight")
    spared = 2 * embedding.numel() * len(batch["pixel_values"])
    assert back.get_total_flops() == pytest.approx(2 * forward - spared, rel=0.002)


def file_of(module: str) -> Path | None:
    """Where one of our modules lies; None for a package of others."""
    places = [root / module.replace(".", "/") for root in (ROOT, ROOT / "scripts")]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def test_what_is_imported_is_what_a_bare_image_is_asked_for() -> None:
    """Of the code that runs on the GPU; what a function imports by itself is not needed there."""
    waiting, seen, theirs = ["benchmarks.gpu.measure"], set[str](), set[str]()
    while waiting:
        module = waiting.pop()
        file = file_of(module)
        if module in seen or file is None:
            continue
        seen.add(module)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                # What is imported from a package may be a module of it.
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            waiting += names
            theirs |= {names[0].partition(".")[0]} if file_of(names[0]) is None else set()
    assert {"finetune.trainer", "tiny_families.qwen3_vl_moe", "lensmith.families.glm4v"} <= seen
    assert theirs - set(sys.stdlib_module_names) - set(machine.PACKAGES.values()) == set()
