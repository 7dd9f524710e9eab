"""The home: whole artifacts or nothing, one writer a key, lineage that verifies."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lensmith.artifact import MANIFEST, Artifact, Kind
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Draft, Home

KEY = "a" * 64
OTHER_KEY = "b" * 64

# Makes one artifact; what it does on the way comes as code in argv[3].
PROGRAM = """
import os, pathlib, signal, sys, time
from pathlib import Path
from lensmith.home import Home
home, key = Home(Path(sys.argv[1])), sys.argv[2]
with home.create("run", key, {}) as draft:
    (draft.path / "weights.bin").write_bytes(b"weights")
    draft.body["seed"] = 17
    exec(sys.argv[3])
print(draft.artifact.id)
"""


def start(home: Home, during: str, key: str = KEY) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(home.root), key, during], stdout=subprocess.PIPE, text=True
    )


def make(home: Home, kind: Kind, key: str, text: str = "", **inputs: Artifact) -> Artifact:
    with home.create(kind, key, inputs) as draft:
        (draft.path / "file.txt").write_text(text)
        draft.body["text"] = text
    return draft.artifact


def fail_half_way(draft: Draft) -> None:
    (draft.path / "half").write_text("")
    raise RuntimeError


def fill_the_disk(draft: Draft) -> None:
    (draft.path / "half").write_text("")
    # /dev/full gives the kernel's own ENOSPC to every write.
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"weights")


def left_over(home: Home) -> list[str]:
    return sorted(path.name for path in (home.root / "artifacts").rglob("*"))


def test_what_was_made_is_found_by_its_key(home: Home) -> None:
    made = make(home, "run", KEY)
    assert home.find("run", KEY) == made
    assert home.find("run", OTHER_KEY) is None
    assert home.find("model", KEY) is None


def test_another_key_with_the_same_beginning_is_not_taken_for_it(home: Home) -> None:
    make(home, "run", KEY)
    assert home.find("run", KEY[:24] + "c" * 40) is None


def test_a_folder_without_a_manifest_is_nothing(home: Home) -> None:
    made = make(home, "run", KEY)
    (made.path / MANIFEST).unlink()
    assert home.find("run", KEY) is None
    assert home.all() == []


def test_an_error_in_the_block_leaves_nothing(home: Home) -> None:
    with pytest.raises(RuntimeError), home.create("run", KEY, {}) as draft:
        fail_half_way(draft)
    assert left_over(home) == ["run"]


def test_a_draft_is_no_artifact_before_its_block_has_ended(home: Home) -> None:
    with home.create("run", KEY, {}) as draft, pytest.raises(IntegrityError, match="before it was complete"):
        draft.artifact  # noqa: B018


def test_work_is_kept_until_the_artifact_is_whole(home: Home) -> None:
    work = home.work_path(KEY)
    work.mkdir(parents=True)
    with pytest.raises(RuntimeError), home.create("run", KEY, {}):
        raise RuntimeError
    assert work.is_dir()
    make(home, "run", KEY)
    assert not work.exists()


@pytest.mark.parametrize(
    "during",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "Path.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)",
        "Path.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)",
    ],
    ids=["while writing", "at the last rename", "at the manifest's rename"],
)
def test_killed_it_is_not_there_and_the_next_call_makes_it(home: Home, during: str) -> None:
    process = start(home, during)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert home.find("run", KEY) is None
    assert home.all() == []
    again = start(home, "assert sorted(os.listdir(draft.path)) == ['weights.bin']")
    assert again.communicate(timeout=60)[0].strip() == home.all()[0].id
    assert left_over(home) == ["a" * 24, MANIFEST, "run", "weights.bin"]


def test_two_processes_that_make_the_same_key_end_with_one_artifact(home: Home) -> None:
    first = start(home, "time.sleep(1)")
    second = start(home, "draft.body['seed'] = 18; time.sleep(0.2)")
    ids = {process.communicate(timeout=60)[0].strip() for process in (first, second)}
    assert (first.returncode, second.returncode) == (0, 0)
    assert ids == {artifact.id for artifact in home.all()}
    assert len(ids) == 1
    home.verify(home.all()[0])


def test_a_lock_is_held_by_one_at_a_time(home: Home) -> None:
    code = """
