"""A checkpoint is sealed after every process has written its part, by one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import save_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.checkpoint import MANIFEST, folder_of, read_whole
from finetune.launcher import read_launcher
from finetune.resume import Sealer
from tests.conftest import ROOT

LATE = "rng_state_1.pth"


def on_save(work: Path, monkeypatch: pytest.MonkeyPatch, *, main: bool) -> Path:
    """A checkpoint after its save; the other process writes the last file while this one waits for it."""
    folder = folder_of(work, 3)
    folder.mkdir()
    save_file({"a": torch.ones(2)}, folder / "adapter_model.safetensors")

    def others(self: PartialState) -> None:
        assert not (folder / MANIFEST).exists()
        (folder / LATE).write_bytes(b"state")

    monkeypatch.setattr(PartialState, "wait_for_everyone", others)
    sealer = Sealer(work, read_launcher(ROOT / "recipes/accelerate/cpu.yaml"), 1, None)
    state = TrainerState(global_step=3, max_steps=5, is_world_process_zero=main)
    sealer.on_save(TrainingArguments(output_dir=str(work)), state, TrainerControl())
    return folder


def test_what_another_process_writes_last_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_whole(on_save(tmp_path, monkeypatch, main=True))
    assert manifest is not None
    assert [each.path for each in manifest.files] == ["adapter_model.safetensors", LATE]


def test_other_processes_seal_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = on_save(tmp_path, monkeypatch, main=False)
    assert (folder / LATE).is_file()
    assert read_whole(folder) is None
