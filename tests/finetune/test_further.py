"""What a recipe names beside its run is looked at before anything is trained, and all is told at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.further import check_once, further_adapters
from finetune.merged_adapters import MERGED, note_merged
from finetune.merging.checkpoint import open_checkpoint
from finetune.merging.outside import rewrite_adapter, tensors_digest
from lensmith import families
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.artifact import Artifact, verify
from lensmith.errors import InputError
from lensmith.merge_settings import Merge
from tests.artifacts import make_full_run, make_run
from tests.finetune.merged import Walk, walk

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Walk:
    return walk(tmp_path_factory.mktemp("further"), tiny_base, bank_forms)


def named(whole: Walk, *adapters: dict[str, Any]) -> list[Artifact]:
    merge = Merge.model_validate({"adapters": [each | {"weight": 0.5} for each in adapters]})
    return further_adapters(whole.recipe.model_copy(update={"merge": merge}), whole.home, whole.base)


def refusal(whole: Walk, *adapters: dict[str, Any]) -> str:
    before = whole.home.all()
    with pytest.raises(InputError, match=r"what merge\.adapters names cannot be merged") as caught:
        named(whole, *adapters)
    assert whole.home.all() == before
    return str(caught.value)


def outside(whole: Walk, folder: Path, change: Callable[[Tensors], Tensors], **config: Any) -> Path:
    """The walk's adapter, changed, as a folder of its own."""
    folder.mkdir()
    save_file(change(load_file(whole.run.path / ADAPTER_WEIGHTS)), folder / ADAPTER_WEIGHTS)
    stated = json.loads((whole.run.path / ADAPTER_CONFIG).read_bytes()) | config
    (folder / ADAPTER_CONFIG).write_text(json.dumps(stated))
    return folder


def halved(tensors: Tensors) -> Tensors:
    return {name: each / 2 for name, each in tensors.items()}


def with_a_head(tensors: Tensors) -> Tensors:
    """As PEFT saves a module that was trained whole; its shape is asked after what it is."""
    return tensors | {"base_model.model.lm_head.weight": torch.ones(4, 4)}


def test_what_the_card_beside_it_states_is_kept(whole: Walk, tmp_path: Path) -> None:
    folder = outside(whole, tmp_path / "outside", halved)
    (silent,) = named(whole, {"path": folder})
    assert (silent.body["licence"], silent.body["datasets"]) == ("", [])
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets: [acme/bills]\n---\n")
    (taken,) = named(whole, {"path": folder})
    assert (taken.body["licence"], taken.body["datasets"]) == ("mit", ["acme/bills"])


def test_an_outside_adapter_is_taken_in_once(whole: Walk, tmp_path: Path) -> None:
    folder = outside(whole, tmp_path / "outside", halved)
    (taken,) = named(whole, {"path": folder})
    verify(taken)
    assert taken.manifest.inputs == {"base": whole.base.id}
    assert named(whole, {"path": folder}) == [taken]
    moved = folder.rename(tmp_path / "moved")
    assert named(whole, {"path": moved}) == [taken]


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        (lambda t: {n.replace("language_model", "text"): v for n, v in t.items()}, {}, "no such module"),
        (lambda t: {n: v * ("lora_B" not in n) for n, v in t.items()}, {}, "changes nothing"),
        (lambda t: {n: v * float("nan") for n, v in t.items()}, {}, "holds NaN or infinite values"),
        (lambda t: {n: v[:, :-1].clone() if "_A" in n else v for n, v in t.items()}, {}, "another base"),
        (lambda t: dict(list(t.items())[1:]), {}, "has no lora_A"),
        (halved, {"r": 8}, "the config says rank 8"),
        (halved, {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        (with_a_head, {"modules_to_save": ["lm_head"]}, "held whole, or a bias, which cannot be weighed"),
        (halved, {"init_lora_weights": "pissa"}, "changed the base before training"),
    ],
)
def test_what_is_broken_or_of_another_base_is_refused(
    whole: Walk, tmp_path: Path, change: Callable[[Tensors], Tensors], config: dict[str, Any], words: str
) -> None:
    folder = outside(whole, tmp_path / "outside", change, **config)
    text = refusal(whole, {"path": folder})
    assert words in text
    assert f"merge.adapters.0 ({folder})" in text
    assert ".partial" not in text


def test_what_the_base_says_it_holds_is_not_merged_again(whole: Walk, tmp_path: Path) -> None:
    folder = outside(whole, tmp_path / "outside", halved, base_model_name_or_path="another")
    rewrite_adapter(
        folder, tmp_path / "named", open_checkpoint(whole.recipe.base.path), families.get("qwen3_vl")
    )
    stated = whole.recipe.base.path / MERGED
    note_merged(tmp_path, whole.recipe.base.path, tensors_digest(tmp_path / "named"), {})
    try:
        assert "is already merged into" in refusal(whole, {"path": folder})
    finally:
        stated.unlink()
    assert named(whole, {"path": folder})


def test_runs_that_are_no_change_of_this_base_are_refused_together(whole: Walk, tmp_path: Path) -> None:
    full = make_full_run(whole.home, whole.base)
    with whole.home.create("run", "other" * 5, {"base": whole.held_out}) as draft:
        for path in whole.run.path.iterdir():
            if path.name != "manifest.json":
                (draft.path / path.name).write_bytes(path.read_bytes())
        draft.body.update(whole.run.body)
    text = refusal(
        whole, {"run": full.short}, {"run": draft.artifact.short}, {"path": tmp_path}, {"run": "run-abcdef"}
    )
    assert f"{full.short} is no adapter" in text
    assert f"was trained on base-{whole.held_out.id[:12]}, the recipe's is {whole.base.short}" in text
    assert "holds no adapter" in text
    assert "names no artifacts" in text


def test_an_adapter_is_not_used_twice_under_two_names(whole: Walk, tmp_path: Path) -> None:
    """Known by its tensors: saved again, in another precision that holds them, it is the same."""
    (copied,) = named(whole, {"path": outside(whole, tmp_path / "copy", lambda tensors: tensors)})
    assert copied.manifest.files != whole.run.manifest.files
    assert tensors_digest(copied.path) == tensors_digest(whole.run.path)
    with pytest.raises(InputError, match="merged twice"):
        check_once([whole.run, copied])
    check_once([whole.run, make_run(whole.home, whole.base, seed=2)])
