"""The loss at answer positions alone is the loss of all logits, in value and in every gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

import finetune.answer_loss
from finetune.answer_loss import teach_answers_only
from finetune.collate import COLUMN, Collator
from lensmith.errors import InputError
from tests.finetune import zero3_head
from tests.finetune.tiny_models import MODELS, VOCABULARY, qwen3_vl, row

pytestmark = pytest.mark.slow

ROWS = [row(1, 9, 5, ((4, 6),)), row(2, 4, 1), row(3, 20, 11, ((2, 2), (4, 4)))]


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    return Collator(0)([{COLUMN: each} for each in ROWS])


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    return found


def full(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """What transformers makes of all logits: its mean times the number of answer tokens."""
    loss = model(**batch).loss * (batch["labels"] >= 0).sum()
    loss.backward()
    return loss.detach(), gradients(model)


def ours(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    given = {name: values for name, values in batch.items() if name != "labels"}
    loss, answers, _ = model(**given, answer_labels=batch["labels"])
    assert int(answers) == 17
    loss.backward()
    return loss.detach(), gradients(model)


def differ(left: dict[str, Tensor], right: dict[str, Tensor], tolerance: float = 1e-5) -> list[str]:
    assert left.keys() == right.keys()
    return [
        name
        for name in left
        if not torch.allclose(
            left[name], right[name], rtol=tolerance, atol=tolerance * float(right[name].abs().max())
        )
    ]


@pytest.mark.parametrize("pieces", [1, 3, 17])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", MODELS)
def test_loss_and_gradients_are_those_of_all_logits(
    batch: dict[str, Tensor], family: str, tied: bool, pieces: int
) -> None:
    model = MODELS[family](tied)
    wanted, slopes = full(model, batch)
    teach_answers_only(model, -(-17 * VOCABULARY // pieces))
    loss, found = ours(model, batch)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-6)
    assert "model.visual.patch_embed.proj.weight" in found
    assert ("lm_head.weight" in found) is not tied
    assert differ(found, slopes) == []


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("saved", [None, ["lm_head"]])
def test_adapter_on_the_head_and_a_trained_head(
    batch: dict[str, Tensor], pieces: int, saved: list[str] | None
) -> None:
    targets = ["q_proj", "lm_head"] if saved is None else ["q_proj"]
    settings = LoraConfig(r=4, target_modules=targets, modules_to_save=saved, task_type="CAUSAL_LM")
    model = get_peft_model(qwen3_vl(), settings)
    for name, each in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(each)
    wanted, slopes = full(model, batch)
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    teach_answers_only(base, -(-17 * VOCABULARY // pieces))
    loss, found = ours(model, batch)
    assert any("lm_head" in name for name in found)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-6)
    assert differ(found, slopes) == []


def test_bfloat16_is_scored_in_float32(batch: dict[str, Tensor]) -> None:
    model = qwen3_vl().bfloat16()
    wanted, slopes = full(model, batch)
    teach_answers_only(model)
    loss, found = ours(model, batch)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(wanted), rel=1e-3)
    assert found["lm_head.weight"].dtype == torch.bfloat16
    assert differ(found, slopes, 0.05) == []


def test_correct_answers_are_counted(batch: dict[str, Tensor]) -> None:
    model = qwen3_vl()
    teach_answers_only(model)
    given = {name: values for name, values in batch.items() if name != "labels"}
    likeliest = model(**given).logits.argmax(-1)[:, :-1]
    labels = batch["labels"].clone()
    labels[0, -25:-22] = likeliest[0, -25:-22]
    known = int((likeliest == labels[:, 1:]).sum())
    assert int(model(**given, answer_labels=labels)[2]) == known
    labels[:, 1:][:, 9:12] = likeliest[:, 9:12]
    more = int((likeliest == labels[:, 1:]).sum())
    assert more > known
    assert int(model(**given, answer_labels=labels)[2]) == more


def test_no_answer_is_no_loss_and_no_gradient(batch: dict[str, Tensor]) -> None:
    model = qwen3_vl()
    teach_answers_only(model)
    given = {name: values for name, values in batch.items() if name != "labels"}
    loss, answers, correct = model(**given, answer_labels=torch.full_like(batch["labels"], -100))
    loss.backward()
    assert (float(loss.detach()), int(answers), int(correct)) == (0.0, 0, 0)
    assert not any(bool(each.any()) for each in gradients(model).values())


def test_positions_off_by_one_would_show(batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant of the tests above: each answer token is scored where it is read."""
    model = qwen3_vl()
    wanted, slopes = full(model, batch)
    score = finetune.answer_loss._score

    def late(head: nn.Module, states: Tensor, targets: Tensor, *rest: Any) -> Any:
        return score(head, states.roll(-1, 0), targets, *rest)

    monkeypatch.setattr(finetune.answer_loss, "_score", late)
    teach_answers_only(model)
    loss, found = ours(model, batch)
    assert float(loss) != pytest.approx(float(wanted), rel=1e-3)
    assert differ(found, slopes) != []


