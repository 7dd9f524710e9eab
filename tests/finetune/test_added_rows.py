"""Changes of low rank that numpy adds: torch's bits, or torch's words for what is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune import merge as merge_module
from finetune.merge import merge
from finetune.merging import low_rank, shard, weights
from finetune.merging.change import Piece
from finetune.merging.crew import crew_at_work
from finetune.merging.floats import are_equal, are_finite, narrow, widen
from finetune.merging.low_rank import LowRank, Matrix, Product, for_numpy, multiply_alike
from finetune.merging.tensor_file import open_tensor_file
from finetune.merging.weights import write_merged
from lensmith.errors import InputError
from lensmith.home import Home
from tests.conftest import ROOT
from tests.finetune.merged import Walk, as_bfloat16, walk

ROWS, WIDTH = 1100, 512


def drawn(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def change_of(rank: int, scale: float = 1.0, *, turned: bool = False) -> LowRank:
    """Whose product is the same in any order of summing: of one summand, or of small integers."""
    left, right = drawn(ROWS, rank, 2), drawn(rank, WIDTH, 3)
    if rank > 1:
        left, right = (left * 3).round(), (right * 3).round()
    if turned:
        b, a = right.T.contiguous().numpy(), left.T.contiguous().numpy()
        return LowRank(lambda first, rows: (a[:, first : first + rows].T, b.T), scale, rank, turned=True)
    b, a = left.numpy(), right.numpy()
    return LowRank(lambda first, rows: (b[first : first + rows], a), scale, rank)


def base_of(before: int = 8) -> dict[str, Tensor]:
    """Normal values, both zeros, and the smallest that there are."""
    values = drawn(ROWS, WIDTH, 1)
    values[3], values[4], values[5] = 0.0, -0.0, values[5] * 1e-40
    return {"a": torch.arange(before, dtype=torch.uint8), "b": values.bfloat16()}


def merged(
    tmp_path: Path, base: dict[str, Tensor], change: LowRank, *, by_numpy: bool = True
) -> tuple[Tensor, shard.Shard]:
    save_file(base, tmp_path / "base.safetensors")
    source = open_tensor_file(tmp_path / "base.safetensors")
    with crew_at_work() as crew:
        begun = shard.begin_shard(
            source, tmp_path / "merged", {"b": [Piece("b", ROWS, low_rank=lambda: change)]}
        )
        begun.copy(crew)
        begun.compute(crew, by_numpy=by_numpy)
        begun.finish()
    return load_file(tmp_path / "merged")["b"], begun


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5, 1.5, 32 / 6**0.5, 2**-9])
@pytest.mark.parametrize(("rank", "turned"), [(1, False), (16, False), (16, True)])
def test_numpy_adds_as_torch_does(tmp_path: Path, scale: float, rank: int, turned: bool) -> None:
    base, change = base_of(), change_of(rank, scale, turned=turned)
    found, by_numpy = merged(tmp_path, base, change)
    expected, by_torch = merged(tmp_path, base, change, by_numpy=False)
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))
    assert by_numpy.products
    assert all(each[1:] == (rank, WIDTH, turned) for each in by_numpy.products)
    assert not by_torch.products
    assert by_numpy.moved == by_torch.moved == {"b"}
    assert by_numpy.elements == by_torch.elements == {"b": ROWS * WIDTH}


def test_rows_at_odd_bytes_are_added_too(tmp_path: Path) -> None:
    found, begun = merged(tmp_path, base_of(7), change_of(16))
    assert begun.products
    assert torch.equal(found, merged(tmp_path, base_of(7), change_of(16), by_numpy=False)[0])


@pytest.mark.parametrize(
    ("value", "wrong"),
    [(float("nan"), "are broken"), (-float("inf"), "are broken"), (3.3e38, "overflow the base's dtype")],
)
def test_a_value_that_is_not_finite_is_refused(tmp_path: Path, value: float, wrong: str) -> None:
    base = base_of()
    base["b"][-1, -1] = value
    # Half a step of bfloat16 at 3.3e38 and more: finite as float32.
    b = np.ones((ROWS, 1), np.float32)
    a = np.full((1, WIDTH), 1e37 if "overflow" in wrong else 1.0, np.float32)
    change = LowRank(lambda first, rows: (b[first : first + rows], a), 1.0, 1)
    for by_numpy in (True, False):
        with pytest.raises(InputError, match=rf"{wrong}.*\n.*b: NaN or infinite"):
            merged(tmp_path, base, change, by_numpy=by_numpy)


def test_a_change_that_vanishes_moves_nothing(tmp_path: Path) -> None:
    """Zero added to a negative zero is a positive one: no other value."""
    b, a = np.zeros((ROWS, 1), np.float32), np.ones((1, WIDTH), np.float32)
    found, begun = merged(
        tmp_path, base_of(), LowRank(lambda first, rows: (b[first : first + rows], a), 1.0, 1)
    )
    assert begun.products
    assert not begun.moved
    assert not found[4].view(torch.int16).any()


def test_values_are_rounded_as_torch_rounds_them() -> None:
    """Every upper half of a float32, with the lower halves about which rounding turns."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (upper[:, None] | lower).view(np.float32)
    found = np.empty(values.shape, np.uint16)
    narrow(values, found, np.empty(values.shape, np.uint32))
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    known = ~np.isnan(values)
    assert np.array_equal(found[known], expected[known])
    # A NaN that is one by its upper half remains one.
    first = found[:, 0].copy()
    nan = np.isnan(values[:, 0])
    assert not any(are_finite(each) for each in first[nan].reshape(-1, 1))
    back = widen(first, np.empty(first.shape, np.float32))
    assert np.array_equal(back[~nan], values[:, 0][~nan])


