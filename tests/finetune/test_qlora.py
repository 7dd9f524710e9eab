"""Method qlora: the language model in 4 bits while it is trained, and what it was worth in what is merged."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file, save_file

import finetune.four_bit
import finetune.four_bit_rows
from finetune.adapted import load_in_four_bits, load_trained
from finetune.adapter import choose_trained
from finetune.four_bit import check_in_four_bits, quantize, quantize_linears
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.merging import shard
from finetune.merging.start import Lying, Start
from finetune.merging.tensor_file import TensorFile, open_tensor_file
from finetune.merging.weights import write_merged
from finetune.model import DTYPES, load_model
from finetune.plan import plan
from finetune.proving import form
from finetune.quantized import QUANTIZED, Quantized, quantized_linears, read_quantized
from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.errors import IntegrityError
from lensmith.train_settings import Quantization
from tests.artifacts import make_held_out
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_train import broken_after

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
LANGUAGE = "model.language_model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def whole(new_training: TrainingMaker) -> Training:
    """Every tower adapted, four steps, the language model in nf4."""
    training = new_training(train__method="qlora", train__max_steps=4)
    training.run()
    return training


@pytest.fixture(scope="module")
def model(whole: Training) -> Artifact:
    return merge(whole.recipe, whole.home, whole.base, whole.run())


@pytest.fixture(scope="module")
def exam(whole: Training, bank_forms: Path) -> Artifact:
    return make_held_out(whole.home, bank_forms, 4)


def prove(training: Training, model: Artifact, exam: Artifact) -> Attestation:
    return prove_merge(training.recipe, training.home, training.base, training.run(), model, exam)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_the_language_model_is_trained_on_in_4_bits(whole: Training, new_training: TrainingMaker) -> None:
    run = whole.run()
    assert run.record()["linears_in_4_bits"] == run.body["linears_in_4_bits"] == 14
    assert run.body["method"] == "qlora"
    assert run.record()["packages"]["bitsandbytes"]
    assert run.body["adapted"] == {"vision": 8, "connector": 4, "language": 14}
    quantized = read_quantized(run.path)
    assert quantized is not None
    assert quantized.quantization == Quantization(type="nf4", double=True)
    assert {whole.recipe.model_family.tower_of(name) for name in quantized.linears} == {"language"}
    assert len(load_file(run.path / "adapter_model.safetensors")) == 2 * 26
    lora = new_training(train__max_steps=1).losses()
    # The same rows, another base.
    assert whole.losses()[0] != pytest.approx(lora[0], abs=1e-5)
    assert whole.losses()[0] == pytest.approx(lora[0], rel=0.1)
    assert whole.losses()[-1] < whole.losses()[0]


def test_a_base_that_stays_whole_is_noticed(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: nothing is quantised, and the training would be plain LoRA."""
    monkeypatch.setattr(finetune.four_bit, "quantize_linears", lambda *arguments: {})
    training = new_training(train__method="qlora", train__max_steps=1)
    with pytest.raises(IntegrityError, match="0 linears are held in 4 bits, 14 should be"):
        training.run()