import sys
from pathlib import Path
from lensmith.home import Home
print("ready", flush=True)
with Home(Path(sys.argv[1])).locked("some"):
    print("inside", flush=True)
"""
    with home.locked("some"):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(home.root)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # It has nothing left to do but to take the lock: half a second is ample for one that does not wait.
        entered, _, _ = select.select([process.stdout], [], [], 0.5)
        assert not entered
    assert process.communicate(timeout=60)[0] == "inside\n"


def test_a_full_disk_is_told_and_leaves_nothing(home: Home) -> None:
    with pytest.raises(InputError, match="no space left") as caught, home.create("run", KEY, {}) as draft:
        fill_the_disk(draft)
    assert caught.value.exit_code == 2
    assert left_over(home) == ["run"]


def test_a_full_disk_while_sealing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space left"):
        make(home, "run", KEY)
    assert left_over(home) == ["run"]


def test_other_errors_of_the_system_are_not_called_a_full_disk(home: Home) -> None:
    with pytest.raises(PermissionError), home.create("run", KEY, {}):
        raise PermissionError(errno.EACCES, "no")


def test_resolve_by_digits_kind_and_directory(home: Home) -> None:
    run, model = make(home, "run", KEY, "one"), make(home, "model", KEY, "two")
    assert home.resolve(run.id[:6]) == run
    assert home.resolve(model.short) == model
    assert home.resolve(model.id) == model
    assert home.resolve(str(run.path)) == run
    assert home.by_id(run.id) == run
    for wrong in (run.id[:5], f"model-{run.id[:12]}", "zzzzzz", "", "-"):
        with pytest.raises(InputError, match="names no artifact"):
            home.resolve(wrong)
    with pytest.raises(InputError, match="no artifact with id"):
        home.by_id("0" * 64)


def test_digits_that_fit_two_artifacts_name_neither(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make(home, "run", KEY, "one"), make(home, "run", OTHER_KEY, "two")
    twins = [
        Artifact(each.path, each.manifest.model_copy(update={"id": "abcdef" + each.id}))
        for each in (one, two)
    ]
    monkeypatch.setattr(home, "all", lambda: twins)
    with pytest.raises(InputError, match="names 2 artifacts") as caught:
        home.resolve("abcdef")
    assert {problem.what for problem in caught.value.problems} == {twin.short for twin in twins}


def test_the_same_content_under_two_keys_is_one_id(home: Home) -> None:
    one, two = make(home, "run", KEY), make(home, "run", OTHER_KEY)
    assert one.id == two.id
    assert home.resolve(one.id[:12]).id == one.id


@pytest.fixture
def chain(home: Home) -> tuple[Artifact, Artifact, Artifact]:
    base = make(home, "base", KEY, "base")
    run = make(home, "run", KEY, "run", base=base)
    return base, run, make(home, "model", KEY, "model", base=base, run=run)


def test_lineage_is_everything_once(home: Home, chain: tuple[Artifact, ...]) -> None:
    base, run, model = chain
    assert [each.id for each in home.lineage(model)] == [model.id, base.id, run.id]
    assert home.verify(model) == home.lineage(model)


def test_an_input_that_is_gone_breaks_the_lineage(home: Home, chain: tuple[Artifact, ...]) -> None:
    shutil.rmtree(chain[0].path)
    with pytest.raises(IntegrityError, match="was made from a base that is gone"):
        home.verify(chain[2])


def test_verify_walks_back_and_names_whose_file_changed(home: Home, chain: tuple[Artifact, ...]) -> None:
    base, run, model = chain
    (base.path / "file.txt").write_text("other")
    (run.path / "file.txt").unlink()
    with pytest.raises(IntegrityError) as caught:
        home.verify(model)
    assert [problem.where for problem in caught.value.problems] == [
        f"{base.short} file.txt",
        f"{run.short} file.txt",
    ]


def test_verify_refuses_a_link_in_any_artifact_of_the_lineage(
    home: Home, chain: tuple[Artifact, ...]
) -> None:
    (chain[0].path / "link").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="symbolic link"):
        home.verify(chain[2])
