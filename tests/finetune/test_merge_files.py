"""How merged files are written: past the cache, never shared with the base, and gone on with after a kill."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.merge import merge
from finetune.merging import output as output_module
from finetune.merging import weights
from finetune.merging.crew import Crew
from finetune.merging.journal import JOURNAL, Finished, Journal
from finetune.merging.output import Output, share_blocks
from finetune.merging.shard import Shard, blocks
from finetune.merging.weights import write_merged
from lensmith.base import pin_base
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from tests.artifacts import make_full_run, make_run
from tests.finetune.merged import Walk, as_bfloat16, as_shards, lively_base, recipe_for, walk


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Walk:
    """In shards, with an adapter on the language model alone: shards with the vision tower stay."""

    def lying(base: Path) -> None:
        as_shards(base)
        (path,) = base.glob("*.index.json")
        index = json.loads(path.read_bytes())
        path.write_text(json.dumps(index | {"metadata": {"total_size": 1, "told": "by the base"}}))

    return walk(tmp_path_factory.mktemp("walk"), tiny_base, bank_forms, lying, towers=("language",))


ROOT = Path(__file__).resolve().parents[2]
PAGE = max(4096, mmap.PAGESIZE)
# Where a file is cut: inside a page, at its border, over several pages, and over several writes.
CUTS = [0, 7, 100, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 9, 9 * PAGE - 3, 9 * PAGE - 1, (4 << 20) + 5, 9 << 20]
CONTENT = random.Random(4).randbytes(CUTS[-1] + 1)


def put_together(tmp_path: Path) -> bytes:
    """A file of `CONTENT`, whose pieces are written and copied in turn, in no order, by several threads."""
    (tmp_path / "source").write_bytes(CONTENT)
    output = Output(tmp_path / "target", len(CONTENT))

    def piece(at: int, start: int, end: int) -> None:
        if at % 2:
            output.copy(tmp_path / "source", start, end)
        else:
            output.write(memoryview(CONTENT)[start:end], start)

    pieces = [(at, *each) for at, each in enumerate(itertools.pairwise([*CUTS, len(CONTENT)]))]
    random.Random(5).shuffle(pieces)
    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(piece, *each) for each in pieces]:
            future.result()
    output.finish()
    return (tmp_path / "target").read_bytes()


def past_the_cache(handle: int) -> bool:
    return bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT)


def test_whole_pages_go_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe").touch()
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_DIRECT))
        through_the_cache = len(CUTS) * PAGE
    except OSError:
        # This file system has no way past it.
        through_the_cache = len(CONTENT)
    pwrite, sizes = os.pwrite, {True: 0, False: 0}

    def counted(handle: int, data: memoryview, at: int) -> int:
        sizes[past_the_cache(handle)] += len(data)
        return pwrite(handle, data, at)

    monkeypatch.setattr(os, "pwrite", counted)
    # Else blocks that are shared with the source are never written.
    monkeypatch.setattr(output_module, "_shared", lambda *_: False)
    assert put_together(tmp_path) == CONTENT
    assert sum(sizes.values()) == len(CONTENT)
    assert sizes[False] <= through_the_cache


@pytest.mark.parametrize("when", ["open", "pwrite"])
def test_a_disk_without_a_way_past_the_cache_gets_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    call, refused = getattr(os, when), 0

    def refusing(given: Any, flags: Any, *rest: Any) -> int:
        nonlocal refused
        if flags & os.O_DIRECT if when == "open" else past_the_cache(given):
            refused += 1
            raise OSError(errno.EINVAL, "Invalid argument")
        return call(given, flags, *rest)

    monkeypatch.setattr(os, when, refusing)
    monkeypatch.setattr(output_module, "_shared", lambda *_: False)
    assert put_together(tmp_path) == CONTENT
    assert refused


def test_blocks_are_shared_where_the_file_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[tuple[int, int]] = []

    def cloned(writer: int, request: int, asked: bytes) -> int:
        """As Btrfs and XFS do it (ioctl_ficlonerange(2))."""
        source, start, count, target = struct.unpack("qQQQ", asked)
        assert request == 0x4020940D
        assert start == target
        assert not start % PAGE
        assert not count % PAGE
        shared.append((start, start + count))
        os.pwrite(writer, os.pread(source, count, start), start)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", cloned)
    assert put_together(tmp_path) == CONTENT
    copied = [each for at, each in enumerate(itertools.pairwise([*CUTS, len(CONTENT)])) if at % 2]
    inner = [(start + -start % PAGE, end - end % PAGE) for start, end in copied]
    assert sorted(shared) == [(start, end) for start, end in inner if start < end]


def test_another_error_of_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        Output(tmp_path / "a", 2 * PAGE).write(memoryview(bytes(2 * PAGE)), 0)
    monkeypatch.setattr(fcntl, "ioctl", full)
    with pytest.raises(OSError, match="No space"):
        share_blocks(tmp_path / "a", tmp_path / "b")


def test_a_source_that_ends_early_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8))
    with pytest.raises(IntegrityError, match="ended at 8 of 16 bytes"):
        Output(tmp_path / "b", 16).copy(tmp_path / "a", 0, 16)


def test_shared_blocks_or_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    shared = share_blocks(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (b"content" if shared else b"")


def test_blocks_are_about_alike_and_never_few_rows() -> None:
    for rows, width in [(1, 5), (151_936, 2048), (100, 1 << 20), (70, 1 << 20), (6144, 2048), (0, 7)]:
        found = list(blocks(rows, width))
        assert [first for first, _ in found] == [
            sum(count for _, count in found[:at]) for at in range(len(found))
        ]
        assert sum(count for _, count in found) == rows
        assert all(count * width * 4 <= 64 << 20 or count <= 64 for _, count in found)
        assert len(found) < 2 or min(count for _, count in found) >= 32


@pytest.mark.slow
def test_an_edit_of_the_base_does_not_reach_the_model(whole: Walk) -> None:
    same = 0
    for path in whole.recipe.base.path.glob("*.safetensors"):
        ours = whole.model.path / path.name
        assert not ours.samefile(path)
        same += ours.read_bytes() == path.read_bytes()
    assert same, "the vision tower's shards stay"


@pytest.mark.slow
def test_an_index_that_lies_is_corrected(whole: Walk) -> None:
    index = json.loads((whole.model.path / "model.safetensors.index.json").read_bytes())
    tensors = [t for path in whole.model.path.glob("*.safetensors") for t in load_file(path).values()]
    assert index["metadata"] == {
        "total_size": sum(tensor.nbytes for tensor in tensors),
        "told": "by the base",
    }


@pytest.mark.slow
def test_values_in_a_dtype_that_holds_them_are_no_overflow(
    tmp_path: Path, tiny_base: Path, bank_forms: Path
) -> None:
    """Of a sum that leaves the dtype, each summand is looked at; one that left it is refused."""

    def huge(base: Path) -> None:
        as_bfloat16(base)
        path = base / "model.safetensors"
        tensors = load_file(path)
        name = "model.language_model.layers.0.mlp.up_proj.weight"
        save_file(tensors | {name: torch.full_like(tensors[name], 3e38)}, path, metadata={"format": "pt"})

    other = walk(tmp_path, tiny_base, bank_forms, huge)
    run = make_run(other.home, other.base, scale=1e38, seed=5)
    with pytest.raises(InputError, match="NaN or infinite"):
        merge(other.recipe, other.home, other.base, run)
    assert not list(other.home.root.glob("work/*"))


@pytest.mark.slow
def test_whole_weights_that_are_broken_are_refused(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    root = lively_base(tiny_base, tmp_path / "base")
    recipe, home = recipe_for(root, bank_forms, tmp_path / "r.yaml"), Home(tmp_path / "home")
    base = pin_base(recipe, home)
    run = make_full_run(home, base)
    path = run.path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.language_model.norm.weight"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"are broken\n.*language_model.norm.weight: NaN"):
        write_merged(root, recipe.model_family, run, tmp_path / "out", tmp_path / "work")


@pytest.mark.slow
def test_a_weight_computed_twice_is_an_error(
    whole: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_lora = weights.plan_lora

    def twice(*given: Any) -> Any:
        plan = plan_lora(*given)
        one, two = [name for name in plan.changes if name.endswith("0.mlp.up_proj.weight")][:1] * 2
        pieces = [replace(piece, weight=f"{piece.weight}.again") for piece in plan.changes[two]]
        return replace(plan, changes=plan.changes | {one: pieces})

    monkeypatch.setattr(weights, "plan_lora", twice)
    with pytest.raises(IntegrityError, match="2 were not merged exactly once"):
        write_merged(
            whole.recipe.base.path, whole.recipe.model_family, whole.run, tmp_path / "out", tmp_path / "work"
        )


def killed(whole: Walk, home: Home, seen: Path, begun: Path) -> bool:
    """Merge in a process that is killed before the first rename that is not among the lines of `seen`, and
    adds it; whether it was. It writes which files it begins into `begun`."""
    begun.write_text("")
    if pid := os.fork():
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        return os.WIFSIGNALED(status)
    rename, begin_shard = os.rename, weights.begin_shard

    def dying(source: Any, target: Any, **rest: Any) -> None:
        # The journal is renamed once a file, longer each time.
        place = f"{Path(target).name} {Path(source).stat().st_size}"
        if place not in seen.read_text().splitlines():
            seen.write_text(f"{seen.read_text()}{place}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **rest)

    def noted(source: Any, *rest: Any) -> Any:
        with begun.open("a") as stream:
            stream.write(f"{source.path.name}\n")
        return begin_shard(source, *rest)

    os.rename = os.replace = dying
    weights.begin_shard = noted
    try:
        merge(whole.recipe, home, whole.base, whole.run)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.slow
def test_killed_at_each_rename_it_goes_on(whole: Walk, tmp_path: Path) -> None:
    home, seen, begun = Home(tmp_path / "home"), tmp_path / "seen", tmp_path / "begun"
    work = home.work_path(whole.model.manifest.key)
    seen.write_text("")
    done: set[str] = set()
    while killed(whole, home, seen, begun):
        assert not done & set(begun.read_text().split()), "a finished file is not written again"
        done = set(Journal(work).finished) if (work / JOURNAL).exists() else set()
    shards = {path.name for path in whole.recipe.base.path.glob("*.safetensors")}
    assert done == shards, "all were finished before the last kills"
    places = seen.read_text()
    assert all(f"{name} " in places for name in (*shards, JOURNAL, "manifest.json"))
    assert places.count(JOURNAL) == len(shards)
    model = home.find("model", whole.model.manifest.key)
    assert model
    assert model.id == whole.model.id
    assert not list(home.root.glob("artifacts/*/*.partial"))


def test_a_disk_without_second_names_gets_the_same(
    whole: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    assert merge(whole.recipe, Home(tmp_path), whole.base, whole.run).id == whole.model.id


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["gone", "cut", "other"])
def test_what_the_journal_does_not_know_whole_is_done_again(
    whole: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    home = Home(tmp_path / "home")
    work = home.work_path(whole.model.manifest.key)
    one, two = sorted(path.name for path in whole.model.path.glob("*.safetensors"))[:2]
    journal = Journal(work)
    for name in (one, two):
        data = (whole.model.path / name).read_bytes()
        (work / name).write_bytes(data)
        journal.add(name, Finished(bytes=len(data), elements={}, moved=[], products=[]))
    if fault == "gone":
        (work / one).unlink()
    elif fault == "cut":
        os.truncate(work / one, 100)
    else:
        (work / JOURNAL).write_text("{}")
    known = set(Journal(work).finished)
    assert known == (set() if fault == "other" else {two})


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from finetune.merging.checkpoint import open_checkpoint
from finetune.merging.lora import plan_lora
from finetune.merging.shard import begin_shard
from pathlib import Path
from lensmith import families
base, run, out = map(Path, sys.argv[1:])
opened = open_checkpoint(base)
plan = plan_lora(opened, families.get("qwen3_vl"), run)
begun = [begin_shard(file, out / name, plan.changes) for name, file in opened.files.items()]
print(sum(len(shard.new) for shard in begun), len(plan.changes))
"""


