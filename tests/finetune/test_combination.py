"""Several adapters by weights: what is merged is what PEFT defines of whole changes, whatever the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.utils import merge_utils
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from finetune.adapted import load_adapter_alone
from finetune.combination import Combination
from finetune.merging.drawn import drawing_key, kept
from finetune.merging.threshold import threshold
from finetune.merging.weights import write_combined
from finetune.proving.combination import load_combined
from finetune.proving.weights import adapter_change
from lensmith.adapter_files import ADAPTER_WEIGHTS
from lensmith.artifact import Artifact
from lensmith.errors import InputError
from tests.artifacts import make_run
from tests.finetune.merged import Walk, as_bfloat16, walk

Tensors = dict[str, torch.Tensor]
WEIGHTS = (0.7, 0.5, -0.25)
METHODS = {
    "linear": {},
    "ties": {"density": 0.3},
    "dare_linear": {"density": 0.4, "seed": 5},
    "dare_ties": {"density": 0.4, "seed": 5},
}


def combination(method: str, weights: tuple[float, ...] = WEIGHTS, **changed: Any) -> Combination:
    stated = {"density": None, "seed": None} | METHODS[method] | changed
    return Combination.model_validate({"method": method, "weights": weights} | stated)


@dataclass(frozen=True)
class Three:
    """A base in bfloat16 and three adapters: of other ranks and towers, one of them DoRA."""

    whole: Walk
    runs: tuple[Artifact, ...]

    @property
    def base(self) -> Path:
        return self.whole.recipe.base.path

    @property
    def paths(self) -> list[Path]:
        return [each.path for each in self.runs]

    def merged(self, folder: Path, asked: Combination, paths: list[Path] | None = None) -> Tensors:
        """The tensors on disk of the combination."""
        family, out = self.whole.recipe.model_family, folder / "out"
        out.mkdir(parents=True)
        write_combined(self.base, family, paths or self.paths, asked, out, folder / "work")
        return load_file(out / "model.safetensors")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Three:
    whole = walk(tmp_path_factory.mktemp("three"), tiny_base, bank_forms, as_bfloat16)
    towers = ("language", "connector")
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}
    second = make_run(whole.home, whole.base, towers, seed=2, rslora=True, **patterns)
    return Three(whole, (whole.run, second, make_run(whole.home, whole.base, seed=3, dora=True)))


def changes(three: Three, base: Tensors) -> dict[str, dict[int, torch.Tensor]]:
    """By weight and number of the adapter its whole change, from PEFT's layers."""
    found: dict[str, dict[int, torch.Tensor]] = {}
    for number, path in enumerate(three.paths):
        for name, change in adapter_change(load_adapter_alone(three.base, path)).items():
            found.setdefault(name, {})[number] = change(base[name].float())
    return found


def by_peft(asked: Combination, name: str, held: dict[int, torch.Tensor]) -> torch.Tensor:
    """One weight's change by PEFT's functions of this name, which draw what we draw."""
    weights = torch.tensor([asked.weights[number] for number in held])
    if asked.density is None:
        return merge_utils.task_arithmetic(list(held.values()), weights)
    masks: Iterator[torch.Tensor] = (
        kept(drawing_key(asked.seed or 0, number, name, None), 0, (len(each), each.shape[1]), asked.density)
        for number, each in held.items()
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merge_utils.torch, "bernoulli", lambda _: next(masks).float())
        return getattr(merge_utils, asked.method)(list(held.values()), weights, asked.density)


@pytest.mark.parametrize("method", METHODS)
def test_the_outcome_is_pefts_in_every_bit(three: Three, method: str, tmp_path: Path) -> None:
    """Of up to four adapters: torch adds more of them in an order of its own, we in the recipe's."""
    asked, base = combination(method), load_file(three.base / "model.safetensors")
    found = three.merged(tmp_path, asked)
    held = changes(three, base)
    assert {len(each) for each in held.values()} == {2, 3}
    for name, tensor in found.items():
        expected = base[name]
        if name in held:
            expected = (expected.float() + by_peft(asked, name, held[name])).bfloat16()
            assert not torch.equal(expected, base[name])
        assert torch.equal(tensor.view(torch.uint8), expected.view(torch.uint8)), name


