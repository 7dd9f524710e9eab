"""The merge proof passes on a sound merge and fails on each planted fault; each check fails on its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.adapted import load_trained
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.merging.adapter import Adapter, Delta
from finetune.merging.change import Compute
from finetune.merging.weights import write_merged
from finetune.proving import weights
from finetune.proving.companions import companions_part
from finetune.proving.logits import logits_part
from lensmith.artifact import list_files
from lensmith.attestation import attest, attestations
from lensmith.base import pin_base
from lensmith.dataset import READS_LOG, read_held_out
from lensmith.errors import IntegrityError
from lensmith.exam import proof_rows
from lensmith.home import Home
from lensmith.tokens import PixelBudget
from tests.artifacts import make_full_run, make_held_out
from tests.finetune.merged import Walk, as_bfloat16, as_tied, lively_base, planted, recipe_for, walk

pytestmark = pytest.mark.slow
Tensors = dict[str, torch.Tensor]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Walk:
    return walk(tmp_path_factory.mktemp("walk"), tiny_base, bank_forms)


def prove(walked: Walk) -> tuple[bool, str]:
    proof = prove_merge(walked.recipe, walked.home, walked.base, walked.run, walked.model, walked.held_out)
    assert proof in attestations(walked.home, walked.model.id, "merge-proof")
    return proof.passed, "\n".join(proof.statement["findings"])


def on_tensors(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        save_file(change(load_file(root / WEIGHTS)), root / WEIGHTS, metadata={"format": "pt"})

    return fault


def test_a_sound_merge_passes(whole: Walk) -> None:
    proof = prove_merge(whole.recipe, whole.home, whole.base, whole.run, whole.model, whole.held_out)
    assert proof.passed
    assert proof.statement["findings"] == []
    assert proof.subject == whole.model.id
    assert proof.evidence == {"base": whole.base.id, "run": whole.run.id, "held_out": whole.held_out.id}
    assert proof.statement["adapter"] == {"tensors": 52, "modules": 26, "used_once": 52}
    assert proof.statement["weights"] == {"tensors": 64, "merged": 26, "bit_equal": 64, "changed": 26}
    logits = proof.statement["logits"]
    assert logits["rows"] == 8
    assert 0 < logits["max_abs_difference"] <= logits["bound"] < 1e-3
    reads = [json.loads(line) for line in (whole.home.root / READS_LOG).read_text().splitlines()]
    assert reads[-1]["reason"] == "merge proof"
    again = prove_merge(whole.recipe, whole.home, whole.base, whole.run, whole.model, whole.held_out)
    assert again == proof


def test_bfloat16_passes_within_its_noise(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    assert prove(walk(tmp_path, tiny_base, bank_forms, as_bfloat16)) == (True, "")


def test_full_passes_and_fails(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    root = lively_base(tiny_base, tmp_path / "base")
    recipe, home = recipe_for(root, bank_forms, tmp_path / "r.yaml"), Home(tmp_path / "home")
    base = pin_base(recipe, home)
    run = make_full_run(home, base)
    full = Walk(recipe, home, base, run, merge(recipe, home, base, run), make_held_out(home, bank_forms, 4))
    assert prove(full) == (True, "")
    wrong = planted(full, "one", on_tensors(lambda t: t | {"lm_head.weight": t["lm_head.weight"] * 1.01}))
    passed, text = prove(wrong)
    assert not passed
    assert "1 merged tensors differ from the definition: lm_head.weight" in text


def double_alpha(whole: Walk) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        with whole.home.create("run", "d" * 24, {"base": whole.base}) as draft:
            for path in whole.run.path.iterdir():
                shutil.copyfile(path, draft.path / path.name)
            (draft.path / "manifest.json").unlink()
            config = json.loads((draft.path / "adapter_config.json").read_bytes())
            config["lora_alpha"] *= 2
            (draft.path / "adapter_config.json").write_text(json.dumps(config))
            draft.body.update(whole.run.body)
        (root / WEIGHTS).unlink()
        write_merged(
            whole.recipe.base.path, whole.recipe.model_family, draft.artifact, root, whole.home.work_path("d")
        )

    return fault


def dropped_key(whole: Walk) -> Callable[[Path], None]:
    name = "model.visual.blocks.1.attn.qkv.weight"
    base = load_file(whole.recipe.base.path / WEIGHTS)
    return on_tensors(lambda tensors: tensors | {name: base[name]})


def fp16_base(whole: Walk) -> Callable[[Path], None]:
    base = load_file(whole.recipe.base.path / WEIGHTS)
    return on_tensors(
        lambda tensors: {name: tensor - base[name] + base[name].half() for name, tensor in tensors.items()}
    )


def swapped_layers(whole: Walk) -> Callable[[Path], None]:
    one, two = (f"model.language_model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1))
    return on_tensors(lambda tensors: tensors | {one: tensors[two], two: tensors[one]})


def only_the_base(whole: Walk) -> Callable[[Path], None]:
    return lambda root: shutil.copyfile(whole.recipe.base.path / WEIGHTS, root / WEIGHTS) and None


def another_template(whole: Walk) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        path = root / "chat_template.jinja"
        path.write_text(path.read_text() + " ")

    return fault


def truncated(whole: Walk) -> Callable[[Path], None]:
    def fault(root: Path) -> None:
        (root / WEIGHTS).write_bytes((root / WEIGHTS).read_bytes()[:-64])

    return fault


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (double_alpha, "26 merged tensors differ from the definition"),
        (dropped_key, "1 merged tensors differ from the definition: model.visual.blocks.1.attn.qkv"),
        (fp16_base, "tensors that were not trained differ from the base"),
        (swapped_layers, "2 merged tensors differ from the definition"),
        (only_the_base, "no tensor differs from the base"),
        (another_template, "files differ from the base's: chat_template.jinja"),
        (truncated, "cannot be read"),
    ],
)
def test_planted_faults_fail(whole: Walk, make: Callable[[Walk], Callable[[Path], None]], words: str) -> None:
    passed, text = prove(planted(whole, make.__name__, make(whole)))
    assert not passed
    assert words in text


@pytest.fixture(scope="module")
def dora(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Walk:
    return walk(tmp_path_factory.mktemp("dora"), tiny_base, bank_forms, dora=True)


def test_dora_passes(dora: Walk, tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    proof = prove_merge(dora.recipe, dora.home, dora.base, dora.run, dora.model, dora.held_out)
    assert proof.statement["findings"] == []
    assert proof.statement["adapter"] == {"tensors": 78, "modules": 26, "used_once": 78}
    assert proof.statement["weights"] == {"tensors": 64, "merged": 26, "bit_equal": 64, "changed": 26}
    assert prove(walk(tmp_path, tiny_base, bank_forms, as_bfloat16, dora=True)) == (True, "")


def twice(changed: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    return changed * (2 * magnitude / torch.linalg.norm(changed, dim=1)).unsqueeze(1)


def left_out(changed: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    return changed


def over_the_columns(changed: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    if changed.shape[0] != changed.shape[1]:
        return changed * (magnitude / torch.linalg.norm(changed, dim=1)).unsqueeze(1)
    return changed * (magnitude / torch.linalg.norm(changed, dim=0)).unsqueeze(1)


def in_few_digits(changed: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Lengths rounded as a norm in bfloat16 would be."""
    return changed * (magnitude / torch.linalg.norm(changed, dim=1).bfloat16().float()).unsqueeze(1)