@pytest.mark.slow
def test_to_plan_a_merge_takes_no_torch(whole: Walk, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", WITHOUT_TORCH, whole.recipe.base.path, whole.run.path, tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    new, planned = map(int, done.stdout.split())
    assert new == planned == whole.model.body["tensors_changed"]


@pytest.mark.slow
def test_what_stays_is_copied_while_torch_is_imported(
    whole: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Shard] = []
    settle = Crew.settle

    def noted(*given: Any) -> Shard:
        begun.append(weights_begin(*given))
        return begun[-1]

    def slow(crew: Crew) -> None:
        if crew._before is None:
            wanted = sum(start < end for shard in begun for start, end in shard.stays)
            given_up = time.monotonic() + 20
            while sum(job.done() for shard in begun for job in shard.jobs) < wanted:
                assert time.monotonic() < given_up, "nothing is copied before torch is there"
                time.sleep(0.01)
            assert wanted > 10
        settle(crew)

    weights_begin = weights.begin_shard
    monkeypatch.setattr(weights, "begin_shard", noted)
    monkeypatch.setattr(Crew, "settle", slow)
    (tmp_path / "out").mkdir()
    base, family = whole.recipe.base.path, whole.recipe.model_family
    merged = write_merged(base, family, whole.run, tmp_path / "out", tmp_path / "work")
    assert merged.changed == whole.model.body["tensors_changed"]
    for path in whole.model.path.glob("*.safetensors"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
