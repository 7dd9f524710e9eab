"""The blocks in which merged weights are computed, and the jobs that read and write several of them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.merging import output as output_module
from finetune.merging import shard
from finetune.merging.change import Changes, Piece, add_scaled
from finetune.merging.crew import crew_at_work
from finetune.merging.output import Output, paged_memory
from finetune.merging.tensor_file import open_tensor_file
from lensmith.errors import InputError, IntegrityError

WIDTH, ROWS = 48, 1000


def matrix(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 15 blocks a matrix, in jobs of three."""
    monkeypatch.setattr(shard, "_BLOCK", 64 * WIDTH)
    monkeypatch.setattr(shard, "_JOB", 3 * 64 * WIDTH)


def written(tmp_path: Path, changes: Changes) -> dict[str, Tensor]:
    source = open_tensor_file(tmp_path / "base.safetensors")
    with crew_at_work() as crew:
        begun = shard.begin_shard(source, tmp_path / "merged.safetensors", changes)
        begun.copy(crew)
        begun.compute(crew)
        begun.finish()
    return load_file(tmp_path / "merged.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("before", [8, 7], ids=["aligned", "at odd bytes"])
@pytest.mark.usefixtures("small_blocks")
def test_blocks_are_computed_and_written_where_they_lie(
    tmp_path: Path, dtype: torch.dtype, before: int
) -> None:
    """Two pieces of a tensor, the second of which begins inside a page; each row is told by its number."""
    base = matrix(ROWS, WIDTH, 1).to(dtype)
    header = {"a": torch.arange(before, dtype=torch.uint8), "b": base, "c": matrix(3, 5, 2)}
    save_file(header, tmp_path / "base.safetensors")
    pieces = [Piece("first", 333), Piece("second", ROWS - 333, lambda: numbered)]
    cut: list[tuple[int, int]] = []

    def numbered(stored: Tensor, first: int) -> Tensor:
        cut.append((first, len(stored)))
        return stored.float() + torch.arange(first, first + len(stored)).unsqueeze(1)

    merged = written(tmp_path, {"b": pieces})
    assert torch.equal(merged["a"], header["a"])
    assert torch.equal(merged["c"], header["c"])
    assert torch.equal(merged["b"][:333], base[:333])
    numbers = torch.arange(ROWS - 333).unsqueeze(1)
    assert torch.equal(merged["b"][333:], (base[333:].float() + numbers).to(dtype))
    cut.sort()
    assert len(cut) > 9, "several jobs of several blocks"
    assert all(first + count == after for (first, count), (after, _) in itertools.pairwise(cut))


@pytest.mark.parametrize(
    ("value", "wrong"), [(float("nan"), "are broken"), (float("inf"), "are broken"), (1e38, "overflow")]
)
@pytest.mark.usefixtures("small_blocks")
def test_a_value_that_is_not_finite_is_refused_in_any_block(tmp_path: Path, value: float, wrong: str) -> None:
    save_file({"b": matrix(ROWS, WIDTH, 1).half()}, tmp_path / "base.safetensors")

    def spoilt(stored: Tensor, first: int) -> Tensor:
        values = stored.float()
        if first <= 500 < first + len(stored):
            values[500 - first, 7] = value
        return values

    with pytest.raises(InputError, match=rf"{wrong}.*\n.*b: NaN or infinite"):
        written(tmp_path, {"b": [Piece("b", ROWS, lambda: spoilt)]})


def test_another_shape_is_an_error(tmp_path: Path) -> None:
    save_file({"b": matrix(ROWS, WIDTH, 1)}, tmp_path / "base.safetensors")
    with pytest.raises(IntegrityError, match="b changed its shape"):
        # As wide as one that would be repeated over the row.
        written(tmp_path, {"b": [Piece("b", ROWS, lambda: lambda stored, first: stored[:, :1])]})


@pytest.mark.parametrize("scale", [1.0, 2.0, 64.0, 0.5, 2**-9, 1.5, 32 / 6**0.5, 0.1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scaling_and_adding_round_as_two_steps(scale: float, dtype: torch.dtype) -> None:
    base, product = matrix(200, 1031, 3).to(dtype), matrix(200, 1031, 4)
    # Of the smallest numbers half may be none: it is rounded, and the sum once more.
    base[0], product[0] = base[0] * 1e-43, product[0] * 1e-43
    two = product * scale
    two += base.float()
    kept = base.clone()
    assert torch.equal(add_scaled(base, product.clone(), scale), two)
    assert torch.equal(base, kept)


def test_what_lies_as_in_the_file_is_written_from_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what does not goes through memory that begins with a page, as the disk asks."""
    page = output_module._PAGE
    output, at = Output(tmp_path / "a", 10 * page), page + 12
    memory = paged_memory(3 * page, at)
    memory[:] = bytes(range(256)) * (3 * page // 256)
    used: list[int] = []
    buffer = output_module._buffer

    def noted() -> memoryview:
        used.append(1)
        return buffer()

    monkeypatch.setattr(output_module, "_buffer", noted)
    output.write(memory, at)
    assert not used
    output.write(memory, at + 4 * page + 1)
    assert used
    output.finish()
    found = (tmp_path / "a").read_bytes()
    assert found[at : at + 3 * page] == bytes(memory) == found[at + 4 * page + 1 :][: 3 * page]


def test_memory_in_pages_is_a_threads_own_and_large_pieces_are_not_kept() -> None:
    small, large = paged_memory(100, 7), paged_memory(32 << 20, 7)
    assert (len(small), len(large)) == (100, 32 << 20)
    large[-1:] = b"x"
    assert output_module._address(paged_memory(50, 9)) == output_module._address(small) + 2


def test_memory_that_is_written_from_is_in_large_pages_and_no_other_processs() -> None:
    """Of small pages a request to the disk holds few; and a process that is started must not share them."""
    at = output_module._address(paged_memory(4 << 20, 7))
    maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    areas = [each for each in maps if each]
    (area,) = [each for each in areas if _begin(each) <= at < _end(each)]
    flags = next(line for line in area.splitlines() if line.startswith("VmFlags:")).split()
    # proc(5): not copied on a fork; huge pages are advised; and writes of others would be seen.
    assert "dc" in flags
    assert "sh" not in flags
    if Path("/sys/kernel/mm/transparent_hugepage").is_dir():
        assert "hg" in flags


def _begin(area: str) -> int:
    return int(area.split("-")[0], 16)


def _end(area: str) -> int:
    return int(area.split()[0].split("-")[1], 16)