@pytest.mark.parametrize(
    ("fault", "wrong"), [(twice, 26), (left_out, 26), (over_the_columns, 8), (in_few_digits, 26)]
)
def test_planted_dora_faults_fail(
    dora: Walk, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., torch.Tensor], wrong: int
) -> None:
    def merger(adapter: Adapter, delta: Delta) -> Compute:
        assert delta.magnitude
        a, b, magnitude = (adapter.file.read(name) for name in (delta.a, delta.b, delta.magnitude))
        return lambda base, first: fault(base + b @ a * delta.scale, magnitude)

    def write(root: Path) -> None:
        (root / WEIGHTS).unlink()
        write_merged(
            dora.recipe.base.path,
            dora.recipe.model_family,
            dora.run,
            root,
            dora.home.work_path(fault.__name__),
        )

    monkeypatch.setattr(Adapter, "merger", merger)
    broken = planted(dora, fault.__name__, write)
    passed, text = prove(broken)
    assert not passed
    assert f"{wrong} merged tensors differ from the definition" in text
    # Told by what they compute alone, too.
    assert "logits: logits differ" in text


def test_every_magnitude_is_used(dora: Walk, tmp_path: Path) -> None:
    trained = load_trained(dora.recipe.base.path, dora.run.path, torch.float32)
    name = "adapter_model.safetensors"
    tensors = load_file(dora.run.path / name)
    first = next(key for key in tensors if "magnitude" in key)
    for change in (
        {key: tensor for key, tensor in tensors.items() if key != first},
        tensors | {first: tensors[first] * 2},
    ):
        save_file(change, tmp_path / name)
        assert first in weights.adapter_part(trained, tmp_path).findings[0]