def test_a_model_that_changes_its_logits_is_refused() -> None:
    model = qwen3_vl()
    model.config.get_text_config().final_logit_softcapping = 30.0
    with pytest.raises(InputError, match="behind the output head"):
        teach_answers_only(model)


class Logits(TorchDispatchMode):
    """Sees every tensor that is made, forwards and backwards; keeps the most rows of vocabulary width."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            # The head's weight, transposed, has the width too.
            if (
                isinstance(each, Tensor)
                and each.shape[-1:] == (VOCABULARY,)
                and each.shape != (32, VOCABULARY)
            ):
                self.rows = max(self.rows, each.numel() // VOCABULARY)
        return made


def test_all_logits_are_never_there(batch: dict[str, Tensor]) -> None:
    model = qwen3_vl()
    with Logits() as whole:
        full(model, batch)
    assert whole.rows == batch["labels"].numel()
    teach_answers_only(model)
    with Logits() as answers:
        ours(model, batch)
    assert answers.rows == 17
    pieces = qwen3_vl()
    teach_answers_only(pieces, 6 * VOCABULARY)
    with Logits() as parts:
        ours(pieces, batch)
    assert parts.rows == 6


def test_processes_call_their_heads_equally_often_under_zero3(tmp_path: Path) -> None:
    """Each gathers the head's weight at every call: with another number of calls they would wait for ever."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, zero3_head.__file__, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    model = qwen3_vl()
    slope = torch.zeros(VOCABULARY, 32)
    for rank, rows in enumerate(zero3_head.ROWS):
        wanted, slopes = full(model, Collator(0)([{COLUMN: each} for each in rows]))
        assert found[rank]["loss"] == pytest.approx(float(wanted), rel=1e-5)
        # DeepSpeed's mean over its processes.
        slope += slopes["lm_head.weight"] / 2
    for each in found:
        # Three pieces, and each again in the backward pass, also where two would do.
        assert each["calls"] == 6
        assert torch.allclose(torch.tensor(each["gradient"]), slope.flatten(), atol=1e-5)


@pytest.mark.parametrize(("most", "calls"), [(None, 4), (12, 6)])
def test_the_largest_count_decides(monkeypatch: pytest.MonkeyPatch, most: int | None, calls: int) -> None:
    """The mutant of the test above: by its own count (None) the first process has fewer pieces."""
    model = qwen3_vl()
    seen: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda *given: seen.append(len(given[2])))
    if most is not None:
        monkeypatch.setattr(finetune.answer_loss, "_most", lambda count: most)
    teach_answers_only(model, zero3_head.LOGITS)
    rows = Collator(0)([{COLUMN: each} for each in zero3_head.ROWS[0]])
    labels = rows.pop("labels")
    model(**rows, answer_labels=labels)[0].backward()
    assert len(seen) == calls
