"""Damaged checkpoints are refused with the file and tensor that is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.merging.change import Changes, Piece
from finetune.merging.checkpoint import INDEX, open_checkpoint
from finetune.merging.crew import crew_at_work
from finetune.merging.shard import Shard, begin_shard
from finetune.merging.tensor_file import TensorFile, open_tensor_file
from lensmith.errors import InputError, IntegrityError

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.ones(4, dtype=torch.bfloat16),
    "c": torch.zeros(0, 3),
    "d": torch.tensor(7),
}


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    root = tmp_path / "sharded"
    root.mkdir()
    save_file({"a": TENSORS["a"]}, root / "one.safetensors")
    save_file({"b": TENSORS["b"], "d": TENSORS["d"]}, root / "two.safetensors")
    index = {"a": "one.safetensors", "b": "two.safetensors", "d": "two.safetensors"}
    (root / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return root


def edit_index(root: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    index = json.loads((root / INDEX).read_bytes())
    index["weight_map"] = change(index["weight_map"])
    (root / INDEX).write_text(json.dumps(index))


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = open_tensor_file(tmp_path / "x.safetensors")
    assert file.entries.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert file.read(name).dtype == tensor.dtype
        assert torch.equal(file.read(name), tensor)


def rewritten(source: TensorFile, target: Path, changes: Changes) -> Shard:
    shard = begin_shard(source, target, changes)
    with crew_at_work() as crew:
        shard.copy(crew)
        shard.compute(crew)
        shard.finish()
    return shard


def test_rewriting_changes_only_what_it_is_told(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = open_tensor_file(tmp_path / "x.safetensors")
    written = rewritten(file, tmp_path / "same.safetensors", {})
    assert not written.moved
    assert (tmp_path / "same.safetensors").read_bytes() == file.path.read_bytes()
    twice = Piece("weight", 1, lambda: lambda stored, first: stored * 2)
    written = rewritten(file, tmp_path / "y.safetensors", {"b": [twice]})
    assert (written.moved, written.elements) == ({"b"}, {"weight": 4})
    found = load_file(tmp_path / "y.safetensors")
    assert torch.equal(found.pop("b"), TENSORS["b"] * 2)
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in found.items())


@pytest.mark.parametrize("wrong", [torch.ones(4), torch.ones(2, 2)])
def test_new_values_of_another_shape_are_an_error(tmp_path: Path, wrong: torch.Tensor) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    file = open_tensor_file(tmp_path / "x.safetensors")
    with pytest.raises(IntegrityError, match="b changed its shape"):
        rewritten(file, tmp_path / "y", {"b": [Piece("b", 1, lambda: lambda stored, first: wrong)]})


def test_pieces_are_all_of_a_tensor(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    file = open_tensor_file(tmp_path / "x.safetensors")
    with pytest.raises(IntegrityError, match="not all of its 2 rows"):
        rewritten(file, tmp_path / "y", {"a": [Piece("a", 1)]})


def with_header(**edits: dict) -> bytes:
    header = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
    }
    for name, edit in edits.items():
        header[name] = {**header[name], **edit}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(12)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a whole safetensors file"),
        (b"\xff" * 64, "not a whole safetensors file"),
        (with_header()[:-1], "its header says"),
        (with_header() + b"x", "its header says"),
        (with_header(b={"data_offsets": [4, 8]}), "does not begin where"),
        (with_header(a={"shape": [3]}), "its size does not fit its shape"),
        (with_header(a={"dtype": "F12"}), "unknown dtype F12"),
        (with_header(a={"data_offsets": None}), "header that cannot be read"),
        (b"\x02\0\0\0\0\0\0\0[]", "header that cannot be read"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=words):
        open_tensor_file(path)


def test_shards_are_one_checkpoint(sharded: Path) -> None:
    checkpoint = open_checkpoint(sharded)
    assert checkpoint.place.keys() == {"a", "b", "d"}
    assert checkpoint.entry("b").dtype == "BF16"


def test_no_weights_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no safetensors weights"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m | {"a": "three.safetensors"}, "the index names it, but it is missing"),
        (lambda m: m | {"a": "../one.safetensors"}, "outside the checkpoint"),
        (lambda m: m | {"z": "one.safetensors"}, "z: is in the index but in no shard"),
        (lambda m: {name: file for name, file in m.items() if name != "d"}, "d: is in two.safetensors"),
        (lambda m: m | {"d": "one.safetensors"}, "d: is in two.safetensors, the index says one"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(
    sharded: Path, change: Callable[[dict[str, str]], dict[str, str]], words: str
) -> None:
    edit_index(sharded, change)
    with pytest.raises(IntegrityError) as caught:
        open_checkpoint(sharded)
    assert words in str(caught.value)


def test_a_tensor_in_two_shards_is_refused(sharded: Path) -> None:
    save_file({"a": TENSORS["a"], "b": TENSORS["b"]}, sharded / "one.safetensors")
    with pytest.raises(IntegrityError, match="does not fit its shards"):
        open_checkpoint(sharded)


def test_a_truncated_shard_is_refused(sharded: Path) -> None:
    shutil.copyfile(sharded / "two.safetensors", sharded / "whole")
    (sharded / "two.safetensors").write_bytes((sharded / "whole").read_bytes()[:-4])
    with pytest.raises(IntegrityError, match=r"two\.safetensors is damaged"):
        open_checkpoint(sharded)
