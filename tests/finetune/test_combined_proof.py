"""The merge proof of several adapters passes on a sound merge and fails on each planted fault; the serve
proof's reference is their combination."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from finetune.adapted import load_trained
from finetune.combination import combination_of
from finetune.generate import reference_trace
from finetune.greedy import end_ids, greedy
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.merging import combined
from finetune.merging.combine import added
from finetune.merging.weights import write_combined
from finetune.model import load_model, load_processor
from finetune.proving.combination import load_combined
from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.dataset import read_held_out
from lensmith.exam import proof_rows
from lensmith.trace import read_trace
from tests.artifacts import make_run
from tests.finetune.merged import Walk, as_bfloat16, recipe_for, walk

pytestmark = pytest.mark.slow
ROWS = 4


@dataclass(frozen=True)
class Several:
    """What stands before the proof of a combination."""

    walked: Walk
    others: tuple[Artifact, ...]

    def asking(self, method: str, **settings: Any) -> Several:
        """With a recipe that merges by `method`, and the model of it."""
        whole, (base, run) = self.walked, (self.walked.base, self.walked.run)
        weights = zip(self.others, (0.5, 0.3), strict=True)
        adapters = [{"run": each.short, "weight": weight} for each, weight in weights]
        content = {"method": method, "weight": 0.7, "adapters": adapters} | settings
        folder = whole.home.root.parent
        recipe = recipe_for(whole.recipe.base.path, folder, folder / f"{method}.yaml", merge=content)
        model = merge(recipe, whole.home, base, run, self.others)
        return replace(self, walked=replace(whole, recipe=recipe, model=model))

    def planted(self, name: str, fault: Callable[[Path], None]) -> Several:
        """With a model that says the same of itself, and holds the weights that `fault` writes."""
        whole = self.walked
        inputs = {"base": whole.base, "run": whole.run} | {
            f"adapter_{number}": each for number, each in enumerate(self.others, 1)
        }
        with whole.home.create("model", f"{name:0>24}", inputs) as draft:
            for path in whole.model.path.iterdir():
                if path.name not in ("manifest.json", "record.json", "model.safetensors"):
                    shutil.copyfile(path, draft.path / path.name)
            fault(draft.path)
            draft.body.update(whole.model.body)
        return replace(self, walked=replace(whole, model=draft.artifact))

    def write(self, target: Path, others: Sequence[Artifact] | None = None, **changed: Any) -> None:
        """Merge with other adapters, or another combination, than the recipe's."""
        whole = self.walked
        asked = combination_of(whole.recipe)
        assert asked
        paths = [whole.run.path, *(each.path for each in (self.others if others is None else others))]
        work = whole.home.root / "planted-work"
        shutil.rmtree(work, ignore_errors=True)
        write_combined(
            whole.recipe.base.path,
            whole.recipe.model_family,
            paths,
            asked.model_copy(update=changed),
            target,
            work,
        )

    def prove(self) -> Attestation:
        whole = self.walked
        return prove_merge(
            whole.recipe, whole.home, whole.base, whole.run, whole.model, whole.held_out, self.others
        )


def two_more(whole: Walk) -> Several:
    towers = ("language", "connector")
    second = make_run(whole.home, whole.base, towers, seed=2, rslora=True, rank_pattern={"q_proj": 2})
    return Several(whole, (second, make_run(whole.home, whole.base, seed=3, dora=True)))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Several:
    return two_more(walk(tmp_path_factory.mktemp("several"), tiny_base, bank_forms))


@pytest.fixture(scope="module")
def ties(several: Several) -> Several:
    return several.asking("ties", density=0.4)


def test_a_sound_combination_passes(ties: Several) -> None:
    proof = ties.prove()
    assert proof.statement["findings"] == []
    assert proof.passed
    assert set(proof.evidence) == {"base", "run", "adapter_1", "adapter_2", "held_out"}
    assert [proof.statement[role]["used_once"] for role in ("adapter", "adapter_1", "adapter_2")] == [
        52,
        36,
        78,
    ]
    assert proof.statement["weights"] == {"tensors": 64, "merged": 26, "bit_equal": 64, "changed": 26}
    loaded, logits = proof.statement["loaded"], proof.statement["logits"]
    assert loaded["bit_equal"] == loaded["weights"]
    # The same weights, from the base and the adapters and from disk.
    assert logits["max_abs_difference"] == 0 < logits["noise"]
    assert ties.prove() == proof