def test_linear_is_pefts_weighted_adapter(three: Three, tmp_path: Path) -> None:
    """`cat` multiplies by all ranks at once, so sums in another order: equal but for float32's last bits."""
    asked = combination("linear", WEIGHTS[:2])
    model = AutoModelForImageTextToText.from_pretrained(three.base, dtype=torch.float32)
    wrapped = PeftModel.from_pretrained(model, three.paths[0])
    wrapped.load_adapter(three.paths[1], "second")
    wrapped.add_weighted_adapter(["default", "second"], list(asked.weights), "both", combination_type="cat")
    wrapped.set_adapter("both")
    expected = wrapped.merge_and_unload(safe_merge=False).state_dict()
    ours = load_combined(three.base, three.paths[:2], asked, torch.float32).state_dict()
    assert ours.keys() == expected.keys()
    assert all(torch.allclose(ours[name], expected[name], atol=1e-6, rtol=1e-5) for name in ours)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_blocks_and_cores_change_no_bit(
    three: Three, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = combination(method)
    whole = three.merged(tmp_path / "whole", asked)
    # At least 32 rows a block: 64 inputs to a row.
    monkeypatch.setattr("finetune.merging.shard._BLOCK", 32 * 64)
    monkeypatch.setattr("finetune.merging.shard._ROWS", 32)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(7)))
    blocks = three.merged(tmp_path / "blocks", asked)
    assert all(torch.equal(whole[name], blocks[name]) for name in whole)


def test_the_seed_says_what_is_dropped(three: Three, tmp_path: Path) -> None:
    one, again, other = (
        three.merged(tmp_path / name, combination("dare_linear", seed=seed))
        for name, seed in (("one", 5), ("again", 5), ("other", 6))
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert sum(not torch.equal(one[name], other[name]) for name in one) == 26


def test_any_rows_are_drawn_by_themselves() -> None:
    key = drawing_key(1, 0, "a.weight", None)
    whole = kept(key, 0, (100, 37), 0.3)
    assert abs(float(whole.float().mean()) - 0.3) < 0.03
    for first, count in ((0, 1), (1, 50), (51, 49), (99, 1)):
        assert torch.equal(kept(key, first * 37, (count, 37), 0.3), whole[first : first + count])
    assert (
        len({drawing_key(1, 0, "a", None), drawing_key(2, 0, "a", None), drawing_key(1, 1, "a", None)}) == 3
    )
    assert drawing_key(1, 0, "a", 0) != drawing_key(1, 0, "a", 1)


@pytest.mark.parametrize("count", [1, 2, 250, 999, 1000])
def test_the_smallest_that_stays_is_found_exactly(count: int) -> None:
    values = torch.randn(50, 20, generator=torch.Generator().manual_seed(1)) * 10.0 ** torch.arange(-10, 10)
    expected = values.abs().flatten().topk(count).values[-1]
    assert threshold(lambda: values.split(7), count) == float(expected)


def test_equal_magnitudes_stay_together() -> None:
    values = torch.tensor([[1.0, -1.0, 0.5, 0.0]])
    assert [threshold(lambda: [values], count) for count in range(5)] == [float("inf"), 1.0, 1.0, 0.5, 0.0]


def test_adapters_that_cancel_each_other_are_refused(three: Three, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    opposite = tmp_path / "opposite"
    opposite.mkdir()
    (opposite / "adapter_config.json").write_bytes((three.paths[0] / "adapter_config.json").read_bytes())
    tensors = load_file(three.paths[0] / ADAPTER_WEIGHTS)
    save_file(
        {n: -each if "lora_B" in n else each for n, each in tensors.items()}, opposite / ADAPTER_WEIGHTS
    )
    with pytest.raises(InputError, match="combination of 2 adapters changes nothing") as caught:
        three.merged(tmp_path, combination("linear", (0.5, 0.5)), [three.paths[0], opposite])
    assert "cancel each other" in str(caught.value)