def test_an_untied_head_fails(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    tied = walk(tmp_path, tiny_base, bank_forms, as_tied)
    assert prove(tied) == (True, "")
    embedding = "model.language_model.embed_tokens.weight"
    untied = on_tensors(lambda tensors: tensors | {"lm_head.weight": tensors[embedding] * 0.5})
    passed, text = prove(planted(tied, "untied", untied))
    assert not passed
    assert "1 tensors are not in the base: lm_head.weight" in text


def test_a_model_of_another_base_fails(whole: Walk) -> None:
    with whole.home.create("model", "e" * 24, {"base": whole.held_out, "run": whole.run}) as draft:
        for path in whole.model.path.iterdir():
            if path.name not in ("manifest.json", "record.json"):
                shutil.copyfile(path, draft.path / path.name)
        draft.body.update(whole.model.body)
    # A proof from elsewhere, without a key, is nobody's earlier one.
    attest(whole.home, "merge-proof", draft.artifact.id, True, {}, {"findings": []})
    passed, text = prove(replace(whole, model=draft.artifact))
    assert not passed
    assert "the model was made from base" in text


def test_a_model_edited_after_it_was_made_is_an_integrity_error(
    tmp_path: Path, tiny_base: Path, bank_forms: Path
) -> None:
    other = walk(tmp_path, tiny_base, bank_forms)
    another_template(other)(other.model.path)
    with pytest.raises(IntegrityError):
        prove(other)


def test_the_logits_part_fails_on_its_own(whole: Walk) -> None:
    rows = proof_rows(read_held_out(whole.home, whole.held_out, "test"), 2)
    base = whole.recipe.base.path
    broken = planted(whole, "logits", swapped_layers(whole)).model.path

    def findings(model: Path) -> list[str]:
        trained = load_trained(base, whole.run.path, torch.float32)
        return logits_part(trained, base, model, None, whole.recipe.rendering, "float32", rows).findings

    assert findings(whole.model.path) == []
    assert "logits differ" in findings(broken)[0]


def test_the_logits_part_notices_another_processor(whole: Walk) -> None:
    rows = proof_rows(read_held_out(whole.home, whole.held_out, "test"), 2)
    base = whole.recipe.base.path
    trained = load_trained(base, whole.run.path, torch.float32)
    budget = PixelBudget(1024, 8192)
    part = logits_part(trained, base, whole.model.path, budget, whole.recipe.rendering, "float32", rows)
    assert "reads row" in part.findings[0]


def test_the_adapter_part_fails_on_its_own(whole: Walk, tmp_path: Path) -> None:
    trained = load_trained(whole.recipe.base.path, whole.run.path, torch.float32)
    name = "adapter_model.safetensors"
    tensors = load_file(whole.run.path / name)
    first = next(iter(tensors))
    save_file({"of.no.layer": torch.ones(1), **tensors}, tmp_path / name)
    assert "belong to no layer: of.no.layer" in weights.adapter_part(trained, tmp_path).findings[0]
    save_file({key: tensor for key, tensor in tensors.items() if key != first}, tmp_path / name)
    assert first in weights.adapter_part(trained, tmp_path).findings[0]
    save_file(tensors | {first: tensors[first] + 1}, tmp_path / name)
    assert first in weights.adapter_part(trained, tmp_path).findings[0]


def test_an_adapter_that_loads_in_part_is_an_error(whole: Walk, tmp_path: Path) -> None:
    shutil.copytree(whole.run.path, tmp_path / "run")
    path = tmp_path / "run/adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name.replace("visual", "vision"): tensor for name, tensor in tensors.items()}, path)
    with pytest.raises(IntegrityError, match="not loaded whole"):
        load_trained(whole.recipe.base.path, tmp_path / "run", torch.float32)


def test_the_pixel_budget_is_the_only_difference_allowed(whole: Walk, tmp_path: Path) -> None:
    base = whole.recipe.base.path
    pixels = PixelBudget(2048, 16384)

    def findings(change: Callable[[dict], None]) -> list[str]:
        def fault(root: Path) -> None:
            path = root / "processor_config.json"
            content = json.loads(path.read_bytes())
            content["image_processor"]["size"] = {"shortest_edge": 2048, "longest_edge": 16384}
            change(content["image_processor"])
            path.write_text(json.dumps(content))

        model = planted(whole, f"pixels-{change.__name__}", fault).model
        assert model.manifest.files == list_files(model.path)
        return companions_part(base, model, pixels).findings

    def nothing(settings: dict) -> None:
        pass

    def another_mean(settings: dict) -> None:
        settings["image_mean"] = [0.4, 0.5, 0.5]

    def another_size(settings: dict) -> None:
        settings["size"]["longest_edge"] = 32768

    assert findings(nothing) == []
    assert "more than the pixel budget" in findings(another_mean)[0]
    assert "does not state the recipe's pixel budget" in findings(another_size)[0]


def test_a_pixel_budget_passes(whole: Walk, bank_forms: Path, tmp_path: Path) -> None:
    pixels = {"min_pixels": 2048, "max_pixels": 16384}
    recipe = recipe_for(whole.recipe.base.path, bank_forms, tmp_path / "recipe.yaml", pixels=pixels)
    smaller = replace(whole, recipe=recipe, model=merge(recipe, whole.home, whole.base, whole.run))
    assert prove(smaller) == (True, "")