@pytest.mark.parametrize("method", ["linear", "dare_ties"])
def test_each_method_passes_in_bfloat16(
    tmp_path: Path, tiny_base: Path, bank_forms: Path, method: str
) -> None:
    settings = {} if method == "linear" else {"density": 0.4, "seed": 3}
    half = two_more(walk(tmp_path, tiny_base, bank_forms, as_bfloat16)).asking(method, **settings)
    assert half.prove().statement["findings"] == []


def doubled(given: Several, root: Path) -> None:
    given.write(root, weights=(0.7, 1.0, 0.3))


def one_left_out(given: Several, root: Path) -> None:
    given.write(root, given.others[:1], weights=(0.7, 0.5))


def signs_not_elected(given: Several, root: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(combined, "elected", added)
        given.write(root)


def density_ignored(given: Several, root: Path) -> None:
    given.write(root, density=0.999999)


def order_changed(given: Several, root: Path) -> None:
    given.write(root, given.others[::-1])


def run_alone(given: Several, root: Path) -> None:
    shutil.copyfile(given.walked.recipe.base.path / "model.safetensors", root / "model.safetensors")
    given.write(root, (), weights=(1.0,), method="linear", density=None)


@pytest.mark.parametrize(
    "fault", [doubled, one_left_out, signs_not_elected, density_ignored, order_changed, run_alone]
)
def test_planted_faults_fail(ties: Several, fault: Callable[[Several, Path], None]) -> None:
    proof = ties.planted(fault.__name__, lambda root: fault(ties, root)).prove()
    text = "\n".join(proof.statement["findings"])
    assert not proof.passed
    assert "merged tensors differ from the definition" in text
    assert "weights are not what was trained, once loaded" in text
    # Told by what they compute alone, too.
    assert "logits: logits differ" in text


def test_other_draws_fail(several: Several) -> None:
    drawn = several.asking("dare_linear", density=0.5, seed=1)
    assert drawn.prove().passed
    proof = drawn.planted("draws", lambda root: drawn.write(root, seed=2)).prove()
    assert "26 merged tensors differ from the definition" in "\n".join(proof.statement["findings"])


def test_a_model_of_another_combination_is_told_apart(several: Several, ties: Several) -> None:
    linear = several.asking("linear")
    mixed = replace(ties, walked=replace(ties.walked, model=linear.walked.model))
    assert mixed.prove().statement["findings"] == ["the model states another combination than the recipe"]
    alone = replace(linear, walked=replace(linear.walked, model=several.walked.model)).prove()
    assert "the model was made from adapter_1 None" in "\n".join(alone.statement["findings"])


def test_the_reference_is_the_combination(ties: Several) -> None:
    """Equal to what transformers says of the merged files, unlike what it says of the run alone."""
    whole = ties.walked
    root, rows = whole.recipe.base.path, proof_rows(read_held_out(whole.home, whole.held_out, "test"), ROWS)
    trace = reference_trace(
        whole.recipe, whole.home, whole.base, whole.run, whole.held_out, ROWS, ties.others
    )

    def answers_of(model: PreTrainedModel) -> dict[str, list[int]]:
        ends, processor = end_ids(root, model), load_processor(root, None)
        said = greedy(model, processor, whole.recipe.rendering, rows, ends, whole.recipe.serve.max_new_tokens)
        return {each.row: each.answer_ids for each in said}

    answers = {each.row: each.answer_ids for each in read_trace(trace)}
    assert answers == answers_of(load_model(whole.model.path, torch.float32).eval())
    assert answers != answers_of(load_trained(root, whole.run.path, torch.float32))
    assert set(trace.manifest.inputs) == {"base", "run", "adapter_1", "adapter_2", "held_out"}
    asked = combination_of(whole.recipe)
    assert asked
    paths = [whole.run.path, *(each.path for each in ties.others)]
    ours = load_combined(whole.recipe.base.path, paths, asked, torch.float32).state_dict()
    merged = load_model(whole.model.path, torch.float32).state_dict()
    assert all(torch.equal(ours[name], merged[name]) for name in merged)