def test_equal_values_are_told_from_others_wherever_they_lie() -> None:
    one = drawn(300, 512, 1).bfloat16().view(torch.int16).numpy().view(np.uint16)
    one[7, 7] = 0x8000
    other = one.copy()
    other[7, 7] = 0
    assert are_equal(one, other)
    other[-1, -1] ^= 1
    assert not are_equal(one, other)


@pytest.mark.parametrize(
    ("product", "rows"),
    [
        (Product(63, 16, 512, False), 1 << 12),
        (Product(64, 129, 512, False), 1 << 12),
        (Product(64, 16, 192, False), 1 << 12),
        (Product(64, 16, 511, True), 1 << 12),
        (Product(64, 16, 512, False), 511),
    ],
)
def test_what_libraries_multiply_by_programs_of_its_own_is_torchs(product: Product, rows: int) -> None:
    assert for_numpy(Product(64, 128, 512, True), 512)
    assert not for_numpy(product, rows)


def test_other_dtypes_are_torchs(tmp_path: Path) -> None:
    base = {"b": base_of()["b"].half()}
    found, begun = merged(tmp_path, base, change_of(16, 0.5))
    assert not begun.products
    assert torch.equal(found, merged(tmp_path, base, change_of(16, 0.5), by_numpy=False)[0])


@pytest.mark.parametrize("turned", [False, True])
def test_a_product_that_is_summed_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch, turned: bool) -> None:
    """One element's last bit is enough, of matrices that lie in memory as those of the merge do."""
    exact = Product(64, 2, 512, turned)
    assert multiply_alike([exact])
    by_numpy = LowRank.by_numpy

    def off(self: LowRank, first: int, rows: int, into: Matrix) -> Matrix:
        assert all((each.strides[0] == each.itemsize) == turned for each in self.factors(first, rows))
        by_numpy(self, first, rows, into).view(np.uint32)[-1, -1] ^= 1
        return into

    monkeypatch.setattr(LowRank, "by_numpy", off)
    assert not multiply_alike([exact])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Walk:
    """In bfloat16; its matrices are so small that all products are torch's."""
    return walk(tmp_path_factory.mktemp("whole"), tiny_base, bank_forms, as_bfloat16)


def whatever_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LEAST_ROWS", "_LEAST_WIDTH", "_WIDTHS", "_LEAST_ELEMENTS"):
        monkeypatch.setattr(low_rank, name, 1)


def merge_again(whole: Walk, root: Path) -> dict[str, bytes]:
    home = Home(root)
    for each in (whole.base, whole.run):
        (root / "artifacts" / each.kind).mkdir(parents=True, exist_ok=True)
        (root / "artifacts" / each.kind / each.path.name).symlink_to(each.path)
    model = merge(whole.recipe, home, home.by_id(whole.base.id), home.by_id(whole.run.id))
    return {path.name: path.read_bytes() for path in model.path.glob("*.safetensors")}


@pytest.mark.slow
def test_what_numpy_multiplied_otherwise_is_written_again(
    whole: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {path.name: path.read_bytes() for path in whole.model.path.glob("*.safetensors")}
    whatever_the_shape(monkeypatch)
    asked: list[frozenset[Product]] = []

    def noted(products: frozenset[Product]) -> bool:
        asked.append(products)
        return multiply_alike(products)

    monkeypatch.setattr(merge_module, "multiply_alike", noted)
    # Whether or not this machine's libraries sum small products alike.
    assert merge_again(whole, tmp_path / "as it is") == expected
    monkeypatch.setattr(LowRank, "by_numpy", broken(LowRank.by_numpy))
    assert merge_again(whole, tmp_path / "broken") == expected
    assert len(asked) == 2
    assert asked[0] == asked[1] != frozenset()


def broken(by_numpy: Callable[[LowRank, int, int, Matrix], Matrix]) -> Callable[..., Matrix]:
    def off(self: LowRank, first: int, rows: int, into: Matrix) -> Matrix:
        return np.multiply(by_numpy(self, first, rows, into), 1.5, out=into)

    return off


@pytest.mark.slow
def test_what_numpy_multiplied_before_a_kill_is_known_after(
    whole: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a file that was finished: else nobody would ask whether it is right."""
    whatever_the_shape(monkeypatch)
    (tmp_path / "out").mkdir()
    root, family = whole.recipe.base.path, whole.recipe.model_family
    first = write_merged(root, family, whole.run, tmp_path / "out", tmp_path / "work")
    monkeypatch.setattr(weights, "begin_shard", None)
    (tmp_path / "again").mkdir()
    again = write_merged(root, family, whole.run, tmp_path / "again", tmp_path / "work")
    assert again.products == first.products != frozenset()


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from types import SimpleNamespace
from finetune.merging import low_rank
from finetune.merging.weights import write_merged
from lensmith import families
low_rank._LEAST_ROWS = low_rank._LEAST_WIDTH = low_rank._WIDTHS = low_rank._LEAST_ELEMENTS = 1
base, run, out = map(Path, sys.argv[1:])
out.mkdir()
run = SimpleNamespace(path=run, body={"method": "lora"}, short="run")
print(write_merged(base, families.get("qwen3_vl"), run, out, out / "work").changed)
"""


@pytest.mark.slow
def test_a_plain_merge_is_written_without_torch(whole: Walk, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", WITHOUT_TORCH, whole.recipe.base.path, whole.run.path, tmp_path / "out"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == whole.model.body["tensors_changed"]