def test_a_sample_is_proven_without_holding_the_model(
    whole: Training, model: Artifact, exam: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    proof = prove(whole, model, exam)
    assert proof.statement["findings"] == []
    weights = proof.statement["weights"]
    assert (weights["merged"], weights["bit_equal"], weights["changed"]) == (26, 26, 26)


def test_merged_into_what_the_4_bits_were_worth(whole: Training, model: Artifact, exam: Artifact) -> None:
    proof = prove(whole, model, exam)
    assert proof.statement["findings"] == []
    assert proof.passed
    assert proof.statement["weights"] == {"tensors": 64, "merged": 26, "bit_equal": 64, "changed": 26}
    held = proof.statement["logits_4_bits"]
    assert held["noise"] == proof.statement["logits"]["noise"]
    assert 0 < held["max_abs_difference"] <= held["bound"] < 1e-3
    # Said without any code of ours: bitsandbytes' own round trip, and the product of the adapter's matrices.
    stored, merged = load_file(whole.recipe.base.path / WEIGHTS), load_file(model.path / WEIGHTS)
    adapter = load_file(whole.run().path / "adapter_model.safetensors")
    worth = dequantize_4bit(
        *quantize_4bit(stored[f"{LANGUAGE}.weight"], compress_statistics=True, quant_type="nf4")
    )
    a, b = (adapter[f"base_model.model.{LANGUAGE}.lora_{side}.weight"] for side in "AB")
    assert torch.equal(merged[f"{LANGUAGE}.weight"], worth + (b @ a) * 2.0)


def test_merged_into_the_original_base_fails(
    whole: Training, model: Artifact, exam: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Start, "of", lambda self, name, lying: lambda stored, first: stored)
    with whole.home.create("model", "f" * 24, {"base": whole.base, "run": whole.run()}) as draft:
        for path in model.path.iterdir():
            if path.name not in ("manifest.json", "record.json", WEIGHTS):
                shutil.copyfile(path, draft.path / path.name)
        write_merged(whole.recipe.base.path, whole.recipe.model_family, whole.run(), draft.path, tmp_path)
        draft.body.update(model.body)
    proof = prove(whole, draft.artifact, exam)
    assert not proof.passed
    told = "\n".join(proof.statement["findings"])
    assert "weights: 14 merged tensors differ from the definition: model.language_model" in told
    assert "logits: logits differ by" in told
    assert "logits_4_bits: logits differ by" in told
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    told = "\n".join(prove(whole, draft.artifact, exam).statement["findings"])
    assert "weights: 14 merged matrices differ from the definition: model.language_model" in told


def test_other_values_in_4_bits_are_refused(
    whole: Training, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As of another version of bitsandbytes, or a machine that quantises otherwise."""

    def other(weight: torch.Tensor, quantization: Quantization) -> tuple[torch.Tensor, QuantState]:
        return quantize(weight, quantization.model_copy(update={"type": "fp4"}))

    monkeypatch.setattr(finetune.four_bit, "quantize", other)
    root, run = whole.recipe.base.path, whole.run()
    for act in (
        lambda: write_merged(root, whole.recipe.model_family, run, tmp_path, tmp_path),
        lambda: load_trained(root, run.path, torch.float32),
        lambda: load_in_four_bits(root, run.path, torch.float32),
    ):
        with pytest.raises(IntegrityError, match="other values here than in training"):
            act()


def in_4_bits(weight: torch.Tensor, quantization: Quantization, dtype: str) -> tuple[Quantized, torch.Tensor]:
    """What a run would keep of a linear called "linear", and its values, whole."""
    values = dequantize_4bit(*quantize(weight.to(DTYPES[dtype]), quantization))
    digest = hashlib.sha256(values.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
    return Quantized(quantization=quantization, dtype=dtype, linears={"linear": digest}), values


def lying(tmp_path: Path, weight: torch.Tensor) -> Lying:
    """`weight` in a file, with other rows before and behind it."""
    rows, width = weight.shape
    save_file({"joined": torch.cat([torch.ones(3, width), weight, torch.ones(2, width)])}, tmp_path / WEIGHTS)
    return Lying(open_tensor_file(tmp_path / WEIGHTS), "joined", 3, rows)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("quantization", [Quantization(), Quantization(type="fp4", double=False)])
@pytest.mark.parametrize("width", [64, 192])
def test_some_rows_at_a_time_are_worth_what_the_whole_is(
    tmp_path: Path, dtype: str, quantization: Quantization, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(301, width, generator=torch.Generator().manual_seed(width)) * 0.02
    quantized, values = in_4_bits(weight, quantization, dtype)
    place, start = lying(tmp_path, weight), Start(quantized)
    monkeypatch.setattr(finetune.four_bit_rows, "_AT_ONCE", 7 * width)
    assert start.by_rows("linear.weight", place)
    rows = start.of("linear.weight", place)
    found = [rows(weight[first : first + 5], first) for first in range(0, 301, 5)]
    assert torch.equal(torch.cat(found), values.float())
    # Asked for again, as what is not finite is, they are the same; and not noted twice.
    assert torch.equal(rows(weight[:5], 0), found[0])


def test_rows_that_begin_inside_a_block_are_had_whole(tmp_path: Path) -> None:
    weight = torch.randn(100, 96, generator=torch.Generator().manual_seed(3)) * 0.02
    quantized, values = in_4_bits(weight, Quantization(), "float32")
    place, start = lying(tmp_path, weight), Start(quantized)
    assert not start.by_rows("linear.weight", place)
    assert torch.equal(start.of("linear.weight", place)(weight, 0), values)


@pytest.mark.parametrize("fault", ["other values", "a row left out"])
def test_rows_unlike_those_that_were_trained_on_are_refused(tmp_path: Path, fault: str) -> None:
    weight = torch.randn(50, 64, generator=torch.Generator().manual_seed(3)) * 0.02
    quantized, _ = in_4_bits(weight, Quantization(), "float32")
    rows = Start(quantized).of("linear.weight", lying(tmp_path, weight))
    rows(weight[:20], 0)
    if fault == "other values":
        with pytest.raises(IntegrityError, match="other values here than in training"):
            rows(weight[20:].flip(0), 20)
    else:
        with pytest.raises(IntegrityError, match="from its first row to its last"):
            rows(weight[21:], 21)


def test_a_merge_holds_some_rows_of_a_linear_in_4_bits(
    whole: Training, model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No read of a linear in 4 bits is of more than a block, and the merged file is the same."""
    reads: dict[str, int] = {}
    read_rows = TensorFile.read_rows

    def noted(self: TensorFile, name: str, first: int, count: int) -> torch.Tensor:
        reads[name] = max(reads.get(name, 0), count)
        return read_rows(self, name, first, count)

    monkeypatch.setattr(TensorFile, "read_rows", noted)
    monkeypatch.setattr(finetune.four_bit_rows, "_AT_ONCE", 8 * 64)
    monkeypatch.setattr(shard, "_BLOCK", 8 * 64)
    monkeypatch.setattr(shard, "_ROWS", 8)
    monkeypatch.setattr(shard, "_JOB", 8 * 64)
    write_merged(whole.recipe.base.path, whole.recipe.model_family, whole.run(), tmp_path, tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == (model.path / WEIGHTS).read_bytes()
    quantized = read_quantized(whole.run().path)
    assert quantized is not None
    assert {max(reads[f"{name}.weight"], 8) for name in quantized.linears} == {8}


@pytest.mark.parametrize("step", [2, 4])
def test_resumed_equals_unbroken(
    whole: Training, new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    training = new_training(train__method="qlora", train__max_steps=4)
    broken_after(step, training, monkeypatch)
    run = training.run()
    assert run.record().get("resumed_at", 4) == step
    assert run.id == whole.run().id, "every byte is the same"


def test_another_base_in_4_bits_is_not_gone_on_with(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training(train__method="qlora")
    work = broken_after(1, training, monkeypatch)
    kept = json.loads((work / QUANTIZED).read_bytes())
    kept["linears"][LANGUAGE] = "0" * 64
    (work / QUANTIZED).write_text(json.dumps(kept))
    with pytest.raises(IntegrityError, match=f"other values here than in training\n.*{LANGUAGE}"):
        training.run()


def test_a_frozen_language_model_is_merged_as_it_was_in_bfloat16(
    new_training: TrainingMaker, bank_forms: Path
) -> None:
    """It has no delta, but vision and connector learned beside what it was worth in 4 bits; DoRA, fp4."""
    training = new_training(
        train__method="qlora",
        train__towers={"vision": "adapt", "connector": "adapt", "language": "freeze"},
        train__lora={"rank": 4, "alpha": 8.0, "variant": "dora"},
        train__quantization={"type": "fp4", "double": False},
        train__dtype="bfloat16",
    )
    run = training.run()
    assert run.body["adapted"] == {"vision": 8, "connector": 4}
    assert run.record()["linears_in_4_bits"] == 14
    model = merge(training.recipe, training.home, training.base, run)
    proof = prove(training, model, make_held_out(training.home, bank_forms, 4))
    assert proof.statement["findings"] == []
    assert proof.statement["weights"]["merged"] == 26
    # The base is float32, but was trained on in bfloat16.
    assert proof.statement["logits_4_bits"]["dtype"] == "bfloat16"
    merged = load_file(model.path / WEIGHTS)[f"{LANGUAGE}.weight"]
    assert torch.equal(merged, merged.bfloat16().float())


def test_dora_on_4_bits_merges_whole(new_training: TrainingMaker, bank_forms: Path) -> None:
    training = new_training(
        train__method="qlora", train__lora={"rank": 4, "alpha": 8.0, "variant": "dora"}, train__max_steps=2
    )
    model = merge(training.recipe, training.home, training.base, training.run())
    proof = prove(training, model, make_held_out(training.home, bank_forms, 4))
    assert proof.statement["findings"] == []
    assert proof.statement["weights"] == {"tensors": 64, "merged": 26, "bit_equal": 64, "changed": 26}


@pytest.mark.parametrize("double", [True, False])
def test_planned_weights_are_those_that_are_held(new_training: TrainingMaker, double: bool) -> None:
    training = new_training(train__method="qlora", train__quantization={"double": double})
    model, family = load_model(training.recipe.base.path, torch.float32), training.recipe.model_family
    names = quantized_linears(family, model.config.to_dict())
    quantize_linears(model, names, Quantization(double=double), torch.float32, torch.float32)
    held = sum(each.nbytes for each in choose_trained(model, training.recipe).model.parameters())
    for name in names:
        state = model.get_submodule(name).get_parameter("weight").quant_state
        held += state.absmax.nbytes + (state.state2.absmax.nbytes if double else 0)
    assert plan(training.recipe, training.dataset).memory.weights == pytest.approx(held, rel=2e-3)


@pytest.mark.parametrize("double", [True, False])
def test_threads_do_not_change_the_values(double: bool) -> None:
    """bitsandbytes alone gives other values: it takes the mean of the scales in as many parts as threads."""
    weight = torch.randn(1536, 2048, generator=torch.Generator().manual_seed(0)) * 0.02
    values: list[torch.Tensor] = []
    for count in (1, 2, 3):
        with threads(count):
            values.append(dequantize_4bit(*quantize(weight, Quantization(double=double))))
            assert torch.get_num_threads() == count
    assert all(torch.equal(values[0], each) for each in values[1:])


def test_asking_leaves_what_is_trained_on(tiny_base: Path, whole: Training) -> None:
    """bitsandbytes alone repacks weights for CPUs with bfloat16 instructions: lost to training."""
    model, family = load_model(tiny_base, torch.float32), whole.recipe.model_family
    names = quantized_linears(family, model.config.to_dict())
    quantize_linears(model, names, Quantization(), torch.float32, torch.float32)
    assert check_in_four_bits(model, family) == 14
    linear = model.get_submodule(names[0])
    before = dequantize_module_weight(linear).clone()
    given = torch.randn(3, before.shape[1])
    with torch.inference_mode():
        asked = linear.eval()(given)
    assert torch.equal(dequantize_module_weight(linear), before)
    taught = linear.train()(given.requires_grad_())
    taught.sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(asked, taught.detach(), rtol=0, atol=0)
    torch.testing.assert_close(taught.detach(), given.detach() @ before.T)


def test_a_run_on_the_whole_base_has_none(lora_run: Artifact) -> None:
    assert read_quantized(lora_run.path) is None
    with pytest.raises(IntegrityError, match="was not trained in 4 bits"):
        load_in_four_bits(lora_run.path, lora_run.path, torch.float32)


@pytest.fixture(scope="module")
def lora_run(new_training: TrainingMaker) -> Artifact:
    return new_training(train__max_steps=1).run()
